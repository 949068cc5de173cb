"""Versioned objects of Nova in the form in which they travel and are stored: dictionaries with the keys
``nova_object.name``, ``nova_object.version`` and ``nova_object.data``. Any minor version of a known major is read; it
needs nothing of Nova."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...placement.types.errors import InvalidValue

NAME: Final = "nova_object.name"
VERSION: Final = "nova_object.version"
DATA: Final = "nova_object.data"
MAJORS: Final[Mapping[str, str]] = {"Instance": "2", "InstanceList": "2"}
"""Major versions that are read; 1 for all objects that are not named."""

_PLAIN: Final = frozenset({int, str, bool, float, type(None)})
"""Types of values that have no objects within: most values by far."""


class Primitive:
    """One object, with its fields as attributes. ``in`` says whether a field is set, ``fields`` names those that are;
    a field that is not set raises AttributeError."""

    __slots__ = ("_data", "kind", "version")

    def __init__(self, content: Mapping[str, Any]) -> None:
        """InvalidValue if ``content`` is not an object of a known major version."""
        self.kind, self.version = str(content.get(NAME)), str(content.get(VERSION))
        data = content.get(DATA)
        if not isinstance(data, Mapping):
            raise InvalidValue(f"{self.kind} has no {DATA}", field="object")
        wanted = MAJORS.get(self.kind, "1")
        if self.version.partition(".")[0] != wanted:
            problem = f"{self.kind} {self.version} cannot be read: version {wanted}.x is known"
            raise InvalidValue(problem, field="object")
        self._data = data

    def __repr__(self) -> str:
        return f"<{self.kind} {self.version}: {', '.join(self._data)}>"

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that are set."""
        return tuple(self._data)

    def __contains__(self, name: object) -> bool:
        return name in self._data

    def __getattr__(self, name: str) -> Any:
        try:
            return value_of(self._data[name])
        except KeyError:
            raise AttributeError(f"{self.kind} has no {name}") from None


def is_primitive(value: object) -> bool:
    """True for a dictionary that is a versioned object."""
    return isinstance(value, Mapping) and NAME in value


def value_of(value: Any) -> Any:
    """A value of a field: objects as Primitives, also within lists and mappings; others as they are. O(items)."""
    if type(value) in _PLAIN:
        return value
    if is_primitive(value):
        return Primitive(value)
    if isinstance(value, list):
        return [value_of(each) for each in value]
    if isinstance(value, Mapping):
        return {key: value_of(each) for key, each in value.items()}
    return value


def listed(value: Any) -> list[Any]:
    """The objects of a list object, of a plain list, or of one object. InvalidValue for anything else."""
    found = value_of(value)
    if isinstance(found, Primitive):
        return list(found.objects) if "objects" in found else [found]
    if isinstance(found, list):
        return found
    raise InvalidValue(f"a list of objects is expected, got {type(value).__name__}", field="object")


__all__ = ["DATA", "NAME", "VERSION", "Primitive", "is_primitive", "listed", "value_of"]
