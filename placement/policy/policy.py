"""A policy: which filters and weighers run, in which order, under which options. It can be read, written and compared.

Does not run them. A policy file is TOML: a table per nova.conf group with Nova's option names, and a table
``[hostler]`` for Hostler's own options.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar

import msgspec
import tomli_w

from ..filters import BUILTIN_FILTERS
from ..filters.adapter import NovaFilterAdapter
from ..filters.base import Filter
from ..types.errors import DuplicateName, InvalidValue, UnknownName
from ..types.options import (
    ALL_FILTERS,
    ALL_WEIGHERS,
    NEWEST_NOVA,
    NovaRelease,
    OptionGroup,
    Options,
    Words,
    invalid,
    read_group,
)
from ..weighers import BUILTIN_WEIGHERS
from ..weighers.adapter import NovaWeigherAdapter
from ..weighers.base import Weigher

HOSTLER: Final = "hostler"
NOT_NOVA: Final = frozenset({HOSTLER, "storage"})
"""Tables that are not groups of nova.conf; ``storage`` is read by ``VolumePolicy``."""

Rule = TypeVar("Rule", Filter, Weigher)


class HostlerOptions(OptionGroup, frozen=True):
    """``[hostler]``. ``nova_filters`` and ``nova_weighers`` are third-party Nova classes, written
    ``package.module:Class``; ``weigher_order`` names all weighers in the order in which their points are added.
    ``nova_bugs``: do not charge a guest's NUMA cells and PCI devices in the cases in which Nova fails to
    (docs/nova-differences.md). ``nova_release``: the release of Nova that is followed. ``forbid_disabled``: a host
    whose compute service is disabled takes no guest even where ComputeFilter does not judge it (Nova's mandatory
    prefilter ``compute_status_filter``); off to decide as release 0.1. ``prepare``: requests are first completed and
    checked as nova-api and nova-conductor do; off where those have done so, as behind the RPC of a nova-scheduler."""

    group: ClassVar[str] = HOSTLER

    name: str = "nova"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    weigher_order: Words = ()
    nova_filters: Words = ()
    nova_weighers: Words = ()
    nova_bugs: bool = False
    nova_release: NovaRelease = NEWEST_NOVA
    forbid_disabled: bool = True
    prepare: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Policy:
    """Options, and the filters and weighers built from them, in order. Policies are equal if their ``digest`` is.

    Create one with ``nova_default``, ``from_mapping`` or ``from_toml``, which check it. ``options`` has the canonical
    names of filters and weighers.
    """

    options: Options
    filters: tuple[Filter, ...]
    weighers: tuple[Weigher, ...]
    own: HostlerOptions

    @classmethod
    def nova_default(cls) -> Policy:
        """Nova 33's defaults; points are added in the order of ``BUILTIN_WEIGHERS``."""
        return cls.from_mapping({})

    @classmethod
    def from_mapping(
        cls,
        values: Mapping[str, Mapping[str, Any]],
        *,
        filters: Iterable[type[Filter]] = (),
        weighers: Iterable[type[Weigher]] = (),
    ) -> Policy:
        """A policy from group -> option -> value, Nova's groups and ``hostler``.

        ``filters`` and ``weighers`` are additional classes: they run at their position in the options, else last.
        Raises UnknownName, DuplicateName or InvalidValue, naming the option.
        """
        if not isinstance(values, Mapping):
            raise invalid("policy", values, "a table of tables")
        own = read_group(HostlerOptions, _table(values.get(HOSTLER, {})))
        options = Options.from_mapping({name: group for name, group in values.items() if name not in NOT_NOVA})
        adapted_filters = [NovaFilterAdapter.of(nova) for nova in _nova_classes("nova_filters", own.nova_filters)]
        adapted_weighers = [NovaWeigherAdapter.of(nova) for nova in _nova_classes("nova_weighers", own.nova_weighers)]
        chosen_filters = _choose_filters(options, [*filters, *adapted_filters])
        chosen_weighers = _choose_weighers(options, own, [*weighers, *adapted_weighers])
        options = _as_chosen(options, chosen_filters, chosen_weighers)
        return cls(
            options=options,
            filters=tuple(rule(options) for rule in chosen_filters),
            weighers=tuple(rule(options) for rule in chosen_weighers),
            own=msgspec.structs.replace(own, weigher_order=()),
        )

    @classmethod
    def from_toml(cls, source: str | os.PathLike[str]) -> Policy:
        """A policy from a TOML file or text. Raises InvalidValue if it cannot be read, and as ``from_mapping``.

        A str is TOML text if it is empty or contains a line break, ``=`` or ``[``; a file with such a name must be
        given as a Path.
        """
        text = source if isinstance(source, str) and _is_text(source) else _file_text(Path(source))
        try:
            values = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InvalidValue(f"the policy is not TOML: {error}", field="policy") from error
        return cls.from_mapping(values)

    @property
    def name(self) -> str:
        """``[hostler] name``, for reports."""
        return self.own.name

    @property
    def seed(self) -> int:
        """``[hostler] seed`` of random choices."""
        return self.own.seed

    def to_mapping(self) -> dict[str, dict[str, Any]]:
        """The options that differ from Nova's defaults, as ``from_mapping`` reads them (given the same additional
        classes)."""
        own = self.own.changed()
        return ({HOSTLER: own} if own else {}) | self.options.to_mapping()

    def to_toml(self) -> str:
        """``to_mapping`` as a TOML text."""
        return tomli_w.dumps(self.to_mapping())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the complete policy, including defaults, in hexadecimal. Equal in every process."""
        content = {
            "filters": [_identity(type(rule)) for rule in self.filters],
            "weighers": [_identity(type(rule)) for rule in self.weighers],
            "options": {group.group: group.all_values() for group in (self.own, *self.options.groups())},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Policy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Policy({self.name!r}, {len(self.filters)} filters, {len(self.weighers)} weighers, {self.digest[:12]})"


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise invalid(HOSTLER, value, "a table")
    return value


def _is_text(source: str) -> bool:
    return not source or any(mark in source for mark in "\n=[")


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidValue(f"the policy file {str(path)[:200]!r} cannot be read: {error}", field="policy") from error


# Choosing filters and weighers by name


@dataclass(frozen=True)
class _Kind(Generic[Rule]):
    """The differences between the lookup of filters and of weighers."""

    word: str
    field: str
    base: type[Any]
    builtin: Mapping[str, type[Rule]]
    nova_package: str

    @property
    def entry_points(self) -> str:
        return f"hostler.{self.word}s"

    def plain_name(self, name: str) -> str:
        """The class name in ``name``, which may be a dotted path to one of Nova's own classes."""
        return name.rpartition(".")[2] if name.startswith(self.nova_package) else name


