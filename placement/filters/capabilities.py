"""Whether a host has what a flavor's extra specs ask for. Source: Nova 33 ComputeCapabilitiesFilter."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from ..types import extra_specs
from ..types.cached_texts import cached_texts
from ..types.extra_specs import Condition
from ..types.host import HostState
from ..types.request import Request
from .base import Filter
from .host_attributes import NAMES, field_of, plain

_SCOPE = "capabilities"
_ADDRESS_BITS = "hw:maxphysaddr_bits"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One extra spec that may matter: the value at ``path`` of a host must satisfy ``condition``."""

    spec: str  # as the flavor names it
    path: tuple[str, ...]
    optional: bool  # unscoped: means nothing to a host that has neither such an attribute nor such a stat
    condition: Condition

    @property
    def is_stat(self) -> bool:
        """It is looked up in ``stats``, as HostState has no such attribute."""
        return self.path[0] not in NAMES


class ComputeCapabilitiesFilter(Filter):
    """Passes a host that satisfies every extra spec ``capabilities:<attribute>[:<key>...]`` and every unscoped one that
    is named like one of its attributes or stats.

    ``hw:maxphysaddr_bits=N`` means ``capabilities:cpu_info:maxphysaddr:bits = ">= N"``. A value that the host lacks
    satisfies nothing. Unlike Nova, an attribute that is None is not looked up again in ``stats``, and a number that the
    host spoiled refuses that host instead of failing the request.
    """

    name: ClassVar[str] = "ComputeCapabilitiesFilter"
    once_per_request: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        return bool(_wanted(request))

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset(field for wanted in _wanted(request) for field in _fields(wanted))

    def key(self, request: Request) -> Hashable:
        return tuple((wanted.spec, wanted.condition.text) for wanted in _wanted(request))

    def host_passes(self, host: HostState, request: Request) -> bool:
        return self._first_failure(host, request) is None

    def reason(self, host: HostState, request: Request) -> str:
        wanted = self._first_failure(host, request)
        if wanted is None:
            return super().reason(host, request)
        capability = ":".join(wanted.path)
        found = _find(host, wanted.path)
        if found is None:
            return f"capability {capability} is unknown, extra spec {wanted.spec} asks for {wanted.condition.text!r}"
        return f"capability {capability}={wanted.condition.failure(found)}"

    def nova_error(self, host: HostState, request: Request) -> str | None:
        """The exception that Nova 33 raises when it judges ``host``; it stops at the first spec that fails."""
        for wanted in _effective(host, _wanted(request)):
            found = _find(host, wanted.path)
            if found is None:
                return None
            error = wanted.condition.nova_error(found)
            if error is not None or not wanted.condition.holds(found):
                return error
        return None

    def _first_failure(self, host: HostState, request: Request) -> _Wanted | None:
        effective = tuple(_effective(host, _wanted(request)))
        for wanted in effective:
            wanted.condition.check(wanted.spec)
        return next((wanted for wanted in effective if not _satisfied(host, wanted)), None)


def _wanted(request: Request) -> tuple[_Wanted, ...]:
    return _parse(tuple(request.extra_specs.items()))


@cached_texts(4096)
def _parse(specs: tuple[tuple[str, str], ...]) -> tuple[_Wanted, ...]:
    """The extra specs that this filter may have to do with, in their order."""
    return tuple(_Wanted(spec, *meaning) for spec, text in specs if (meaning := _meaning(spec, text)) is not None)


def _meaning(spec: str, text: str) -> tuple[tuple[str, ...], bool, Condition] | None:
    if spec == _ADDRESS_BITS:
        return ("cpu_info", "maxphysaddr", "bits"), False, extra_specs.parse(f">= {text}")
    scope, *path = spec.split(":")
    if not path:
        return (spec,), True, extra_specs.parse(text)
    return (tuple(path), False, extra_specs.parse(text)) if scope == _SCOPE else None


def _fields(wanted: _Wanted) -> tuple[str, ...]:
    if wanted.is_stat:
        return ("stats",)
    field = field_of(wanted.path[0])
    return () if field is None else (field,)


def _effective(host: HostState, all_wanted: tuple[_Wanted, ...]) -> Iterator[_Wanted]:
    """Those of ``all_wanted`` that mean something to ``host``."""
    for wanted in all_wanted:
        if not (wanted.optional and wanted.is_stat and wanted.path[0] not in host.stats):
            yield wanted


def _satisfied(host: HostState, wanted: _Wanted) -> bool:
    found = _find(host, wanted.path)
    return found is not None and wanted.condition.holds(found)


def _find(host: HostState, path: tuple[str, ...]) -> str | None:
    """The text of what ``path`` leads to on ``host``; a text on the way is read as JSON. None if it leads nowhere."""
    first, *steps = path
    value = plain(host, first) if first in NAMES else host.stats.get(first)
    for step in steps:
        document = _document(value) if isinstance(value, str) else value
        value = document.get(step) if isinstance(document, Mapping) else None
    return None if value is None else str(value)


@lru_cache(maxsize=4096)
def _document(text: str) -> Any:
    """``text`` read as JSON, or None. Cached: a fleet has few different cpu_info."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
