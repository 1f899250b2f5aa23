"""Settings from files: a mapping checked against a dataclass."""

from __future__ import annotations

import operator
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from interp_toolkit.deprecation import old_field_names, warn_renamed
from interp_toolkit.errors import FileFormatError, InterpToolkitError

T = TypeVar("T")
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def read_yaml(path: Path, expected: str) -> Any:
    """Read the plain values of a YAML file.

    Raises:
        FileFormatError: missing, or not YAML; the text names the file.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(f"expected {expected} at {path}, and there is none") from None
    # Beside its own errors: of dates and numbers that are none, and of too many brackets.
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise FileFormatError(f"{path} is not readable YAML: {' '.join(str(error).split()):.300}") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of a file before an error about its content, where the error does not name it."""
    try:
        yield
    except InterpToolkitError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def settings_from(cls: type[T], data: object, where: str) -> T:
    """Create a dataclass from a mapping, after a check of its plain values; whole numbers are taken for floats.

    Args:
        cls: the dataclass; fields of other than plain types are passed on as they are.
        data: what the file holds; fields that were renamed may have their old names.
        where: what to call it in an error.

    Returns:
        The instance.

    Raises:
        InterpToolkitError: no mapping, an unknown key, a missing one, or a value of the wrong kind.
    """
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        raise InterpToolkitError(f"expected a mapping in {where} with {', '.join(known)}, got {shortened(data)}")
    data = with_new_names(cls, data, where)
    if unknown := sorted(set(map(str, data)) - set(known)):
        raise InterpToolkitError(
            f"unknown key {', '.join(map(repr, unknown))} in {where}; expected some of {', '.join(known)}"
        )
    required = {name for name, field in known.items() if field.default is field.default_factory is MISSING}
    if missing := sorted(required - set(data)):
        raise InterpToolkitError(f"{where} lacks {', '.join(map(repr, missing))}")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _value(value, hints[name], f"{name} in {where}") for name, value in data.items()})


def with_new_names(cls: type, data: Mapping[Any, Any], where: str) -> dict[Any, Any]:
    """Return a mapping with the new name of every field that `renamed_fields` declares on a dataclass.

    Args:
        cls: the dataclass.
        data: values by the names of fields, old or new.
        where: what to call it in a warning or an error.

    Returns:
        The same values by new names, in the same order.

    Raises:
        InterpToolkitError: a field under both names.
    """
    renamed = old_field_names(cls)
    for old in (key for key in data if key in renamed):
        if renamed[old] in data:
            raise InterpToolkitError(f"{where} has {renamed[old]!r} and its old name {old!r}; leave {old!r} out")
        warn_renamed(f"{old!r} in {where}", repr(renamed[old]))
    return {renamed.get(key, key): value for key, value in data.items()}


def shortened(value: object) -> str:
    """Show the beginning of a value in an error, since a file of few lines can hold very many values."""
    return f"{reprlib.repr(value):.80}"


def _value(value: Any, hint: Any, name: str) -> Any:
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if optional else (hint,)
    plain = [option for option in options if option in _KINDS]
    # One plain type is checked; a choice of several things is left to whoever parses it.
    kind = plain[0] if plain and len(options) - (type(None) in options) == 1 else None
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise InterpToolkitError(f"expected a list for {name}, got {shortened(value)}")
        return tuple(value)
    if typing.get_origin(hint) is Mapping and not isinstance(value, Mapping):
        raise InterpToolkitError(f"expected a mapping for {name}, got {shortened(value)}")
    if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
        choices = " or ".join(map(repr, typing.get_args(hint)))
        raise InterpToolkitError(f"expected {choices} for {name}, got {shortened(value)}")
    if kind is None or (value is None and type(None) in options):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InterpToolkitError(f"expected a number for {name}, got one of {len(str(value))} digits") from None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        hint_to_yaml = " (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)" if isinstance(value, str) else ""
        raise InterpToolkitError(f"expected {_KINDS[kind]} for {name}, got {shortened(value)}{hint_to_yaml}")
    return value


def whole_number(value: Any, name: str, least: int | None = None) -> int:
    """Convert a whole number, numpy's included, to Python's.

    Args:
        value: the number.
        name: what to call it in an error.
        least: the smallest number that is taken; None for any.

    Returns:
        The number.

    Raises:
        InterpToolkitError: another kind of value, or one below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise InterpToolkitError(f"expected a whole number for {name}, got {value!r:.80}") from None
    if least is not None and number < least:
        raise InterpToolkitError(f"expected {name} of at least {least}, got {number}")
    return number
