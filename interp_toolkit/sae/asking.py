"""Asking a chat model in plain text: a server that speaks OpenAI's protocol, or a hooked model on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import weights_key
from interp_toolkit.runtime.answers import plain_answers
from interp_toolkit.web import NoAnswer, Send, Server

# No prompt will fare better: a wrong key, model or address.
_FATAL = {401, 403, 404}
# Characters of a server's message that an error repeats.
_SHOWN = 200


@dataclass(frozen=True)
class Answer:
    """What a model answered to one prompt.

    Attributes:
        text: the answer; empty where there is none.
        reason: why there is none; empty where there is one.
    """

    text: str
    reason: str = ""


Ask = Callable[[Sequence[str]], list[Answer]]
"""A function from prompts, one user turn each, to their answers in the same order."""


@dataclass(frozen=True, eq=False)
class KeyedAsk:
    """An `Ask` with a cache key, so that answers under other settings are not taken from a cache.

    Attributes:
        ask: prompts to answers.
        key: a text that differs where answers may: of the model and every setting.
    """

    ask: Ask
    key: Callable[[], str]

    def __call__(self, prompts: Sequence[str]) -> list[Answer]:
        """Answers to prompts."""
        return self.ask(prompts)


def ask_key(ask: Ask) -> str:
    """The cache key of an `Ask`; empty for a function of the user's, whose settings are not known."""
    return ask.key() if isinstance(ask, KeyedAsk) else ""


@renamed_arguments(key="api_key")
def ask_server(
    url: str,
    model: str,
    *,
    api_key: str | None = None,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    concurrency: int = 8,
    retries: int = 4,
    wait: float = 1.0,
    timeout: float = 60.0,
) -> Ask:
    """Return a function that asks a server with OpenAI's chat protocol (OpenAI, vLLM, llama.cpp, Ollama).

    A request that the network drops, or that the server is too busy for, is sent again after a pause that doubles each
    time, or that the server names. A prompt that stays without an answer gets its reason; the other answers are not
    lost.

    Args:
        url: the server's base address, such as ``"http://localhost:8000/v1"``.
        model: name of the model on the server.
        api_key: sent as a bearer token; no error repeats it.
        max_tokens: longest answer, in tokens.
        temperature: of the sampling; 0 for the most probable answer.
        seed: of the sampling; not every server heeds it.
        concurrency: number of requests at once.
        retries: how often a request is sent again, at most.
        wait: first pause, in seconds.
        timeout: of one request, in seconds.

    Returns:
        a function from prompts to answers. It raises InterpToolkitError where the server cannot be reached, or refuses
        the key, the model or the address.

    Raises:
        InterpToolkitError: an address that is no web address, a key that no header can hold, or httpx or tenacity is
            missing.

    Example:
        >>> ask = ask_server("http://localhost:8000/v1", "Qwen2.5-7B-Instruct")
        >>> ask(["What is the capital of Poland?"])
        [Answer(text='Warsaw', reason='')]
    """
    server = Server(
        url, api_key=api_key, concurrency=concurrency, retries=retries, wait=wait, timeout=timeout, extra="sae"
    )
    settings = dict(model=model, max_tokens=max_tokens, temperature=temperature, seed=seed)

    def answer(send: Send, prompt: str) -> Answer:
        try:
            body = settings | dict(messages=[{"role": "user", "content": prompt}])
            response = send("POST", "/chat/completions", body)
        except NoAnswer as error:
            return Answer("", str(error))
        if response.status_code == 200:
            return _parse(response)
        reason = server.reason(response)
        if response.status_code in _FATAL:
            raise InterpToolkitError(
                f"{reason}; check the address {server.shown}/chat/completions, the model {model!r} and the key"
            )
        return Answer("", reason)

    def ask(prompts: Sequence[str]) -> list[Answer]:
        return server.each(answer, prompts)

    return KeyedAsk(ask, lambda: json.dumps(["server", url, model, max_tokens, temperature, seed]))


def ask_model(model: Any, *, max_new_tokens: int = 48) -> Ask:
    """Return a function that asks a hooked chat model on this machine, greedily and in batches.

    Args:
        model: the hooked model, with a chat template.
        max_new_tokens: longest answer, in tokens.

    Returns:
        a function from prompts to answers. It raises InterpToolkitError for a model without a chat template.

    Example:
        >>> ask_model(model)(["What is the capital of Poland?"])
    """

    def ask(prompts: Sequence[str]) -> list[Answer]:
        texts = plain_answers(model, prompts, max_new_tokens=max_new_tokens, chat=True)
        return [Answer(text, "" if text else "the model said nothing") for text in texts]

    return KeyedAsk(ask, lambda: json.dumps(["model", weights_key(model), max_new_tokens]))


def _parse(response: Any) -> Answer:
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return Answer("", f"the server's answer is no chat completion: {response.text.strip()[:_SHOWN]}")
    text = text.strip() if isinstance(text, str) else ""
    return Answer(text, "" if text else "the model said nothing")
