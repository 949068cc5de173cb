"""Filters and weighers by name: Nova's own, installed packages' (by entry point), the caller's, and classes outside of
Nova by the dotted paths that nova.conf has.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Generic, TypeVar

from ..filters import BUILTIN_FILTERS
from ..filters.adapter import NovaFilterAdapter
from ..filters.base import Filter
from ..types.errors import DuplicateName, InvalidValue, UnknownName
from ..types.guarded import made
from ..types.loading import at_path, imported, installed, is_path
from ..types.options import ALL_FILTERS, ALL_WEIGHERS, Options, Words, invalid
from ..weighers import BUILTIN_WEIGHERS
from ..weighers.adapter import NovaWeigherAdapter
from ..weighers.base import Weigher

Rule = TypeVar("Rule", Filter, Weigher)
ORDER: Final = "hostler.weigher_order"
ENABLED: Final = "filter_scheduler.enabled_filters"
WEIGHING: Final = "filter_scheduler.weight_classes"


@dataclass(frozen=True)
class _Kind(Generic[Rule]):
    """The differences between the lookup of filters and of weighers."""

    word: str
    field: str
    base: type[Any]
    builtin: dict[str, type[Rule]]
    nova_package: str
    adapt: Callable[[type[Any]], type[Rule]]

    @property
    def entry_points(self) -> str:
        return f"hostler.{self.word}s"


_FILTERS: Final = _Kind(
    "filter",
    ENABLED,
    Filter,
    BUILTIN_FILTERS,
    ALL_FILTERS.removesuffix("all_filters"),
    NovaFilterAdapter.of,
)
_WEIGHERS: Final = _Kind(
    "weigher",
    WEIGHING,
    Weigher,
    BUILTIN_WEIGHERS,
    ALL_WEIGHERS.removesuffix("all_weighers"),
    NovaWeigherAdapter.of,
)


_RESOURCES: Final = "Nova no longer has it, as Placement judges resources; leave it out"
_GONE: Final = {
    "AvailabilityZoneFilter": "Nova no longer has it, as Placement judges zones; leave it out",
    "RetryFilter": "Nova no longer has it, as alternates take its place; leave it out",
} | dict.fromkeys(("CoreFilter", "RamFilter", "DiskFilter"), _RESOURCES)
"""Filters of older releases, in many a nova.conf still."""


@dataclass(frozen=True)
class Chosen(Generic[Rule]):
    """The classes that a policy runs, in order, and the name that each has in its options."""

    names: tuple[str, ...]
    classes: tuple[type[Rule], ...]

    def rules(self, options: Options, field: str) -> tuple[Rule, ...]:
        """One object a class; a class that is named twice stands twice, as the same object (Nova 33, host_manager).
        InvalidValue, naming ``field``, for one that cannot be made."""
        objects = {each: made(each, options, field) for each in dict.fromkeys(self.classes)}
        return tuple(objects[each] for each in self.classes)


def choose_filters(options: Options, given: Iterable[type[Filter]]) -> Chosen[Filter]:
    """The filters that ``enabled_filters`` names among those that ``available_filters`` allows, then those of ``given``
    that it does not name. Raises UnknownName, DuplicateName or InvalidValue."""
    available = _Catalogue(_FILTERS, given)
    admitted = _admitted(options, available)
    names = [available.name_of(name) for name in options.filter_scheduler.enabled_filters]
    names += [name for name in available.given if name not in names]
    for name in names:
        if name in available.names() and name not in admitted:
            raise UnknownName.among("available filter", name, admitted, field="filter_scheduler.available_filters")
    return available.chosen(available.found(names))


def _admitted(options: Options, available: _Catalogue[Filter]) -> set[str]:
    """Names that ``available_filters`` allows a policy to enable. Classes passed separately are always available, and a
    class outside of Nova goes before one of Nova's with its name."""
    field = "filter_scheduler.available_filters"
    admitted = set(available.given)
    for name in options.filter_scheduler.available_filters:
        if name == ALL_FILTERS:
            admitted |= available.names()
        elif not is_path(plain := available.name_of(name)):
            available.check(plain, field)
            admitted.add(plain)
        else:
            for _, rule in available.imported(name, field):
                available.by_path[rule.name] = rule
                admitted.add(rule.name)
    return admitted


def choose_weighers(options: Options, order: Words, given: Iterable[type[Weigher]]) -> Chosen[Weigher]:
    """The weighers that ``weight_classes`` names, then those of ``given`` that it does not name, in ``order`` if there
    is one. Raises UnknownName, DuplicateName or InvalidValue."""
    available = _Catalogue(_WEIGHERS, given)
    names: list[str] = []
    for name in options.filter_scheduler.weight_classes:
        names += BUILTIN_WEIGHERS if name == ALL_WEIGHERS else [available.name_of(name)]
    names += [name for name in available.given if name not in names]
    return available.chosen(_in_order(available.found(names), [available.name_of(name) for name in order]))


def _in_order(found: list[tuple[str, type[Weigher]]], order: list[str]) -> list[tuple[str, type[Weigher]]]:
    if not order:
        return found
    names = [name for name, _ in found]
    for name in order:
        if name not in names:
            raise UnknownName.among("enabled weigher", name, names, field=ORDER)
    if sorted(order) != sorted(names):
        raise InvalidValue(
            f"{ORDER} must name every enabled weigher once, or as often as it is enabled: {', '.join(sorted(names))}",
            field=ORDER,
        )
    classes = dict(found)
    return [(name, classes[name]) for name in order]


