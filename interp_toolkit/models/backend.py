"""One way through a hooked model, whichever TransformerLens class it is of; the classes have files of their own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.contract import ModelFacts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.kv import KV, Edit, WholePast
from interp_toolkit.models.limits import require_context, rotary_limit
from interp_toolkit.models.recompute import recomputing
from interp_toolkit.models.state import describe_change, frozen, modules_of
from interp_toolkit.models.weights import weights_version
from interp_toolkit.sites import Site

# A context level of our own, so that taking our hooks off leaves those of the caller where they are.
_HOOK_LEVEL = 1_000_003


# Tokens that a soft prompt and what is written behind it may take.
_ROOM = 512


class StopForward(Exception):
    """Raised by an edit to end a forward pass early, once it has all that it needs."""


class _Still(threading.local):
    """What a thread saw of the model when it began to take it to be still; None for one that looks each time."""

    seen: tuple[str | None, bytes] | None = None


class Backend(ABC):
    """One way through a hooked model: token ids in, final hidden states out, with hooks and a shared past.

    Every row of a batch is read from its first token on; shorter rows are padded on the right, where no real token
    looks, so no mask is ever needed.

    Passes of several threads wait for each other, since hooks are on the model while one runs. In a pass the model is
    in evaluation mode and takes no gradient; afterwards it is as it was.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        cfg = model.cfg
        self.d_model: int = cfg.d_model
        self.n_layers: int = cfg.n_layers
        # Whether tokens may follow the keys and values of others; the check at load finds who keeps another state.
        self.continues = True
        # Facts and weights key of the whole model, where this process holds a share of it alone, see `shard_blocks`.
        self.of_whole: tuple[ModelFacts, str] | None = None
        self.rotary_limit = rotary_limit(getattr(model, "original_model", model))
        self.lock = threading.RLock()
        self._running = False
        self._tried: dict[Site, tuple[tuple[int, ...], bool]] = {}
        self.change: str | None = None
        self._still = _Still()
        # What others keep for this model, by what they call it, as long as the model is there.
        self.store: dict[Any, Any] = {}
        self.look()

    def look(self) -> tuple[str | None, bytes]:
        """See how the model is now: what a user has laid over it (None for nothing), and a token of its weights.

        Whatever was computed before is of use as long as the answer is the same, and only without a change. Within
        `still` the answer is that of its beginning.
        """
        return self._look() if self._still.seen is None else self._still.seen

    def _look(self) -> tuple[str | None, bytes]:
        with self.lock:
            self._modules = modules_of(self.model)
            self._parameters = [p for module in self._modules for p in module._parameters.values() if p is not None]
            self.change = describe_change(self.model, self._modules)
            if self.sharded:
                # Whether a block is put together at the moment differs from process to process, and all have to find
                # the same, or they would not make the same passes.
                return self.change, b"sharded"
            return self.change, weights_version(self._modules, dict.fromkeys(self._parameters))

    @contextmanager
    def still(self) -> Iterator[None]:
        """For the length of the block, this thread takes the model to be as it is now and does not look again.

        Looking takes a good part of the time of a pass of one row.
        """
        outer = self._still.seen
        try:
            self._still.seen = self.look()
            yield
        finally:
            self._still.seen = outer

    def _change_now(self) -> str | None:
        """What a user has laid over the model, seen anew: a hook may have come since the last `look`."""
        seen = self._still.seen
        return describe_change(self.model, self._modules) if seen is None else seen[0]

    def plain(self) -> bool:
        """Whether nothing of the user's is laid over the model, so that a sequence may be run in parts or padded."""
        return self.look()[0] is None

    def whole(self, longest: int) -> bool:
        """Whether sequences up to ``longest`` tokens must be run whole and unpadded, each as a plain pass runs it."""
        return not self.plain() or longest + _ROOM > self.rotary_limit

    def together(self, rows: Sequence[int], lengths: Mapping[int, int] | Sequence[int]) -> list[list[int]]:
        """Rows that can share a pass: all of them padded, or those of one length where that makes a difference.

        As of the last `look`, which a caller takes first.

        Args:
            rows: numbers of rows.
            lengths: of each row by its number, in tokens.
        """
        if self.change is None and max(lengths[row] for row in rows) + _ROOM <= self.rotary_limit:
            return [list(rows)]
        groups: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            groups[lengths[row]].append(row)
        return list(groups.values())

    def prefix(self, tokens: Tensor) -> KV:
        """Tokens [1, positions] that all rows of later passes share, run once where they can be run apart."""
        if self.whole(tokens.shape[1]):
            return WholePast.from_tokens(tokens)
        with torch.no_grad():
            _, past = self.hidden(tokens, keep=True)
        assert past is not None
        return past

    @property
    def sharded(self) -> bool:
        """Whether this process holds a share of the weights alone."""
        return self.of_whole is not None

    @abstractmethod
    def _hook_point(self, name: str) -> Any: ...

    @abstractmethod
    def _run(self, tokens: Tensor, past: KV | None, keep: bool, reserve: int) -> tuple[Tensor, KV | None]: ...

    def _is_bare(self, edits: Mapping[Site, Edit]) -> bool:
        """Whether a pass with these edits can do without hook points."""
        return False

    def _run_bare(
        self, tokens: Tensor, past: KV | None, edits: Mapping[Site, Edit], keep: bool, reserve: int
    ) -> tuple[Tensor, KV | None]:
        """`_run` without hook points, with the edits done on the way."""
        raise NotImplementedError

    @abstractmethod
    def unembedded(self, hidden: Tensor) -> Tensor:
        """Final hidden states [n, d_model] times the unembedding: [n, vocabulary] in the model's dtype."""

    @property
    @abstractmethod
    def logit_transform(self) -> Callable[[Tensor], Tensor] | None:
        """What follows the unembedding (a factor, a soft cap), for float32 rows [n, vocabulary]; None for nothing."""

    @property
    @abstractmethod
    def embedding_weight(self) -> Tensor:
        """The token embedding, [vocabulary, d_model]; Gemma's holds its factor of sqrt(d_model) in one class only."""

    @property
    def device(self) -> torch.device:
        """Where the embedding lives, and so where token ids and soft tokens must be."""
        return self.embedding_weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.embedding_weight.dtype

    def hidden(
        self,
        tokens: Tensor,
        past: KV | None = None,
        edits: Mapping[Site, Edit] | None = None,
        keep: bool = False,
        reserve: int = 0,
        recompute: bool = False,
    ) -> tuple[Tensor, KV | None]:
        """Final hidden states, after the last norm, of ``tokens`` read behind ``past``.

        Args:
            tokens: ids, [batch, position].
            past: keys and values of the tokens before: of each row, or of one row that all share.
            edits: what to do to the residual stream at which site.
            keep: also give the keys and values of past and tokens together.
            reserve: how many further tokens to keep room for, so that they can be added without a copy. Of several
                passes that go on from the same `KV`, only the last leaves one that can be used.
            recompute: compute the insides of blocks anew in the backward pass instead of keeping them: less memory,
                a third more time. Not together with ``keep``.

        Returns:
            hidden states [batch, position, d_model], and the grown `KV` or None.
        """
        require_context(self.model, (past.total if past else 0) + tokens.shape[1], "the longest text")
        tokens = tokens.to(self.device)  # those just written lie where the last layer does
        if past is None and keep and (self.change is not None or not self.continues):
            past = WholePast.from_tokens(tokens[:, :0])
        if isinstance(past, WholePast):
            whole = past.followed_by(tokens, dict(edits or {}))
            hidden, _ = self.hidden(whole.tokens, None, whole.all_edits(), recompute=recompute)
            return hidden[:, past.length :], whole if keep else None
        if past is not None and past.total + tokens.shape[1] > self.rotary_limit:
            raise InterpToolkitError(
                f"expected at most {self.rotary_limit:g} tokens, behind which this model turns all positions at other "
                f"frequencies, got {past.total + tokens.shape[1]}, of which some have been run; give shorter prompts"
            )
        hooks = edits or {}
        bare = not recompute and self._is_bare(hooks)
        with self._around({} if bare else hooks):
            if self._running:
                raise InterpToolkitError(
                    "a hook called this library on the model that it stands on, in the middle of a pass; read what the "
                    "hook needs before the hook is put on"
                )
            self._running = True
            try:
                if bare:
                    return self._run_bare(tokens, past, hooks, keep, reserve)
                if not recompute:
                    return self._run(tokens, past, keep, reserve)
                with recomputing(list(self.model.blocks), partial(self._again, hooks, past)):
                    return self._run(tokens, past, keep, reserve)
            finally:
                self._running = False

    @contextmanager
    def _around(self, edits: Mapping[Site, Edit]) -> Iterator[None]:
        """What surrounds a pass."""
        with self.lock, frozen(self._modules, self._parameters), self._hooked(edits):
            yield

    @contextmanager
    def _again(self, edits: Mapping[Site, Edit], past: KV | None) -> Iterator[None]:
        """What surrounds blocks in `hidden`, for when they run anew."""
        with self._around(edits):
            yield

    def visit(self, tokens: Tensor, past: KV | None, edits: Mapping[Site, Edit]) -> None:
        """Run tokens for the edits alone; one of them may end the pass with `StopForward`.

        Args:
            tokens: ids, [batch, length].
            past: keys and values of the tokens before them, or None.
            edits: by site, what is done with its activations.
        """
        with suppress(StopForward):
            self.hidden(tokens, past, edits)

    def final_norm(self, residual: Tensor) -> Tensor:
        """The norm behind the last block, of residual streams [n, d_model]."""
        return self.model.ln_final(residual[None]).squeeze(0)

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [..., vocabulary] of final hidden states [..., d_model]."""
        # Two axes, whatever came: on a CPU three of them, cut from a larger tensor, take a path four times slower.
        flat = hidden.reshape(-1, hidden.shape[-1])
        return self.finished(self.unembedded(flat)).view(*hidden.shape[:-1], -1)

    def finished(self, unembedded: Tensor) -> Tensor:
        """Float32 logits [n, vocabulary] of what `unembedded` gives."""
        logits = unembedded.float()
        return self.logit_transform(logits) if self.logit_transform else logits

    def require(self, site: Site, to_write: bool = False) -> None:
        """Refuse a site that the model does not have, or whose vectors are not of the width d_model.

        Args:
            site: a hook point. One outside the residual stream is tried on two tokens, once per model and site.
            to_write: whether soft tokens are to be written there; otherwise it is only read.

        Raises:
            InterpToolkitError: the model has no such layer or hook point, a pass does not reach it, it has another
                shape, or what is written there changes nothing.
        """
        self._point(site)
        width = self.embedding_weight.shape[1]
        if site == Site.embedding() and width != self.d_model:
            raise InterpToolkitError(
                f"expected {site} to be of the stream's width {self.d_model}, it is of {width} in this model, which "
                f"projects it; take blocks.0.hook_resid_pre instead, as in soft_prompt.at('blocks.0.hook_resid_pre')"
            )
        if site.in_stream:
            return
        shape, has_effect = self._try(site)
        if shape != (1, 2, self.d_model):
            seen = f"one of shape {list(shape)}" if shape else "a hook point that a pass does not reach with a tensor"
            raise InterpToolkitError(
                f"expected a hook point of shape [batch, position, {self.d_model}], got {site}, for two tokens {seen}; "
                f"choose another, such as blocks.{site.layer}.hook_resid_post"
            )
        if to_write and not has_effect:
            raise InterpToolkitError(
                f"expected a hook point through which the model computes, got {site}, where what is written changes "
                f"nothing; choose another, such as blocks.{site.layer}.hook_resid_post"
            )

    @torch.no_grad()
    def _try(self, site: Site) -> tuple[tuple[int, ...], bool]:
        """The shape at a hook point for two tokens, empty where none was seen, and whether writing there matters."""
        if site not in self._tried:
            tokens = torch.tensor([[0, 1]], device=self.device)
            shapes: list[tuple[int, ...]] = []
            plain, _ = self.hidden(tokens, edits={site: lambda x: shapes.append(tuple(getattr(x, "shape", ())))})
            has_effect = False
            if shapes and shapes[-1] == (1, 2, self.d_model):
                # Not a constant, which a norm may take off again.
                other = torch.arange(self.d_model)
                changed, _ = self.hidden(tokens, edits={site: lambda x: x + other.to(x)})
                has_effect = not torch.equal(plain, changed)
            self._tried[site] = (shapes[-1] if shapes else (), has_effect)
        return self._tried[site]

    def _point(self, site: Site) -> Any:
        """The hook point of a site."""
        site.require_in(self.n_layers)
        # The class itself may ignore a name it does not know, so every name is looked up first.
        point = self._hook_point(str(site))
        if point is None:
            raise InterpToolkitError(f"{type(self.model).__name__} has no hook point {site}; choose another")
        return point

    @contextmanager
    def _hooked(self, edits: Mapping[Site, Edit]) -> Iterator[None]:
        # Hooks go on the hook points directly: the classes' own `hooks()` walk over every name of the model first,
        # which costs as much as decoding a token.
        placed: list[tuple[Any, Any]] = []
        try:
            for site, edit in edits.items():
                point = self._point(site)
                point.add_hook(lambda tensor, hook, edit=edit: edit(tensor), level=_HOOK_LEVEL)
                placed.append((point, point.fwd_hooks[-1]))
            yield
        finally:
            for point, handle in placed:
                handle.hook.remove()
                point.fwd_hooks = [other for other in point.fwd_hooks if other is not handle]
