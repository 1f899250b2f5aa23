"""Asking a chat model in plain text: a server that speaks OpenAI's protocol, or a hooked model on this machine."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from interp_toolkit.deprecation import renamed_arguments
from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.models import weights_key
from interp_toolkit.runtime.answers import plain_answers

# Worth asking again: too many requests at once, or a fault of the server's.
_TEMPORARY = {408, 409, 429, 500, 502, 503, 504}
# No prompt will fare better: a wrong key, model or address.
_FATAL = {401, 403, 404}
# Longest pause between two attempts, in seconds, whatever the server asks for.
_LONGEST_WAIT = 60.0
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


class _TemporaryError(Exception):
    """A status of the server's that is worth asking again.

    Attributes:
        wait: seconds that the server asks to wait, at least 0.
    """

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason)
        self.wait = wait


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
    httpx, tenacity = _import("httpx"), _import("tenacity")
    address = _address(httpx, url)
    # A user name and a password in the address are keys too.
    shown = str(httpx.URL(address).copy_with(userinfo=b""))
    headers = {"Authorization": f"Bearer {_checked_key(api_key)}"} if api_key else {}
    settings = dict(model=model, max_tokens=max_tokens, temperature=temperature, seed=seed)

    def send(client: Any, prompt: str) -> Answer:
        """Send one request.

        Raises:
            _TemporaryError, httpx.TransportError: it is worth sending again.
            InterpToolkitError: no request will fare better.
        """
        body = settings | dict(messages=[{"role": "user", "content": prompt}])
        response = client.post(address, json=body, headers=headers)
        if response.status_code == 200:
            return _parse(response)
        reason = f"the server said {response.status_code}: {_without(api_key, response.text.strip())[:_SHOWN]}"
        if response.status_code in _FATAL:
            raise InterpToolkitError(f"{reason}; check the address {shown}, the model {model!r} and the key")
        if response.status_code in _TEMPORARY:
            raise _TemporaryError(reason, _retry_after(response.headers.get("retry-after")))
        return Answer("", reason)

    backoff = tenacity.wait_exponential(multiplier=wait, max=_LONGEST_WAIT)

    def pause(state: Any) -> float:
        asked_for = getattr(state.outcome.exception(), "wait", 0.0)
        return min(max(backoff(state), asked_for), _LONGEST_WAIT)

    def answer(client: Any, prompt: str, stopped: threading.Event) -> Answer:
        sending = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _TemporaryError)),
            stop=tenacity.stop_after_attempt(retries + 1) | tenacity.stop_when_event_set(stopped),
            wait=pause,
            sleep=tenacity.sleep_using_event(stopped),
            reraise=True,
        )
        try:
            return sending(send, client, prompt)
        except _TemporaryError as error:
            return Answer("", f"{error} (asked {retries + 1} times)")
        except httpx.ConnectError as error:
            raise InterpToolkitError(f"cannot reach {shown}: {first_line(error)}; is the server running?") from error
        except httpx.TransportError as error:
            return Answer("", f"no answer from {shown}: {first_line(error)} (asked {retries + 1} times)")
        except httpx.RequestError as error:  # an answer that cannot be decoded, or redirects without end
            return Answer("", f"no answer from {shown}: {first_line(error)}")

    def ask(prompts: Sequence[str]) -> list[Answer]:
        stopped = threading.Event()
        with httpx.Client(timeout=timeout) as client, ThreadPoolExecutor(max(1, concurrency)) as pool:
            answers = [pool.submit(answer, client, prompt, stopped) for prompt in prompts]
            try:
                return [future.result() for future in answers]
            except BaseException:
                # What was refused once will be refused again: nothing more is sent, and no pause is waited for.
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

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


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InterpToolkitError(
            f"asking a server takes {name}: pip install 'interp-toolkit[sae]', or pip install httpx tenacity"
        ) from None


def _address(httpx: Any, url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        # What is no address may hold a key, and is not repeated.
        raise InterpToolkitError("expected the address of a server, such as http://localhost:8000/v1, got none")
    return f"{url.rstrip('/')}/chat/completions"


def _checked_key(api_key: str) -> str:
    """The key, where a header can hold it: httpx repeats a header that it refuses in its error."""
    if not (api_key.isascii() and api_key.isprintable()):
        raise InterpToolkitError(
            "expected an API key of printable ASCII characters, got one with others, such as a line break at its end"
        )
    return api_key


def _without(api_key: str | None, text: str) -> str:
    """A server's message without the key, which some repeat."""
    return text.replace(api_key, "***") if api_key else text


def _parse(response: Any) -> Answer:
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return Answer("", f"the server's answer is no chat completion: {response.text.strip()[:_SHOWN]}")
    text = text.strip() if isinstance(text, str) else ""
    return Answer(text, "" if text else "the model said nothing")


def _retry_after(header: str | None) -> float:
    """Seconds of a Retry-After header; 0 where there is none, or where it names a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