_FILTERS: Final = _Kind(
    "filter", "filter_scheduler.enabled_filters", Filter, BUILTIN_FILTERS, ALL_FILTERS.removesuffix("all_filters")
)
_WEIGHERS: Final = _Kind(
    "weigher", "filter_scheduler.weight_classes", Weigher, BUILTIN_WEIGHERS, ALL_WEIGHERS.removesuffix("all_weighers")
)


def _choose_filters(options: Options, given: Sequence[type[Filter]]) -> list[type[Filter]]:
    available = _Catalogue(_FILTERS, given)
    names = [_FILTERS.plain_name(name) for name in options.filter_scheduler.enabled_filters]
    names += [name for name in available.given if name not in names]
    admitted = _admitted(options, available)
    for name in names:
        if name in available.names() and name not in admitted:
            raise UnknownName.among("available filter", name, admitted, field="filter_scheduler.available_filters")
    return available.all_of(names)


def _admitted(options: Options, available: _Catalogue[Filter]) -> set[str]:
    """Names that ``available_filters`` allows a policy to enable. Classes passed separately are always available."""
    admitted = set(available.given)
    for name in options.filter_scheduler.available_filters:
        if name == ALL_FILTERS:
            admitted |= available.names()
        else:
            plain = _FILTERS.plain_name(name)
            available.check(plain, "filter_scheduler.available_filters")
            admitted.add(plain)
    return admitted


def _choose_weighers(options: Options, own: HostlerOptions, given: Sequence[type[Weigher]]) -> list[type[Weigher]]:
    available = _Catalogue(_WEIGHERS, given)
    names: list[str] = []
    for name in options.filter_scheduler.weight_classes:
        names += BUILTIN_WEIGHERS if name == ALL_WEIGHERS else [_WEIGHERS.plain_name(name)]
    names += [name for name in available.given if name not in names]
    return available.all_of(_in_order(names, [_WEIGHERS.plain_name(name) for name in own.weigher_order]))


