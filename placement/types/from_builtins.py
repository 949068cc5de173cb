"""Conversion of decoded MessagePack, JSON or TOML values to dataclasses and Structs. An unknown field is an error."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from .errors import InvalidValue, UnknownName

T = TypeVar("T")


def from_plain(value: Any, kind: type[T], field: str) -> T:
    """``value`` as a ``kind``. InvalidValue for a wrong type or a missing field, UnknownName for an unknown field, both
    with the path to it. O(size)."""
    refuse_unknown(value, kind, field)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise from_msgspec(error, field) from None


def from_msgspec(error: msgspec.ValidationError, field: str) -> InvalidValue:
    """The error for a msgspec.ValidationError, with the path to the value at fault as the field."""
    problem, _, path = str(error).partition(" - at `$")
    return InvalidValue(f"{field}: {problem}", field=f"{field}{path.rstrip('`')}" if path else field)


def refuse_unknown(value: Any, kind: Any, field: str) -> None:
    """UnknownName if a mapping for a dataclass, at any depth, has a key that is not one of its fields."""
    if not _has_fields(kind):
        return
    if dataclasses.is_dataclass(kind):
        if isinstance(value, Mapping):
            hints = _hints(kind)  # type: ignore[arg-type]  # a dataclass is a type here, never an instance
            for name, item in value.items():
                if name not in hints:
                    raise UnknownName.among("field", f"{field}.{name}", [f"{field}.{known}" for known in hints])
                if hints[name] is not None:
                    refuse_unknown(item, hints[name], f"{field}.{name}")
        return
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for choice in inner:
            refuse_unknown(value, choice, field)
    elif isinstance(value, Mapping) and len(inner) == 2:
        for key, item in value.items():
            refuse_unknown(item, inner[1], f"{field}.{key}")
    elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) and inner:
        for position, item in enumerate(value):
            refuse_unknown(item, inner[0], f"{field}[{position}]")


@functools.cache
def _has_fields(kind: Any) -> bool:
    """True if a value of a type may have a dataclass in it. Most have none, and need no look at their items."""
    return dataclasses.is_dataclass(kind) or any(map(_has_fields, get_args(kind)))


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    """Types of a dataclass's fields by name; None where no dataclass can be in them. Annotations that are no fields,
    such as what a base class caches, are not among them."""
    hints = get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind) if each.init]
    return {name: hints[name] if _has_fields(hints[name]) else None for name in names}
