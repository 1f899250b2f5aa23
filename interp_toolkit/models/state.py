"""What the user has changed on a model since it was loaded, and changes for the length of a pass.

Hooks and replaced ``forward`` methods of the user's own are part of what a pass computes. Nothing here removes them: a
pass runs with them, whole and unpadded (see `Backend.plain`), and nothing that it gives is kept for later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from interp_toolkit.errors import InterpToolkitError

_ABSENT = object()
# Users' hooks on hook points are wrapped by `transformer_lens.hook_points`, which is none of these. Of our own only the
# renaming of the cache stays on a model.
_LIBRARIES = (
    "transformers.",
    "transformer_lens.model_bridge.",
    "accelerate.",
    "torch.distributed.fsdp.",
    "interp_toolkit.models.cache_name",
)


def modules_of(model: Any) -> list[nn.Module]:
    """Every module that a pass through a hooked model may reach, each once, in the order of `nn.Module.modules`."""
    # A bridge does not register the Hugging Face model that it is made from.
    original = getattr(model, "original_model", None)
    ahead = [original, model] if isinstance(original, nn.Module) else [model]
    seen: dict[nn.Module, None] = {}
    # `modules` makes a name for each on the way, and takes as long as a token.
    while ahead:
        module = ahead.pop()
        if module not in seen:
            seen[module] = None
            ahead += [child for child in reversed(module._modules.values()) if child is not None]
    return list(seen)


def has_hooks(module: nn.Module) -> bool:
    """Whether a user has put something before, behind or in place of a module's ``forward``.

    What libraries hook to their own parts, to capture outputs or to move tensors between devices, does not count.
    """
    if module._forward_hooks or module._forward_pre_hooks:
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if not all(map(_of_a_library, hooks)):
            return True
    return "forward" in module.__dict__ and not _of_a_library(module.__dict__["forward"])


def _of_a_library(function: Any) -> bool:
    """Whether a function, or the function of a partial, is defined where no user's code is."""
    return str(getattr(getattr(function, "func", function), "__module__", "")).startswith(_LIBRARIES)


def describe_change(model: Any, modules: Iterable[nn.Module]) -> str | None:
    """What a user has laid over the first changed module, in words; None where nothing is.

    Args:
        model: the hooked model.
        modules: see `modules_of`.
    """
    # The registry of hooks for all modules is private, and has no other way in.
    if torch.nn.modules.module._global_forward_hooks or torch.nn.modules.module._global_forward_pre_hooks:
        return "a hook on every module"
    for module in modules:
        if type(module).__module__.startswith("peft."):
            return f"an adapter of peft that is not merged, {_name(model, module)}"
        if has_hooks(module):
            kind = "a replaced forward" if "forward" in module.__dict__ else "a hook"
            return f"{kind} on {_name(model, module)}"
    return None


def _name(model: Any, module: nn.Module) -> str:
    roots = [model, getattr(model, "original_model", None)]
    names = (name for root in roots if root is not None for name, other in root.named_modules() if other is module)
    return next(names, "").replace("_original_component.", "") or type(module).__name__


@contextmanager
def frozen(modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """For the length of the block, the modules are in evaluation mode and the parameters take no gradient.

    Afterwards each is as it was. Without gradients, parameters are left alone.
    """
    training = [module for module in modules if module.training]
    trained = [p for p in parameters if p.requires_grad] if torch.is_grad_enabled() else []
    try:
        for module in training:
            # Past the bridge's own __setattr__, which hands attributes on to the module it wraps.
            module.__dict__["training"] = False
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for module in training:
            module.__dict__["training"] = True
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def replaced_forwards(forwards: Sequence[tuple[nn.Module, Any]]) -> Iterator[None]:
    """For the length of the block, modules run other functions; what they had before is put back, whatever happens.

    Args:
        forwards: modules, each with what to call instead of its ``forward``.
    """
    before = [(module, module.__dict__.get("forward", _ABSENT)) for module, _ in forwards]
    try:
        for module, forward in forwards:
            # Past the bridge's own __setattr__, which hands attributes on to the module it wraps.
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, forward in before:
            if forward is _ABSENT:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward


def refuse_compiled(model: object) -> None:
    """Refuse what torch.compile wraps around a model, whose hooks it may not run.

    Raises:
        InterpToolkitError: ``model`` is wrapped.
    """
    inner = getattr(model, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        raise InterpToolkitError(
            f"expected a hooked model, got a {type(inner).__name__} wrapped by torch.compile; give the model that was "
            f"compiled, which the wrapper has as compiled._orig_mod"
        )