def _in_order(names: list[str], order: list[str]) -> list[str]:
    field = f"{HOSTLER}.weigher_order"
    if not order:
        return names
    for name in order:
        if name not in names:
            raise UnknownName.among("enabled weigher", name, names, field=field)
    if sorted(order) != sorted(names):
        raise InvalidValue(
            f"{field} must name every enabled weigher once: {', '.join(sorted(set(names)))}", field=field
        )
    return order


class _Catalogue(Generic[Rule]):
    """The classes that can be named: Nova's own, installed packages' (by entry point), and the caller's."""

    def __init__(self, kind: _Kind[Rule], given: Sequence[type[Rule]]) -> None:
        self._kind: _Kind[Rule] = kind
        self._installed: dict[str, list[EntryPoint]] = {}
        for entry_point in _installed(entry_points, tuple(sys.path), kind.entry_points):
            self._installed.setdefault(entry_point.name, []).append(entry_point)
        self.given: dict[str, type[Rule]] = {}
        for rule in given:
            self._give(rule)

    def names(self) -> set[str]:
        return {*self._kind.builtin, *self._installed, *self.given}

    def all_of(self, names: Sequence[str]) -> list[type[Rule]]:
        """The classes of ``names``. Raises UnknownName, and DuplicateName if one is given twice."""
        for index, name in enumerate(names):
            if name in names[:index]:
                raise DuplicateName(f"{self._kind.word} {name} is enabled twice", field=self._kind.field)
        return [self._class_of(name) for name in names]

    def check(self, name: str, field: str) -> None:
        """Raises UnknownName if there is no such class."""
        if name not in self.names():
            raise UnknownName.among(self._kind.word, name, self.names(), field=field)

    def _class_of(self, name: str) -> type[Rule]:
        self.check(name, self._kind.field)
        installed = self._installed.get(name, [])
        sources = [entry_point.value for entry_point in installed]
        sources += [_identity(group[name]) for group in (self._kind.builtin, self.given) if name in group]
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
        rule = _imported(entry_point.load, entry_point.value, field)
        self._check_class(rule, field)
        if rule.name != entry_point.name:
            raise InvalidValue(f"entry point {field} loads {_identity(rule)}, named {rule.name!r}", field=field)
        checked: type[Rule] = rule
        return checked

    def _check_class(self, rule: object, field: str) -> None:
        base = self._kind.base
        if not (isinstance(rule, type) and issubclass(rule, base) and isinstance(getattr(rule, "name", None), str)):
            raise invalid(field, rule, f"a subclass of {base.__name__} with a name")


@functools.lru_cache(maxsize=16)
def _installed(find: Callable[..., EntryPoints], path: tuple[str, ...], group: str) -> EntryPoints:
    """The entry points of a group, looked up once per import path: that reads the metadata of every package there."""
    return find(group=group)


def _nova_classes(option: str, paths: Words) -> list[type[Any]]:
    """The classes that ``package.module:Class`` paths name. Raises InvalidValue if one cannot be imported."""
    field = f"{HOSTLER}.{option}"
    return [_imported(functools.partial(_nova_class, field, path), path, field) for path in paths]


def _nova_class(field: str, path: str) -> type[Any]:
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise invalid(field, path, "package.module:Class")
    found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    if not isinstance(found, type):
        raise invalid(field, path, "the path of a class")
    return found


def _imported(load: Callable[[], Any], path: str, field: str) -> Any:
    """The result of ``load``. A third-party module may fail in any way: the error is reported for the policy that names
    it."""
    try:
        return load()
    except InvalidValue:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidValue(f"{field}: {path[:200]} cannot be loaded ({reason})", field=field) from error


def _as_chosen(options: Options, filters: Sequence[type[Filter]], weighers: Sequence[type[Weigher]]) -> Options:
    """``options`` with canonical names of filters and weighers, so that equal policies have equal options."""
    names = tuple(rule.name for rule in weighers)
    group = msgspec.structs.replace(
        options.filter_scheduler,
        enabled_filters=tuple(rule.name for rule in filters),
        weight_classes=(ALL_WEIGHERS,) if names == tuple(BUILTIN_WEIGHERS) else names,
    )
    return msgspec.structs.replace(options, filter_scheduler=group)


def _identity(rule: type[Any]) -> str:
    """A class's canonical name: the plain name for Nova's own, else ``module:Class`` (of the Nova class if adapted)."""
    rule = getattr(rule, "nova_class", rule)
    if rule in (*BUILTIN_FILTERS.values(), *BUILTIN_WEIGHERS.values()):
        return rule.__name__
    return f"{rule.__module__}:{rule.__qualname__}"
