"""The bodies of requests and responses, checked by pydantic and shown in the server's OpenAPI document."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictBool, StrictInt
from safetensors.torch import load
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.explanations import Explanation
from interp_toolkit.runtime import Sampling
from interp_toolkit.serve.limits import (
    MOST_CHARACTERS,
    MOST_LENS_TOKENS,
    MOST_NEW_TOKENS,
    MOST_SAMPLES,
    MOST_TEXTS,
)

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
SiteName = Annotated[StrictInt, Field(ge=0)] | Annotated[str, Field(max_length=500)]
PositionNames = Literal["last", "all", "content"] | Annotated[list[StrictInt], Field(min_length=1, max_length=4096)]
NewTokens = Annotated[StrictInt, Field(ge=1, le=MOST_NEW_TOKENS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(_Body):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


PromptBody = Text | Annotated[list[Message], Field(min_length=1, max_length=64)]


class SamplingBody(_Body):
    """How descriptions are sampled, as `interp_toolkit.Sampling` has it."""

    n: Annotated[StrictInt, Field(ge=1, le=MOST_SAMPLES)] = 1
    temperature: Annotated[FiniteFloat, Field(ge=0)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    max_new_tokens: NewTokens = Sampling().max_new_tokens  # type: ignore[assignment]
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0
    scales: Annotated[list[FiniteFloat], Field(min_length=1, max_length=16)] = [1.0]

    def value(self) -> Sampling:
        """The same as a `Sampling`."""
        return Sampling(**self.model_dump())


class ExplainBody(_Body):
    """Texts to read, and which of their tokens are described at which sites."""

    texts: Annotated[list[PromptBody], Field(min_length=1, max_length=MOST_TEXTS)]
    adapter: str | None = None
    sites: Annotated[list[SiteName], Field(min_length=1, max_length=256)] | None = None
    positions: PositionNames = "last"
    chat: StrictBool | None = None
    sampling: SamplingBody = SamplingBody()
    include_null: StrictBool = False
    on_mismatch: Literal["error", "warn"] = "error"


class _VectorsBody(_Body):
    vectors: list[list[FiniteFloat]] | None = None
    safetensors: Annotated[str, Field(description="base64 of a safetensors file with one tensor, 'vectors'")] | None = (
        None
    )
    adapter: str | None = None
    site: SiteName | None = None
    centered: StrictBool = True

    def tensor(self) -> Tensor:
        """The vectors, [n, width].

        Raises:
            InterpToolkitError: none, both forms at once, lists of several lengths, or a damaged file.
        """
        if (self.vectors is None) == (self.safetensors is None):
            raise InterpToolkitError("expected either 'vectors' or 'safetensors', got both or neither")
        if self.vectors is not None:
            widths = {len(row) for row in self.vectors}
            if len(widths) != 1:
                raise InterpToolkitError(f"expected vectors of one width, got widths {sorted(widths)[:5] or 'of none'}")
            return torch.tensor(self.vectors, dtype=torch.float32)
        try:
            tensors = load(base64.b64decode(self.safetensors or "", validate=True))
        except binascii.Error:
            raise InterpToolkitError("expected base64 in 'safetensors', got other characters") from None
        except Exception as error:  # whatever the reader of safetensors raises at damage
            raise InterpToolkitError(
                f"expected a safetensors file in 'safetensors', got a damaged one: {first_line(error)}"
            ) from error
        if set(tensors) != {"vectors"} or not tensors["vectors"].is_floating_point() or tensors["vectors"].ndim != 2:
            shapes = {name: tuple(tensor.shape) for name, tensor in list(tensors.items())[:5]}
            raise InterpToolkitError(f"expected one tensor 'vectors' of real numbers, (n, width), got {shapes}")
        return tensors["vectors"].float()


class DescribeBody(_VectorsBody):
    """Vectors to describe."""

    sampling: SamplingBody = SamplingBody()
    include_null: StrictBool = False


class ScoreBody(_VectorsBody):
    """Texts to judge by vectors."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=4096)]
    index: Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(max_length=4096)] | None = Field(
        None, description="for each text the number of its vector; by default text i belongs to vector i"
    )


class PlaceBody(_Body):
    """One token of a text at one site."""

    text: PromptBody
    site: SiteName
    position: StrictInt = -1
    chat: StrictBool | None = None


class LensBody(PlaceBody):
    """Where to apply the logit lens."""

    tokens: Annotated[StrictInt, Field(ge=1, le=MOST_LENS_TOKENS)] = 5


class AnswerBody(_Body):
    """A text for the model to answer."""

    text: Text
    chat: StrictBool | None = None
    max_new_tokens: NewTokens = 64


class SteerBody(PlaceBody):
    """A token's vector to add to the residual stream while the model answers another text."""

    adapter: str | None = None
    prompt: Text
    strength: Annotated[FiniteFloat, Field(ge=-100, le=100)] = 0.5
    description: Text | None = Field(None, description="add the vector that this text gives, not the token's own")
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0
    max_new_tokens: NewTokens = 32


def prompt_of(text: str | Sequence[Message]) -> Any:
    """A text or messages as the library takes prompts."""
    return text if isinstance(text, str) else [message.model_dump() for message in text]


def description_of_cell(row: Explanation) -> dict[str, Any]:
    """What differs among the descriptions of one vector."""
    shared = ("source", "site", "position", "token")
    return {name: json_value(value) for name, value in asdict(row).items() if name not in shared}


def cell_row(number: int, text: int, rows: Sequence[Explanation]) -> dict[str, Any]:
    """A vector with its descriptions, for a line of a stream.

    Args:
        number: of the vector in its request.
        text: number of the text that it was read from, or of the vector itself.
        rows: its descriptions, at least one.
    """
    first = rows[0]
    numbers = dict(type="cell", cell=number, text=text)
    place = dict(source=first.source, site=first.site, position=first.position, token=first.token)
    return numbers | place | dict(descriptions=[description_of_cell(row) for row in rows])


def json_value(value: Any) -> Any:
    """A value for JSON: a number that is none becomes null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