class _Catalogue(Generic[Rule]):
    """The classes that can be named."""

    def __init__(self, kind: _Kind[Rule], given: Iterable[type[Rule]]) -> None:
        self._kind: _Kind[Rule] = kind
        self._installed: dict[str, list[EntryPoint]] = {}
        for entry_point in installed(entry_points, tuple(sys.path), kind.entry_points):
            self._installed.setdefault(entry_point.name, []).append(entry_point)
        self.given: dict[str, type[Rule]] = {}
        self.by_path: dict[str, type[Rule]] = {}
        """Classes outside of Nova by the names of the classes."""
        for rule in given:
            self._give(rule)

    def names(self) -> set[str]:
        return {*self._kind.builtin, *self._installed, *self.given, *self.by_path}

    def name_of(self, name: str) -> str:
        """The class name in ``name``, if that is a dotted path to one of Nova's own classes."""
        plain = name.rpartition(".")[2] if name.startswith(self._kind.nova_package) else name
        return plain if plain in self.names() else name

    def found(self, names: Sequence[str]) -> list[tuple[str, type[Rule]]]:
        """(canonical name, class) of each name; of a path to a function, all classes that it returns. Raises
        UnknownName, DuplicateName or InvalidValue."""
        found: list[tuple[str, type[Rule]]] = []
        for name in names:
            if is_path(name) and name not in self.names():
                found += self.imported(name, self._kind.field)
            else:
                found.append((name, self._class_of(name)))
        return found

    def chosen(self, found: Sequence[tuple[str, type[Rule]]]) -> Chosen[Rule]:
        return Chosen(tuple(name for name, _ in found), tuple(rule for _, rule in found))

    def check(self, name: str, field: str) -> None:
        """Raises UnknownName if there is no such class."""
        if name in self.names():
            return
        if name in _GONE:
            raise UnknownName(f"unknown {self._kind.word} {name!r}", field=field, hint=_GONE[name])
        raise UnknownName.among(self._kind.word, name, self.names(), field=field)

    def imported(self, path: str, field: str) -> list[tuple[str, type[Rule]]]:
        """(dotted path, class) of what a path names: a class, or a function that returns classes (Nova 33, loadables).
        Raises InvalidValue."""
        found = imported(functools.partial(at_path, path), path, field)
        if inspect.isfunction(found):
            found = imported(lambda: list(found()), path, field)
        elif not isinstance(found, type):
            raise invalid(field, path, "the path of a class, or of a function that returns classes")
        classes = found if isinstance(found, list) else [found]
        return [(f"{rule.__module__}.{rule.__qualname__}", self._adapted(rule, field)) for rule in classes]

    def _adapted(self, rule: Any, field: str) -> type[Rule]:
        if isinstance(rule, type) and issubclass(rule, self._kind.base):
            self._check_class(rule, field)
            own: type[Rule] = rule
            return own
        return self._kind.adapt(rule)

    def _class_of(self, name: str) -> type[Rule]:
        if name in self.by_path:
            return self.by_path[name]
        self.check(name, self._kind.field)
        installed = self._installed.get(name, [])
        sources = [entry_point.value for entry_point in installed]
        sources += [identity(group[name]) for group in (self._kind.builtin, self.given) if name in group]
        if len(sources) > 1:
            raise DuplicateName(f"{self._kind.word} {name} is defined more than once: {', '.join(sources)}", field=name)
        if installed:
            return self._load(installed[0])
        return self.given[name] if name in self.given else self._kind.builtin[name]

    def _give(self, rule: type[Rule]) -> None:
        self._check_class(rule, f"{self._kind.word}s")
        if rule.name in self.given:
            raise DuplicateName(f"{self._kind.word} {rule.name} is given twice", field=f"{self._kind.word}s")
        self.given[rule.name] = rule

    def _load(self, entry_point: EntryPoint) -> type[Rule]:
        field = f"{self._kind.entry_points}:{entry_point.name}"
        rule = imported(entry_point.load, entry_point.value, field)
        self._check_class(rule, field)
        if rule.name != entry_point.name:
            raise InvalidValue(f"entry point {field} loads {identity(rule)}, named {rule.name!r}", field=field)
        checked: type[Rule] = rule
        return checked

    def _check_class(self, rule: object, field: str) -> None:
        base = self._kind.base
        if not (isinstance(rule, type) and issubclass(rule, base) and isinstance(getattr(rule, "name", None), str)):
            raise invalid(field, rule, f"a subclass of {base.__name__} with a name")


def nova_classes(field: str, paths: Words) -> list[type[Any]]:
    """The classes that ``package.module:Class`` paths name. Raises InvalidValue if one cannot be imported."""
    return [imported(functools.partial(_nova_class, field, path), path, field) for path in paths]


def _nova_class(field: str, path: str) -> type[Any]:
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise invalid(field, path, "package.module:Class")
    found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    if not isinstance(found, type):
        raise invalid(field, path, "the path of a class")
    return found


def identity(rule: type[Any]) -> str:
    """A class's canonical name: the plain name for Nova's own, else ``module:Class`` (of the Nova class if adapted)."""
    rule = getattr(rule, "nova_class", rule)
    if rule in (*BUILTIN_FILTERS.values(), *BUILTIN_WEIGHERS.values()):
        return rule.__name__
    return f"{rule.__module__}:{rule.__qualname__}"
