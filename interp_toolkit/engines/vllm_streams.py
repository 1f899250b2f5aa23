"""Residual streams inside a model that vLLM runs in this process: what is written into them, and what is read of them.

vLLM puts tokens of many requests into one pass, in pieces and in an order of its choice. So each token at which
something is to be done is sent as an embedding that says its number. Before the first block the number is read and the
token's own embedding put in its place; from there on the pass knows which of its rows is which token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.sites import Site

# A numbered row: this, the number's digits, and zeros. Whole numbers up to 256 are exact in bfloat16.
_SIGN, _BASE, _DIGITS = 113.0, 128, 4


@dataclass
class NumberedToken:
    """A token at which something is done in the stream.

    Attributes:
        token: its id.
        written: what is written, float32 [d_model]; None where the stream is only read.
        add: whether it is added to what is there.
        at: before which block it is written; the number of blocks for behind the last.
        read: before which blocks the stream is read.
        seen: what was read, by these numbers, float32.
        reached: whether a pass came by.
    """

    token: int
    written: Tensor | None = None
    add: bool = False
    at: int = -1
    read: tuple[int, ...] = ()
    seen: dict[int, Tensor] = field(default_factory=dict)
    reached: bool = False


def stream_index(site: Site, n_layers: int) -> int:
    """Before which block a site's stream is; the number of blocks for behind the last.

    Raises:
        InterpToolkitError: a site outside the residual stream between blocks, or one that the model does not have.
    """
    site.require_in(n_layers)
    if site.is_embedding or site.hook not in ("hook_resid_pre", "hook_resid_post"):
        raise InterpToolkitError(
            f"expected a site in the stream between blocks, such as blocks.{max(0, site.layer)}.hook_resid_post, since "
            f"vLLM has no other hook points, got {site}"
        )
    return site.layer + (site.hook == "hook_resid_post")


class Streams:
    """The residual streams of vLLM's model.

    Args:
        llm: vLLM's ``LLM``, which runs in this process.
        n_layers: of the model.

    Raises:
        InterpToolkitError: a model in another process, in several, compiled, or of a form that is not known.
    """

    def __init__(self, llm: Any, n_layers: int) -> None:
        models: list[Any] = []
        try:
            llm.apply_model(models.append)
        except Exception as error:  # whatever vLLM raises where the model is in another process
            raise InterpToolkitError(f"its model cannot be reached: {first_line(error)}") from error
        if len(models) != 1:
            raise InterpToolkitError("its model is in another process; set VLLM_ENABLE_V1_MULTIPROCESSING=0")
        if not llm.llm_engine.vllm_config.model_config.enforce_eager:
            raise InterpToolkitError("its model is compiled, and so calls no hooks; start it with enforce_eager=True")
        self._model = models[0]
        base = getattr(self._model, "model", None)
        layers, norm = getattr(base, "layers", ()), getattr(base, "norm", None)
        if len(layers) != n_layers or norm is None or not hasattr(self._model, "embed_input_ids"):
            raise InterpToolkitError(f"vLLM's {type(self._model).__name__} has no list of blocks with a norm behind it")
        self._next = 0
        self._numbered: dict[int, NumberedToken] = {}
        # Rows of the pass that is running, with their tokens.
        self._rows: list[tuple[int, NumberedToken]] = []
        for index, layer in enumerate(layers):
            # A block is called with positions, the stream, and what is to be added to it.
            layer.register_forward_pre_hook(lambda _, inputs, index=index: self._before(index, inputs, 1))
        norm.register_forward_pre_hook(lambda _, inputs: self._before(n_layers, inputs, 0))

    @contextmanager
    def numbering(self) -> Iterator[None]:
        """For the length of the block, numbered tokens are looked for; afterwards each has been reached.

        Raises:
            InterpToolkitError: one was not.
        """
        try:
            yield
            if lost := sum(not token.reached for token in self._numbered.values()):
                raise InterpToolkitError(
                    f"vLLM's {type(self._model).__name__} passed {lost} of {len(self._numbered)} tokens by, since it "
                    f"does not give embeddings to its first block as they are sent; use a hooked model"
                )
        finally:
            self._numbered, self._rows = {}, []

    def number(self, token: NumberedToken, width: int) -> Tensor:
        """The embedding to send for a token, float32 [width]; no two have the same, so none is taken from a cache.

        Args:
            token: what is done at it.
            width: of the embeddings.
        """
        number, self._next = self._next, (self._next + 1) % _BASE**_DIGITS
        self._numbered[number] = token
        row = torch.zeros(width)
        row[0] = _SIGN
        row[1 : 1 + _DIGITS] = torch.tensor([number // _BASE**digit % _BASE for digit in range(_DIGITS)])
        return row

    def _before(self, index: int, inputs: tuple[Any, ...], at: int) -> tuple[Any, ...] | None:
        """Before a block or the last norm: find numbered tokens, write, and keep what is read."""
        if not self._numbered:
            return None
        stream, residual = inputs[at], inputs[at + 1]
        replaced = None
        if index == 0:
            replaced = self._find(stream)
        whole = replaced if replaced is not None else stream
        readers = [(row, token) for row, token in self._rows if index in token.read]
        writers = [(row, token) for row, token in self._rows if token.at == index]
        if readers:
            rows = torch.tensor([row for row, _ in readers], device=whole.device)
            values = whole[rows] if residual is None else whole[rows] + residual[rows]
            for (_, token), value in zip(readers, values.float().cpu()):
                token.seen[index] = value
        if writers:
            rows = torch.tensor([row for row, _ in writers], device=whole.device)
            new = torch.stack([token.written for _, token in writers if token.written is not None]).to(whole)
            add = torch.tensor([token.add for _, token in writers], device=whole.device)[:, None]
            there = whole[rows] if residual is None else whole[rows] + residual[rows]
            replaced = whole.clone()
            replaced[rows] = torch.where(add, there + new, new)
            if residual is not None:
                residual = residual.clone()
                residual[rows] = 0
        if replaced is None:
            return None
        return (*inputs[:at], replaced, residual, *inputs[at + 2 :])

    def _find(self, stream: Tensor) -> Tensor | None:
        """Note which rows of a pass are numbered; the stream with the tokens' own embeddings in their place."""
        numbered = (stream[:, 0] == _SIGN) & (stream[:, 1 + _DIGITS :] == 0).all(1)
        rows = numbered.nonzero()[:, 0]
        self._rows = []
        if not len(rows):
            return None
        digits = stream[rows, 1 : 1 + _DIGITS].long().tolist()
        numbers = [sum(digit * _BASE**place for place, digit in enumerate(row)) for row in digits]
        self._rows = [(row, self._numbered[number]) for row, number in zip(rows.tolist(), numbers)]
        for _, token in self._rows:
            token.reached = True
        ids = torch.tensor([token.token for _, token in self._rows], device=stream.device)
        stream = stream.clone()
        stream[rows] = self._model.embed_input_ids(ids).to(stream)
        return stream
