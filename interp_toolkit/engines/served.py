"""A vLLM server as an engine: an OpenAI-compatible API to which soft tokens travel, and nothing else of the model."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.chat import encode
from interp_toolkit.engines.model_files import PLACEHOLDER, OutsideModel
from interp_toolkit.engines.outside import Drawing, Drawn, FilledPrompt, OutsideEngine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.web import NoAnswer, Send, Server

# Renders a message's parts as they are, so that the whole prompt, markup included, is the client's.
_TEMPLATE = "{%- for m in messages -%}{%- for part in m['content'] -%}{{ part['text'] }}{%- endfor -%}{%- endfor -%}"
# What a server would otherwise take from the model's generation settings, and what would change greedy texts too.
_PLAIN = dict(top_k=0, min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)
_HOW = "interp-toolkit serve-model MODEL"


class ServedEngine(OutsideEngine):
    """A vLLM server (0.32 or newer) that was started with ``--enable-prompt-embeds --trust-request-chat-template``.

    ``interp-toolkit serve-model MODEL`` starts one. Only soft tokens and texts travel. Samples are the server's; greedy
    texts and log-probabilities are those of a hooked model up to the rounding of the dtypes. What the server computes
    is compared with the adapter's probe before it is used, see `require_same_model`.

    Args:
        url: such as ``"http://127.0.0.1:8000"``.
        model: hub id or folder of the model, for its tokenizer and sizes; no weights are read. By default what the
            server says that it was started with.
        dtype: that the server was started with, where it is known; ``"float32"`` makes the comparison a strict one.
        api_key: the server's, by default the environment's ``VLLM_API_KEY``.
        in_flight: most requests at a time.
        retries: how often a request is sent again, at pauses that double from a quarter of a second.
        timeout: for one answer, in seconds.

    Raises:
        InterpToolkitError: no server there, one without the two flags or with another tokenizer, or one in which a
            request for log-probabilities would end the process.

    Example:
        >>> engine = ServedEngine("http://127.0.0.1:8000", model="meta-llama/Llama-3.1-8B-Instruct")
        >>> self_explain(vectors, model=engine, adapter="my-adapter").to_df()
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        dtype: str = "unknown",
        api_key: str | None = None,
        in_flight: int = 64,
        retries: int = 5,
        timeout: float = 120.0,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        key = api_key or os.environ.get("VLLM_API_KEY")
        self._server = Server(self.url, api_key=key, concurrency=in_flight, retries=retries, wait=0.25, timeout=timeout)
        models, version = self._each(lambda send, path: self._data(send("GET", path)), ["/v1/models", "/version"])
        served = models.get("data") or [{}]
        self._name, root = str(served[0].get("id", "")), str(served[0].get("root") or served[0].get("id", ""))
        self._version = str(version.get("version", "unknown"))
        self._dtype = dtype
        try:
            files = OutsideModel.read(root if model is None else model)
        except InterpToolkitError as error:
            if model is not None:
                raise
            raise InterpToolkitError(
                f"the server at {self._server.shown} was started with {root!r}, whose tokenizer and config cannot be "
                f"read here; name the model's hub id, or a folder that holds them: model=... (--model)"
            ) from error
        context = int(served[0].get("max_model_len") or files.context)
        super().__init__(files.facts, files.tokenizer, files.stops, context, files.vocabulary)
        self._placeholder = self._trial()

    @property
    def identity(self) -> Mapping[str, str]:
        """The version of vLLM, and the dtype where it is known."""
        return dict(engine="vllm", dtype=self._dtype, vllm=self._version)

    def _draw(
        self, prompts: Sequence[FilledPrompt], seeds: Sequence[int], drawing: Drawing, done: Callable[[], object]
    ) -> list[list[Drawn]]:
        def draw(send: Send, prompt: FilledPrompt, seed: int) -> list[Drawn]:
            answer = self._complete(
                send,
                prompt,
                n=drawing.samples,
                temperature=drawing.temperature,
                top_p=drawing.top_p,
                max_tokens=drawing.max_new_tokens,
                stop_token_ids=list(drawing.stops),
                stop=[drawing.stop_text] if drawing.stop_text else [],
                logprobs=True,
                top_logprobs=0,
                **_PLAIN,
                **(dict(seed=seed) if drawing.temperature else {}),
            )
            done()
            return [_drawn(choice) for choice in sorted(answer["choices"], key=lambda choice: choice["index"])]

        rows = self._each(draw, prompts, seeds)
        if any(len(row) != drawing.samples for row in rows):
            raise self._unknown(f"{drawing.samples} texts for each prompt")
        return rows

    def _log_probs(self, prompts: Sequence[FilledPrompt]) -> list[list[float] | None]:
        def read(send: Send, prompt: FilledPrompt) -> list[float] | None:
            text = self._last_text(prompt)
            # The server may call a token of the model's by the placeholder's name.
            taken = self._placeholder in prompt.then or PLACEHOLDER in text
            if taken or encode(self.tokenizer, text) != self._last_ids(prompt):
                return None
            answer = self._complete(send, prompt, max_tokens=1, temperature=0.0, prompt_logprobs=0)
            behind = answer["prompt_logprobs"][-len(prompt.then) :]
            return [float(at[str(token)]["logprob"]) for at, token in zip(behind, prompt.then, strict=True)]

        return self._each(read, prompts)

    def _each(self, function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
        try:
            return self._server.each(function, *columns)
        except InterpToolkitError:
            raise
        except NoAnswer as error:
            raise InterpToolkitError(
                f"the server at {self._server.shown} stopped answering: {error}; look whether it runs, and give the "
                f"same command again: what was written stays"
            ) from error
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise self._unknown(str(error)) from error

    def _unknown(self, what: str) -> InterpToolkitError:
        """The error of an answer that is not of vLLM's API."""
        return InterpToolkitError(
            f"expected answers of vLLM's API from {self._server.shown}, got one without {what}; start a server with: "
            f"{_HOW}"
        )

    def _complete(self, send: Send, prompt: FilledPrompt, **settings: Any) -> dict[str, Any]:
        """The server's answer to a prompt, once it has read just these tokens."""
        texts = prompt.soft_prompt.template.split(prompt.soft_prompt.marker)
        texts[-1] = self._last_text(prompt)
        pieces: list[dict[str, str]] = [dict(type="text", text=texts[0])] if texts[0] else []
        for soft_token, text in zip(prompt.soft_tokens, texts[1:], strict=True):
            pieces.append(_embedding_part(soft_token))
            if text:
                pieces.append(dict(type="text", text=text))
        answer = self._chat(send, pieces, **settings)
        expected = list(prompt.tokens.ids)
        for slot in prompt.tokens.slots:
            expected[slot] = self._placeholder
        if answer["prompt_token_ids"] != [*expected, *prompt.then]:
            raise InterpToolkitError(
                f"the server at {self.url} reads other tokens than {self.facts.model_id}'s tokenizer gives: expected "
                f"{[*expected, *prompt.then]!s:.120}, got {answer['prompt_token_ids']!s:.120}; start it with the "
                f"adapter's own model and tokenizer"
            )
        return answer

    def _last_text(self, prompt: FilledPrompt) -> str:
        """The text behind the last slot: the rest of the soft prompt, and what follows it."""
        end = prompt.soft_prompt.template.rsplit(prompt.soft_prompt.marker, 1)[1]
        then = self.tokenizer.decode(list(prompt.then), clean_up_tokenization_spaces=False) if prompt.then else ""
        return end + then

    @staticmethod
    def _last_ids(prompt: FilledPrompt) -> list[int]:
        return [*prompt.tokens.ids[prompt.tokens.slots[-1] + 1 :], *prompt.then]

    def _trial(self) -> int:
        """The id that the server gives soft tokens, by a request that is safe whatever it is."""
        zeros = torch.zeros(self.facts.d_model)
        pieces = [dict(type="text", text="a"), _embedding_part(zeros)]
        (answer,) = self._each(lambda send, one: self._chat(send, one, max_tokens=1, temperature=0.0), [pieces])
        ids = answer.get("prompt_token_ids")
        if not isinstance(ids, list) or ids[:-1] != encode(self.tokenizer, "a"):
            raise InterpToolkitError(
                f"the server at {self.url} reads the text 'a' as {ids!s:.60}, where the tokenizer of "
                f"{self.facts.model_id} gives {encode(self.tokenizer, 'a')} and then a soft token; start it with that "
                f"model: {_HOW}"
            )
        if ids[-1] >= self.vocabulary:
            raise InterpToolkitError(
                f"the server at {self.url} gives soft tokens the id {ids[-1]}, and the model has {self.vocabulary:,} "
                f"rows: a request for log-probabilities would end the server; start it with: {_HOW}, which gives it a "
                f"tokenizer with room"
            )
        return int(ids[-1])

    def _chat(self, send: Send, pieces: list[dict[str, str]], **settings: Any) -> dict[str, Any]:
        body = dict(
            model=self._name,
            messages=[dict(role="user", content=pieces)],
            chat_template=_TEMPLATE,
            add_generation_prompt=False,
            add_special_tokens=False,
            skip_special_tokens=False,
            ignore_eos=True,
            return_token_ids=True,
            **settings,
        )
        return self._data(send("POST", "/v1/chat/completions", body))

    def _data(self, response: Any) -> dict[str, Any]:
        """What a response holds.

        Raises:
            InterpToolkitError: a refusal, or no JSON.
        """
        if response.status_code >= 400:
            hint, text = "look at the server's own output", response.text
            if "enable-prompt-embeds" in text or "trust-request-chat-template" in text:
                hint = f"start it with: {_HOW}, which sets what is needed"
            elif response.status_code in (401, 403):
                hint = "pass its key as api_key=..., or in the environment as VLLM_API_KEY"
            elif response.status_code == 404:
                hint = f"start a vLLM server there with: {_HOW}"
            raise InterpToolkitError(f"{self._server.shown}: {self._server.reason(response)}; {hint}")
        data = response.json()
        if not isinstance(data, dict):
            raise self._unknown("a JSON object")
        return data


def _embedding_part(soft_token: Tensor) -> dict[str, str]:
    """A soft token as a part of a message, in the form that vLLM reads: a tensor of torch's own format, in base64."""
    stream = io.BytesIO()
    # A copy: what is saved of a part of a tensor is the whole.
    torch.save(soft_token.detach().float().cpu()[None].clone(), stream)
    return dict(type="prompt_embeds", data=base64.b64encode(stream.getvalue()).decode())


def _drawn(choice: Mapping[str, Any]) -> Drawn:
    ids, content = choice["token_ids"], choice["logprobs"]["content"]
    return [(int(token), float(one["logprob"])) for token, one in zip(ids, content, strict=True)]
