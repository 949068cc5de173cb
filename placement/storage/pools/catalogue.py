"""Filters and weighers of pools by name: Cinder's own, by class name or dotted path; installed packages', by entry
point; and classes of others, in Hostler's form or in Cinder's, by dotted path."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final, Generic, TypeVar

from ...types.errors import DuplicateName, InvalidValue, UnknownName
from ...types.loading import at_path, imported, installed, is_path
from ...types.options import Words, invalid
from .cinder_rules import CinderFilterAdapter, CinderWeigherAdapter
from .filters import BUILTIN_FILTERS, PoolFilter
from .weighers import BUILTIN_WEIGHERS, PoolWeigher

Rule = TypeVar("Rule", PoolFilter, PoolWeigher)
FILTERS: Final = "storage.scheduler_default_filters"
WEIGHERS: Final = "storage.scheduler_default_weighers"


@dataclass(frozen=True)
class _Kind(Generic[Rule]):
    """The differences between the lookup of filters and of weighers."""

    word: str
    option: str
    base: type[Any]
    builtin: Mapping[str, type[Rule]]
    cinder_package: str
    entry_points: str
    adapt: Callable[[type[Any]], type[Rule]]


_FILTERS: Final = _Kind(
    "filter",
    FILTERS,
    PoolFilter,
    BUILTIN_FILTERS,
    "cinder.scheduler.filters.",
    "hostler.volume_filters",
    CinderFilterAdapter.of,
)
_WEIGHERS: Final = _Kind(
    "weigher",
    WEIGHERS,
    PoolWeigher,
    BUILTIN_WEIGHERS,
    "cinder.scheduler.weights.",
    "hostler.volume_weighers",
    CinderWeigherAdapter.of,
)


def pool_filters(names: Words) -> list[type[PoolFilter]]:
    """The filters that ``scheduler_default_filters`` names. Raises UnknownName, DuplicateName or InvalidValue."""
    return [_class_of(_FILTERS, name) for name in names]


def pool_weighers(names: Words) -> list[type[PoolWeigher]]:
    """The weighers that ``scheduler_default_weighers`` names. Errors as above."""
    return [_class_of(_WEIGHERS, name) for name in names]


def _class_of(kind: _Kind[Rule], name: str) -> type[Rule]:
    plain = name.rpartition(".")[2] if name.startswith(kind.cinder_package) else name
    found = [each for each in installed(entry_points, tuple(sys.path), kind.entry_points) if each.name == plain]
    if len(found) + (plain in kind.builtin) > 1:
        values = ", ".join(each.value for each in found)
        raise DuplicateName(f"{kind.word} {plain} is defined more than once: {values}", field=kind.option)
    if found:
        rule = _checked(kind, imported(found[0].load, found[0].value, kind.option))
        if rule.name != plain:
            raise InvalidValue(f"entry point {plain} loads a class named {rule.name!r}", field=kind.option)
        return rule
    if plain in kind.builtin:
        return kind.builtin[plain]
    if not is_path(name):
        known = [*kind.builtin, *(each.name for each in installed(entry_points, tuple(sys.path), kind.entry_points))]
        raise UnknownName.among(kind.word, name, known, field=kind.option)
    return _checked(kind, imported(functools.partial(at_path, name), name, kind.option))


def _checked(kind: _Kind[Rule], rule: Any) -> type[Rule]:
    if not isinstance(rule, type):
        raise invalid(kind.option, rule, "the path of a class")
    if not issubclass(rule, kind.base):
        return kind.adapt(rule)
    if not isinstance(getattr(rule, "name", None), str):
        raise invalid(kind.option, rule, f"a subclass of {kind.base.__name__} with a name")
    own: type[Rule] = rule
    return own
