"""Asking a chat model in plain text: a server that speaks OpenAI's protocol, or a hooked model on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.models import weights_key
from interp_toolkit.runtime.answers import plain_answers

# Worth asking again: too many at once, or a server's own trouble.
_AGAIN = {408, 409, 429, 500, 502, 503, 504}
# No prompt will fare better: a wrong key, model or address.
_USELESS = {401, 403, 404}
# Longest pause between two tries, in seconds, whatever the server asks for.
_LONGEST_WAIT = 60.0


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
"""Prompts, each a user's turn of its own, to their answers in the same order."""


@dataclass(frozen=True, eq=False)
class KeyedAsk:
    """A way of asking that says what its answers depend on, so that kept answers of other settings are not taken.

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
    """What the answers of a way of asking depend on; empty for a function of the user's own, which does not say."""
    return ask.key() if isinstance(ask, KeyedAsk) else ""


def ask_server(
    url: str,
    model: str,
    *,
    key: str | None = None,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    concurrency: int = 8,
    retries: int = 4,
    wait: float = 1.0,
    timeout: float = 60.0,
) -> Ask:
    """A way of asking any server that speaks OpenAI's chat protocol (OpenAI, vLLM, llama.cpp, Ollama).

    What is too much for the server, or fails on its side, is asked again after a pause that doubles each time, or that
    the server names. A prompt that stays without an answer has its reason; the others are not lost.

    Args:
        url: its base address, such as ``"http://localhost:8000/v1"``.
        model: as the server names it.
        key: sent as a bearer token, if given.
        max_tokens: longest answer.
        temperature: 0 for the server's most probable answer.
        seed: sent along; not every server heeds it.
        concurrency: prompts asked at once.
        retries: how often a prompt is asked again.
        wait: first pause, in seconds.
        timeout: for one answer, in seconds.

    Raises:
        InterpToolkitError: while asking: the server cannot be reached, or refuses the key, the model or the address.

    Example:
        >>> ask = ask_server("http://localhost:8000/v1", "Qwen2.5-7B-Instruct")
        >>> ask(["What is the capital of Poland?"])
        [Answer(text='Warsaw', reason='')]
    """
    try:
        import httpx
    except ImportError:
        raise InterpToolkitError("asking a server takes httpx: pip install httpx") from None
    address = f"{url.rstrip('/')}/chat/completions"
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def one(client: Any, prompt: str) -> Answer:
        body = dict(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
        )
        reason = ""
        for turn in range(retries + 1):
            pause = wait * 2**turn
            try:
                found = client.post(address, json=body, headers=headers)
            except httpx.ConnectError as error:
                reason = f"cannot reach {address}: {first_line(error)}"
                if turn == retries:
                    raise InterpToolkitError(f"{reason}; is the server running?") from error
            except httpx.TransportError as error:
                reason = f"no answer from {address}: {first_line(error)}"
            else:
                if found.status_code == 200:
                    return _parse(found)
                reason = f"the server said {found.status_code}: {found.text.strip()[:200]}"
                if found.status_code in _USELESS:
                    raise InterpToolkitError(f"{reason}; check the address {address}, the model {model!r} and the key")
                if found.status_code not in _AGAIN:
                    return Answer("", reason)
                pause = max(pause, _asked_wait(found.headers.get("retry-after")))
            if turn < retries:
                time.sleep(min(pause, _LONGEST_WAIT))
        return Answer("", f"{reason} (asked {retries + 1} times)")

    def ask(prompts: Sequence[str]) -> list[Answer]:
        with httpx.Client(timeout=timeout) as client, ThreadPoolExecutor(max(1, concurrency)) as pool:
            waiting = [pool.submit(one, client, prompt) for prompt in prompts]
            try:
                return [each.result() for each in waiting]
            except BaseException:
                # What was refused once will be refused again: the rest is not asked.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    return KeyedAsk(ask, lambda: json.dumps(["server", url, model, max_tokens, temperature, seed]))


def ask_model(model: Any, *, max_new_tokens: int = 48) -> Ask:
    """A way of asking a hooked chat model on this machine, greedily and in batches.

    Args:
        model: the hooked model, with a chat template.
        max_new_tokens: longest answer, in tokens.

    Raises:
        InterpToolkitError: when it is asked, a model without a chat template.

    Example:
        >>> ask_model(model)(["What is the capital of Poland?"])
    """

    def ask(prompts: Sequence[str]) -> list[Answer]:
        texts = plain_answers(model, prompts, max_new_tokens=max_new_tokens, chat=True)
        return [Answer(text, "" if text else "the model said nothing") for text in texts]

    return KeyedAsk(ask, lambda: json.dumps(["model", weights_key(model), max_new_tokens]))


def _parse(found: Any) -> Answer:
    try:
        text = found.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return Answer("", f"the server's answer is no chat completion: {found.text.strip()[:200]}")
    text = text.strip() if isinstance(text, str) else ""
    return Answer(text, "" if text else "the model said nothing")


def _asked_wait(header: str | None) -> float:
    """Seconds of a Retry-After header; 0 where there is none, or where it names a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
