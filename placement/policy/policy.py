"""A policy: which filters and weighers run, in which order, under which options. It can be read, written and compared.

Does not run them. A policy file is TOML: a table per nova.conf group with Nova's option names, and a table
``[hostler]`` for Hostler's own options.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import msgspec
import tomli_w

from ..filters.adapter import NovaFilterAdapter
from ..filters.base import Filter
from ..oslo_conf.read import UnknownOption, read_conf
from ..types.errors import InvalidValue
from ..types.options import (
    ALL_WEIGHERS,
    NEWEST_NOVA,
    GpuOptions,
    NovaRelease,
    NumaOptions,
    OptionGroup,
    Options,
    Words,
    invalid,
    read_group,
)
from ..weighers import BUILTIN_WEIGHERS
from ..weighers.adapter import NovaWeigherAdapter
from ..weighers.base import Weigher
from .catalogue import ENABLED, WEIGHING, Chosen, choose_filters, choose_weighers, identity, nova_classes

HOSTLER: Final = "hostler"
NOVA_CONF: Final[Mapping[str, type[OptionGroup]]] = {
    group.group: type(group) for group in Options().groups() if not isinstance(group, GpuOptions | NumaOptions)
}
"""The sections of a nova.conf that a decision may depend on."""
NOT_NOVA: Final = frozenset({HOSTLER, "storage"})
"""Tables that are not groups of nova.conf; ``storage`` is read by ``VolumePolicy``."""


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


SECTIONS: Final[Mapping[str, type[OptionGroup]]] = {
    **NOVA_CONF,
    **{group.group: group for group in (HostlerOptions, GpuOptions, NumaOptions)},
}
"""The sections of a nova.conf that are read: Nova's and Hostler's own."""


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
        nova_filters = nova_classes(f"{HOSTLER}.nova_filters", own.nova_filters)
        nova_weighers = nova_classes(f"{HOSTLER}.nova_weighers", own.nova_weighers)
        chosen_filters = choose_filters(options, [*filters, *map(NovaFilterAdapter.of, nova_filters)])
        given_weighers = [*weighers, *map(NovaWeigherAdapter.of, nova_weighers)]
        chosen_weighers = choose_weighers(options, own.weigher_order, given_weighers)
        options = _as_chosen(options, chosen_filters, chosen_weighers)
        return cls(
            options=options,
            filters=chosen_filters.rules(options, ENABLED),
            weighers=chosen_weighers.rules(options, WEIGHING),
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

    @classmethod
    def from_nova_conf(cls, *paths: str | os.PathLike[str]) -> Policy:
        """A policy from files in the form of nova.conf, and folders of them (``--config-dir``), read by oslo.config as
        Nova does: other sections are ignored, ``$option`` is replaced, the last file that sets an option decides. An
        option in a section of Nova's that Nova does not have is warned of (``UnknownOption``).

        Sections ``[hostler]``, ``[gpu]`` and ``[numa]`` are Hostler's own. Raises InvalidValue if a file cannot be
        read or oslo.config is not installed, and as ``from_mapping``.
        """
        conf = read_conf("nova", paths, SECTIONS)
        for sentence in conf.unknown:
            warnings.warn(sentence, UnknownOption, stacklevel=2)
        return cls.from_mapping(conf.values)

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
            "filters": [identity(type(rule)) for rule in self.filters],
            "weighers": [identity(type(rule)) for rule in self.weighers],
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


def _as_chosen(options: Options, filters: Chosen[Filter], weighers: Chosen[Weigher]) -> Options:
    """``options`` with canonical names of filters and weighers, so that equal policies have equal options."""
    group = msgspec.structs.replace(
        options.filter_scheduler,
        enabled_filters=filters.names,
        weight_classes=(ALL_WEIGHERS,) if weighers.names == tuple(BUILTIN_WEIGHERS) else weighers.names,
    )
    return msgspec.structs.replace(options, filter_scheduler=group)
