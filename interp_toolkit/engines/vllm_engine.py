"""vLLM in this process as an engine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from interp_toolkit.engines.local import DEFAULT_MODEL
from interp_toolkit.engines.model_files import OutsideModel, no_vllm
from interp_toolkit.engines.outside import Drawing, Drawn, FilledPrompt, OutsideEngine


class VllmEngine(OutsideEngine):
    """vLLM (0.32 or newer) in this process: `LLM` with prompts of token ids, and of embeddings at the slots.

    Batching, paged attention and tensor parallelism are vLLM's. Token ids are sent as they are, so every text can be
    scored. Samples are vLLM's; greedy texts and log-probabilities are those of a hooked model up to the rounding of the
    dtypes.

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
        super().__init__(files.facts, files.tokenizer, files.stops, int(config.max_model_len), files.vocabulary)

    @property
    def identity(self) -> Mapping[str, str]:
        """The version of vLLM and the dtype."""
        return dict(engine="vllm", dtype=str(self._dtype).removeprefix("torch."), vllm=self._version)

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
        for output in self.llm.generate([self._sent(prompt) for prompt in prompts], parameters, use_tqdm=False):
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
        outputs = self.llm.generate([self._sent(prompt) for prompt in prompts], parameters, use_tqdm=False)
        rows: list[list[float] | None] = []
        for prompt, output in zip(prompts, outputs):
            behind = output.prompt_logprobs[-len(prompt.then) :]
            rows.append([at[token].logprob for at, token in zip(behind, prompt.then, strict=True)])
        return rows

    def _sent(self, prompt: FilledPrompt) -> dict[str, Any]:
        """A prompt as vLLM takes it: ids, and rows for those of them that are soft tokens."""
        ids = [*prompt.tokens.ids, *prompt.then]
        rows = torch.zeros(len(ids), self.facts.d_model, dtype=self._dtype)
        rows[list(prompt.tokens.slots)] = prompt.soft_tokens.to(self._dtype)
        slots = set(prompt.tokens.slots)
        return dict(
            prompt_embeds=rows, prompt_token_ids=ids, prompt_is_token_ids=[i not in slots for i in range(len(ids))]
        )
