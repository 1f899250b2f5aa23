"""Old names that go on working for one minor version, with a `DeprecationWarning` that names the new one."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


def moved_names(module: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names that now stand elsewhere.

    Args:
        module: name of the module that had them.
        moved: for each old name the new one with its module, ``"interp_toolkit.sae:load_sae"``.

    Example:
        >>> __getattr__ = moved_names(__name__, {"load_sae": "interp_toolkit.sae:load_sae"})
    """

    def get(name: str) -> Any:
        if name not in moved:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new_module, _, new_name = moved[name].partition(":")
        warn_renamed(f"{module}.{name}", f"{new_module}.{new_name}", stacklevel=4)
        return getattr(importlib.import_module(new_module), new_name)

    return get


def renamed_arguments(**renamed: str | tuple[str, Callable[[Any], Any]]) -> Callable[[F], F]:
    """Let a function take arguments by their old names.

    Args:
        renamed: for each old name the new one, or the new one with a function from the old value to the new.

    Example:
        >>> @renamed_arguments(raw=("centered", lambda raw: not raw), null="include_null")
        ... def self_explain(inputs, *, centered=True, include_null=False): ...
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in renamed.keys() & kwargs.keys():
                target = renamed[old]
                new, convert = (target, None) if isinstance(target, str) else target
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got {new!r} and its old name {old!r}")
                warn_renamed(f"{function.__name__}({old}=...)", f"{new}=...", stacklevel=3)
                value = kwargs.pop(old)
                kwargs[new] = value if convert is None else convert(value)
            return function(*args, **kwargs)

        call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def gathered_arguments(new: str, cls: type, **fields: str) -> Callable[[F], F]:
    """Let a function take as arguments of their own what are now fields of one argument.

    To be used right below `renamed_arguments`, so that the warning is shown at the caller's line.

    Args:
        new: name of the argument that holds them now.
        cls: the dataclass of that argument.
        fields: for each old argument the field.

    Example:
        >>> @renamed_arguments(null="include_null")
        ... @gathered_arguments("sampling", Sampling, samples="n")
        ... def self_explain(inputs, *, sampling=Sampling(), include_null=False): ...
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            values = {fields[old]: kwargs.pop(old) for old in fields.keys() & kwargs.keys()}
            if values:
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got {new!r} and {', '.join(values)}, which belong into it")
                settings = ", ".join(f"{name}=..." for name in values)
                old = ", ".join(f"{name}=..." for name in fields if fields[name] in values)
                warn_renamed(f"{function.__name__}({old})", f"{new}={cls.__name__}({settings})", stacklevel=4)
                kwargs[new] = cls(**values)
            return function(*args, **kwargs)

        call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


def renamed_fields(**renamed: str) -> Callable[[C], C]:
    """Let a dataclass take and give fields by their old names, `dataclasses.replace` included.

    `interp_toolkit.settings.settings_from` takes them from files as well.

    Args:
        renamed: for each old name the new one.

    Example:
        >>> @renamed_fields(clip="max_grad_norm")
        ... @dataclass
        ... class TrainConfig:
        ...     max_grad_norm: float = 0.5
    """

    def decorate(cls: C) -> C:
        create = cls.__init__

        @functools.wraps(create)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            for old in renamed.keys() & kwargs.keys():
                warn_renamed(f"{cls.__name__}({old}=...)", f"{renamed[old]}=...", stacklevel=3)
                # `replace` names every field of the instance beside what the caller names, which goes first.
                kwargs[renamed[old]] = kwargs.pop(old)
            create(self, *args, **kwargs)

        def __getattr__(self: Any, name: str) -> Any:
            if name not in renamed:
                raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
            warn_renamed(f"{cls.__name__}.{name}", renamed[name], stacklevel=3)
            return getattr(self, renamed[name])

        cls.__init__, cls.__getattr__, cls._renamed = __init__, __getattr__, renamed  # type: ignore[misc,attr-defined]
        return cls

    return decorate


def old_field_names(cls: type) -> Mapping[str, str]:
    """Return the new name for each old one that `renamed_fields` declared on a class."""
    return getattr(cls, "_renamed", {})


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that a name is deprecated.

    Args:
        old: the name that was used.
        new: the one to use.
        stacklevel: of `warnings.warn`: 2 blames the caller of this function, 3 that one's caller.
    """
    warnings.warn(f"{old} is deprecated; use {new}", DeprecationWarning, stacklevel=stacklevel)


def renamed_classmethod(owner: str, old: str, new: str) -> Any:
    """A class method under its old name.

    Args:
        owner: name of the class.
        old: name of the method.
        new: the name that it has now.

    Example:
        >>> build = renamed_classmethod("VectorLabelPairs", "build", "from_tensors")
    """

    def call(cls: Any, *args: Any, **kwargs: Any) -> Any:
        warn_renamed(f"{owner}.{old}", f"{owner}.{new}")
        return getattr(cls, new)(*args, **kwargs)

    call.__doc__ = f"Deprecated: use `{new}`."
    return classmethod(call)
