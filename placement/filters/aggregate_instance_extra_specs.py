"""Whether a host's aggregates satisfy a flavor's extra specs. Source: Nova 33 AggregateInstanceExtraSpecsFilter."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types import extra_specs
from ..types.cached_texts import cached_texts
from ..types.extra_specs import Condition
from ..types.host import HostState
from ..types.request import Request
from .aggregate_metadata import listed_values, shown
from .base import Filter

_SCOPE = "aggregate_instance_extra_specs"

_Wanted = tuple[str, str, Condition]  # extra spec, metadata key, what one of its values must satisfy


class AggregateInstanceExtraSpecsFilter(Filter):
    """Passes a host whose aggregates have, for every extra spec that is unscoped or scoped
    ``aggregate_instance_extra_specs:``, a value that satisfies it. Other scopes are ignored."""

    name: ClassVar[str] = "AggregateInstanceExtraSpecsFilter"
    once_per_request: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        return bool(_wanted(request))

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"aggregates"})

    def key(self, request: Request) -> Hashable:
        return tuple((spec, condition.text) for spec, _, condition in _wanted(request))

    def host_passes(self, host: HostState, request: Request) -> bool:
        return self._first_failure(host, request) is None

    def reason(self, host: HostState, request: Request) -> str:
        failure = self._first_failure(host, request)
        if failure is None:
            return super().reason(host, request)
        spec, key, condition = failure
        values = listed_values(host).get(key)
        if not values:
            return f"no aggregate has metadata {key}, extra spec {spec} asks for {condition.text!r}"
        return f"aggregate metadata {key}={condition.failure(shown(values))}"

    def nova_error(self, host: HostState, request: Request) -> str | None:
        """The exception that Nova 33 raises for ``host``; None also if that depends on the iteration order of a set in
        Nova."""
        found = listed_values(host)
        for _, key, condition in _wanted(request):
            values = found.get(key, ())
            if any(condition.holds(value) for value in values):
                continue
            return next((error for value in values if (error := condition.nova_error(value))), None)
        return None

    def _first_failure(self, host: HostState, request: Request) -> _Wanted | None:
        found = listed_values(host)
        all_wanted = _wanted(request)
        for spec, key, condition in all_wanted:
            if ":" in spec or key in found:
                condition.check(spec)
        return next((wanted for wanted in all_wanted if not _satisfied(found, wanted)), None)


def _wanted(request: Request) -> tuple[_Wanted, ...]:
    return _parse(tuple(request.extra_specs.items()))


@cached_texts(4096)
def _parse(specs: tuple[tuple[str, str], ...]) -> tuple[_Wanted, ...]:
    """The extra specs that this filter reads, in order."""
    keys = ((spec, _metadata_key(spec), text) for spec, text in specs)
    return tuple((spec, key, extra_specs.parse(text)) for spec, key, text in keys if key is not None)


def _metadata_key(spec: str) -> str | None:
    scope, scoped, key = spec.partition(":")
    if not scoped:
        return spec
    return key if scope == _SCOPE else None


def _satisfied(found: dict[str, set[str]], wanted: _Wanted) -> bool:
    _, key, condition = wanted
    return any(condition.holds(value) for value in found.get(key, ()))
