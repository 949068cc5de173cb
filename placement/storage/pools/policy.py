"""A storage policy: Cinder's scheduler options, and the filters and weighers made of them, in order.

It is the table ``[storage]`` of a policy file, beside Nova's groups; option names and defaults are Cinder 29's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import tomli_w

from ...oslo_conf.read import UnknownOption, read_conf
from ...types.errors import InvalidValue, UnknownName
from ...types.guarded import made
from ...types.options import OptionGroup, Options, invalid, read_group
from .catalogue import FILTERS, WEIGHERS, pool_filters, pool_weighers
from .filters import BUILTIN_FILTERS, PoolFilter
from .filters.base import ERRORS
from .options import ORDERED, STORAGE, StorageOptions
from .weighers import BUILTIN_WEIGHERS, PoolWeigher

STOCHASTIC: Final = "StochasticHostWeightHandler"
_HANDLERS: Final = {
    ORDERED: ORDERED,
    STOCHASTIC: STOCHASTIC,
    f"cinder.scheduler.weights.{ORDERED}": ORDERED,
    f"cinder.scheduler.weights.stochastic.{STOCHASTIC}": STOCHASTIC,
}
"""Handlers by the names that the option may have."""
COMPATIBILITIES: Final = ("cinder", "strict")
CINDER_CONF: Final[Mapping[str, type[OptionGroup]]] = {"DEFAULT": StorageOptions}
"""The section of a cinder.conf that a decision depends on."""
_RATIO: Final = re.compile(r"auto|\d*\.\d+|\d+")


@dataclass(frozen=True, eq=False, kw_only=True)
class VolumePolicy:
    """Options and the filters and weighers made of them, in order. Equal if their ``digest`` is. A filter that the
    options name twice stands once, as it removes the same pools again; a weigher's points count twice, as in Cinder.

    Make one with ``cinder_default``, ``from_mapping``, ``from_toml`` or ``from_cinder_conf``; these check it.
    """

    options: StorageOptions
    filters: tuple[PoolFilter, ...]
    weighers: tuple[PoolWeigher, ...]

    @classmethod
    def cinder_default(cls) -> VolumePolicy:
        """What Cinder 29 does without a cinder.conf."""
        return cls.from_mapping({})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Mapping[str, Any]]) -> VolumePolicy:
        """A policy from the table ``storage``; tables of ``Policy`` are ignored. UnknownName or InvalidValue, naming
        the option, for an invalid policy. O(options)."""
        if not isinstance(values, Mapping):
            raise invalid("policy", values, "a table of tables")
        for name in values:
            if name not in _TABLES:
                raise UnknownName.among("option group", str(name), _TABLES, field=str(name))
        table = values.get(STORAGE, {})
        if not isinstance(table, Mapping):
            raise invalid(STORAGE, table, "a table")
        options = _checked(read_group(StorageOptions, table))
        filters = pool_filters(options.scheduler_default_filters)
        weighers = pool_weighers(options.scheduler_default_weighers)
        return cls(
            options=options,
            filters=tuple(made(rule, options, FILTERS, {"pool_passes": ERRORS}) for rule in dict.fromkeys(filters)),
            weighers=tuple(made(rule, options, WEIGHERS) for rule in weighers),
        )

    @classmethod
    def from_toml(cls, source: str | os.PathLike[str]) -> VolumePolicy:
        """A policy from a TOML file or text, as ``Policy.from_toml`` reads them. InvalidValue, and as
        ``from_mapping``."""
        is_text = isinstance(source, str) and (not source or any(mark in source for mark in "\n=["))
        try:
            text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
            values = tomllib.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidValue(f"the policy cannot be read: {error}", field="policy") from error
        return cls.from_mapping(values)

    @classmethod
    def from_cinder_conf(cls, *paths: str | os.PathLike[str]) -> VolumePolicy:
        """A policy from files in the form of cinder.conf, and folders of them (``--config-dir``), read by oslo.config
        as Cinder does: the options of ``[DEFAULT]``, and of a section ``[storage]`` those that are Hostler's own. An
        option in ``[DEFAULT]`` that Cinder does not have is warned of (``UnknownOption``). Raises InvalidValue if a
        file cannot be read or oslo.config is not installed, and as ``from_mapping``."""
        conf = read_conf("cinder", paths, {**CINDER_CONF, STORAGE: StorageOptions})
        for sentence in conf.unknown:
            warnings.warn(sentence, UnknownOption, stacklevel=2)
        return cls.from_mapping({STORAGE: conf.values.get("DEFAULT", {}) | conf.values.get(STORAGE, {})})

    @property
    def strict(self) -> bool:
        """True if expressions are read without Cinder's traps."""
        return self.options.compat == "strict"

    @property
    def has_functions(self) -> bool:
        """True if functions of pools are evaluated, which may read any property of a volume."""
        by_filters = any(rule.name == "DriverFilter" for rule in self.filters)
        return by_filters or any(weigher.name == "GoodnessWeigher" for weigher in self.weighers)

    @property
    def has_own_rules(self) -> bool:
        """True if filters or weighers that are not Cinder's own decide, of which nothing is known."""
        own = {*BUILTIN_FILTERS.values(), *BUILTIN_WEIGHERS.values()}
        return not own.issuperset(map(type, (*self.filters, *self.weighers)))

    @property
    def stochastic(self) -> bool:
        """True if chance chooses, by weight."""
        return self.options.scheduler_weight_handler == STOCHASTIC

    def to_mapping(self) -> dict[str, dict[str, Any]]:
        """What differs from the defaults, as ``from_mapping`` reads it."""
        changed = self.options.changed()
        return {STORAGE: changed} if changed else {}

    def to_toml(self) -> str:
        """The policy as a TOML text."""
        return tomli_w.dumps(self.to_mapping())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all that the policy says, defaults included, in hexadecimal. The same in every process."""
        return hashlib.sha256(json.dumps(self.options.all_values(), sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, VolumePolicy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"VolumePolicy({len(self.filters)} filters, {len(self.weighers)} weighers, {self.digest[:12]})"


_TABLES: Final = frozenset({STORAGE, "hostler", *(group.group for group in Options().groups())})


def _checked(options: StorageOptions) -> StorageOptions:
    """``options`` with the handler's plain name; InvalidValue or UnknownName for what Cinder would not take."""
    field = f"{STORAGE}.scheduler_weight_handler"
    if options.scheduler_weight_handler not in _HANDLERS:
        handlers = sorted(set(_HANDLERS.values()))
        raise UnknownName.among("weight handler", options.scheduler_weight_handler, handlers, field=field)
    if not _RATIO.fullmatch(options.max_over_subscription_ratio):
        wanted = "auto or a number that is not negative"
        raise invalid(f"{STORAGE}.max_over_subscription_ratio", options.max_over_subscription_ratio, wanted)
    if options.compat not in COMPATIBILITIES:
        raise UnknownName.among("compatibility", options.compat, COMPATIBILITIES, field=f"{STORAGE}.compat")
    plain = _HANDLERS[options.scheduler_weight_handler]
    return msgspec.structs.replace(options, scheduler_weight_handler=plain)
