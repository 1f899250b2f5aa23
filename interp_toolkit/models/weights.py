"""The weights of a model as they are now: whether they changed, a digest of all of them, and signs in the blocks."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Values of each weight that are looked at to notice an edit that leaves no other trace.
_SAMPLE = 64
# Words of 8 bytes that are summed together: a prime, so that rows of a matrix do not fall on each other.
_COLUMNS = 4099
_BLOCK = re.compile(r"(?:^|\.)(?:layers|blocks|h|layer|block)\.(\d+)\.")


def weights_version(modules: Iterable[nn.Module], parameters: Iterable[Tensor]) -> bytes:
    """A token that changes when modules or weights do; cheap enough for every call.

    It sees tensors that were replaced, edited in place, or (by some of their values) edited through ``.data``.
    """
    token = hashlib.sha256(" ".join(str(id(module)) for module in modules).encode())
    samples: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for weight in parameters:
        token.update(f"{id(weight)} {weight.data_ptr()} {edits(weight)} {tuple(weight.shape)}".encode())
        values = weight.detach()
        if values.is_contiguous() and not values.is_meta:
            step = max(1, values.numel() // _SAMPLE)
            samples.setdefault((weight.device, weight.dtype), []).append(values.view(-1)[::step])
    for values_of_dtype in samples.values():
        token.update(_bytes(torch.cat(values_of_dtype)))
    return token.digest()


def edits(weight: Tensor) -> int:
    """How often a tensor was edited in place, through ``.data`` not counted."""
    # Tensors made in inference mode do not count their edits.
    return -1 if weight.is_inference() else weight._version


def weights_digest(model: Any) -> str:
    """A hash over every bit of every parameter and floating-point buffer, their names, and the kinds of modules."""
    kinds = [(name, type(module).__module__, type(module).__qualname__) for name, module in model.named_modules()]
    digest = hashlib.sha256(repr(kinds).encode())
    for name, value in _tensors(model):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bit_sums(value.detach()))
    return digest.hexdigest()


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point())


def _bit_sums(value: Tensor) -> bytes:
    """Sums of a tensor's bits: any single edit changes them, and they cost one pass over its memory."""
    data = value.contiguous().view(-1)
    if data.storage_offset() * data.element_size() % 8:
        data = data.clone()
    whole = data.numel() * data.element_size() // 8 * 8 // data.element_size()
    words, rest = data[:whole].view(torch.int64), data[whole:]
    rows = len(words) // _COLUMNS
    sums = words[: rows * _COLUMNS].view(rows, _COLUMNS).sum(0)
    return b"".join(map(_bytes, (sums, words[rows * _COLUMNS :], rest)))


def _bytes(values: Tensor) -> bytes:
    return values.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def block_signs(model: Any) -> tuple[int, ...]:
    """For each block how many numbers in its weight matrices are positive.

    The count is the same in every dtype (but for numbers that float16 rounds to zero) and however a class lays its
    matrices out. Vectors (biases, gains of norms) are left out, since classes write them differently. Empty for
    quantised weights, whose numbers stand for others.
    """
    matrices: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        last = name.rsplit(".", 1)[-1].lstrip("_")
        if weight.ndim > 1 and not last.startswith("b") and _BLOCK.search(name):
            matrices[name.replace("_original_component.", "")] = weight.detach()
    if not all(weight.is_floating_point() for weight in matrices.values()):
        return ()
    counts: Counter[int] = Counter()
    for name, weight in matrices.items():
        # A joint matrix may stand beside the parts that it was cut into.
        if name.replace(".qkv.", ".q.") == name or name.replace(".qkv.", ".q.") not in matrices:
            counts[int(_BLOCK.search(name)[1])] += int(torch.count_nonzero(weight > 0))  # type: ignore[index]
    return tuple(counts[block] for block in sorted(counts))
