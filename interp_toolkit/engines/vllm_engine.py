"""vLLM in this process as an engine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.activations import Activations, readings_table, stack_sites, wanted_positions
from interp_toolkit.chat import Prompt, list_prompts, prompt_ids
from interp_toolkit.engines.engine import Capability
from interp_toolkit.engines.local import DEFAULT_MODEL
from interp_toolkit.engines.model_files import OutsideModel, no_vllm
from interp_toolkit.engines.outside import Drawing, Drawn, FilledPrompt, OutsideEngine
from interp_toolkit.engines.vllm_streams import NumberedToken, Streams, stream_index
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.limits import require_rows
from interp_toolkit.positions import Positions, parse_positions
from interp_toolkit.sites import SiteLike, SiteStack, parse_sites


class VllmEngine(OutsideEngine):
    """vLLM (0.32 or newer) in this process: `LLM` with prompts of token ids, and of embeddings at the slots.

    Batching, paged attention and tensor parallelism are vLLM's. Token ids are sent as they are, so every text can be
    scored. Samples are vLLM's; greedy texts and log-probabilities are those of a hooked model up to the rounding of the
    dtypes. Where vLLM is eager and not in processes of its own (``VLLM_ENABLE_V1_MULTIPROCESSING=0``,
    ``enforce_eager=True``), soft tokens are also written into the stream between blocks, and the stream is read.

    Args:
        model: hub id or folder, or ``"smollm2-135m"``.
        dtype: of the model; ``"auto"`` takes bfloat16 for a folder in float32.
        settings: further arguments of vLLM's ``LLM``, such as ``tensor_parallel_size=8``.

    Attributes:
        llm: vLLM's ``LLM``.

    Raises:
        InterpToolkitError: vLLM is not installed, or the model cannot be read.

    Example:
        >>> engine = VllmEngine("meta-llama/Llama-3.1-8B-Instruct", dtype="bfloat16")
        >>> self_explain(vectors, model=engine, adapter="my-adapter").to_df()
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, dtype: str = "auto", **settings: Any) -> None:
        try:
            vllm = importlib.import_module("vllm")
        except ModuleNotFoundError as error:
            raise no_vllm(", or use a server: ServedEngine") from error
        files = OutsideModel.read(model)
        settings = dict(files.vllm_settings(), logprobs_mode="raw_logprobs") | settings
        self._parameters = vllm.SamplingParams
        self.llm = vllm.LLM(files.source, dtype=dtype, **settings)
        self._version = vllm.__version__
        config = self.llm.llm_engine.model_config
        self._dtype = config.dtype
        self._streams: Streams | None = None
        self._no_streams = ""
        try:
            self._streams = Streams(self.llm, files.facts.n_layers)
        except InterpToolkitError as error:
            self._no_streams = str(error)
        super().__init__(files.facts, files.tokenizer, files.stops, int(config.max_model_len), files.vocabulary)

    @property
    def identity(self) -> Mapping[str, str]:
        """The version of vLLM and the dtype."""
        return dict(engine="vllm", dtype=str(self._dtype).removeprefix("torch."), vllm=self._version)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Soft tokens in the stream between blocks, and activations there, where the model runs in this process."""
        return frozenset(("any_site", "activations")) if self._streams else frozenset()

    def read_activations(
        self,
        prompts: Prompt | Iterable[Prompt],
        sites: SiteLike | Sequence[SiteLike] | SiteStack,
        positions: Positions = "last",
        *,
        chat: bool | None = None,
    ) -> Activations:
        """Vectors of many prompts between the blocks, as `interp_toolkit.read_activations` reads them.

        Args:
            prompts: as of `interp_toolkit.read_activations`, and so all that follow.
            sites: streams before or after blocks.
            positions: likewise.
            chat: likewise.

        Raises:
            InterpToolkitError: a model that is not reached from this process, a site that is not between blocks, a
                prompt that is empty or too long, or a position that does not exist.

        Example:
            >>> self_explain(engine.read_activations(prompts, 19), model=engine, adapter="my-adapter")
        """
        streams = self._require_streams("activations")
        prompts = list_prompts(prompts)
        tokens = prompt_ids(self.tokenizer, prompts, chat)
        for i, row in enumerate(tokens):
            require_rows(self.vocabulary, row, f"prompt {i}")
            if len(row) >= self.context:
                raise InterpToolkitError(
                    f"prompt {i} has {len(row)} tokens, and the engine reads {self.context - 1}; shorten it"
                )
        chosen = parse_sites(sites)
        indices = [stream_index(site, self.facts.n_layers) for site in chosen]
        wanted = wanted_positions(self.tokenizer, prompts, tokens, parse_positions(positions), chat)
        with streams.numbering():
            numbered = [
                {at: NumberedToken(row[at], read=tuple(indices)) for at in dict.fromkeys(places)}
                for row, places in zip(tokens, wanted)
            ]
            sent = [self._with_numbers(streams, row, some) for row, some in zip(tokens, numbered)]
            self.llm.generate(sent, self._parameters(temperature=0, max_tokens=1), use_tqdm=False)
        vectors = [some[at].seen[i] for some, places in zip(numbered, wanted) for i in indices for at in places]
        read = Activations(torch.stack(vectors), readings_table(self.tokenizer, tokens, chosen, wanted))
        return stack_sites(read, sites) if isinstance(sites, SiteStack) else read

    def _draw(
        self, prompts: Sequence[FilledPrompt], seeds: Sequence[int], drawing: Drawing, done: Callable[[], object]
    ) -> list[list[Drawn]]:
        parameters = [
            self._parameters(
                n=drawing.samples,
                temperature=drawing.temperature,
                top_p=drawing.top_p,
                max_tokens=drawing.max_new_tokens,
                stop_token_ids=list(drawing.stops),
                stop=[drawing.stop_text] if drawing.stop_text else None,
                ignore_eos=True,
                logprobs=0,
                seed=seed if drawing.temperature else None,
            )
            for seed in seeds
        ]
        rows = []
        for output in self._generate(prompts, parameters):
            texts = sorted(output.outputs, key=lambda text: text.index)
            rows.append(
                [
                    [(token, at[token].logprob) for token, at in zip(text.token_ids, text.logprobs or (), strict=True)]
                    for text in texts
                ]
            )
            done()
        return rows

    def _log_probs(self, prompts: Sequence[FilledPrompt]) -> list[list[float] | None]:
        parameters = self._parameters(temperature=0, max_tokens=1, prompt_logprobs=0)
        outputs = self._generate(prompts, parameters)
        rows: list[list[float] | None] = []
        for prompt, output in zip(prompts, outputs):
            behind = output.prompt_logprobs[-len(prompt.then) :]
            rows.append([at[token].logprob for at, token in zip(behind, prompt.then, strict=True)])
        return rows

    def _generate(self, prompts: Sequence[FilledPrompt], parameters: Any) -> Any:
        """What vLLM makes of prompts, with their soft tokens at the embedding or between blocks."""
        if all(prompt.soft_prompt.at_embedding for prompt in prompts):
            return self.llm.generate([self._sent(prompt) for prompt in prompts], parameters, use_tqdm=False)
        streams = self._require_streams("soft tokens between blocks")
        with streams.numbering():
            sent = []
            for prompt in prompts:
                ids, inside = prompt.ids, prompt.soft_prompt
                index = stream_index(inside.site, self.facts.n_layers)
                numbered = {
                    slot: NumberedToken(ids[slot], written=row, add=inside.mode == "add", at=index)
                    for slot, row in zip(prompt.tokens.slots, prompt.soft_tokens)
                }
                sent.append(self._with_numbers(streams, ids, numbered))
            return self.llm.generate(sent, parameters, use_tqdm=False)

    def _require_streams(self, what: str) -> Streams:
        if self._streams is None:
            raise InterpToolkitError(
                f"expected a VllmEngine that reaches into its model for {what}, and {self._no_streams}; or use a "
                f"hooked model"
            )
        return self._streams

    def _with_numbers(
        self, streams: Streams, ids: Sequence[int], numbered: Mapping[int, NumberedToken]
    ) -> dict[str, Any]:
        """Ids as vLLM takes them, with some tokens sent as their numbers."""
        rows = {at: streams.number(token, self.facts.d_model) for at, token in numbered.items()}
        return self._with_rows(ids, rows)

    def _sent(self, prompt: FilledPrompt) -> dict[str, Any]:
        """A prompt as vLLM takes it: ids, and rows for those of them that are soft tokens."""
        return self._with_rows(prompt.ids, dict(zip(prompt.tokens.slots, prompt.soft_tokens)))

    def _with_rows(self, ids: Sequence[int], rows: Mapping[int, Tensor]) -> dict[str, Any]:
        """Ids as vLLM takes them, with embeddings in place of some."""
        embeddings = torch.zeros(len(ids), self.facts.d_model, dtype=self._dtype)
        for at, row in rows.items():
            embeddings[at] = row.to(self._dtype)
        is_id = [i not in rows for i in range(len(ids))]
        return dict(prompt_embeds=embeddings, prompt_token_ids=list(ids), prompt_is_token_ids=is_id)
