"""What an engine keeps of requests that it has met: each compiled once, and one ranking for all that judge alike."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from ..filters import BUILTIN_FILTERS
from ..filters.base import Filter
from ..fleet.fleet import Fleet
from ..policy.policy import Policy
from ..request.checks import check_spec
from ..request.host_selection import names_targets
from ..request.placement_requirements import placement_requirements
from ..types.request import Request, RequestSpec
from ..weighers import BUILTIN_WEIGHERS
from ..weighers.base import Weigher
from .compiled_filter import FilterResults
from .signature import Signature

SIGNATURES: Final = 4096
"""Compiled signatures kept at most; the least recently used go first."""
INDEX_BYTES: Final = 4 << 30
"""Bytes that the rankings of all signatures may hold together; the least recently used go first."""


class Compiled:
    """Signatures and filter results of one fleet under one policy; shared by an engine and its forks."""

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        self.fleet, self.policy = fleet, policy
        self.filter_results = FilterResults(fleet)
        self.by_content: dict[Any, Signature] = {}
        """Content -> the signature that owns its ranking, the least recently compiled for first."""
        self.by_spec: dict[tuple[Hashable, ...], tuple[RequestSpec, int, Signature]] = {}
        """What decides of a request -> its spec, the topology epoch if it names hosts (else -1), the signature."""
        self.epoch = (-1, -1)
        self.classes = -1
        names = {judge.name for judge in policy.filters}
        options = policy.options.scheduler
        builtin = {*BUILTIN_FILTERS.values(), *BUILTIN_WEIGHERS.values()}
        rules: tuple[Filter | Weigher, ...] = (*policy.filters, *policy.weighers)
        self.custom = [rule for rule in rules if type(rule) not in builtin and not _spec_only(type(rule))]
        """Filters and weighers whose keys may tell apart requests of one spec."""
        self.reads_project = options.limit_tenants_to_placement_aggregate or "AggregateMultiTenancyIsolation" in names

    def signature(self, request: Request, *, candidates_given: bool) -> Signature:
        """The compiled signature of a request. O(1) for a spec that was seen before."""
        self._keep_up()
        read = tuple([rule.key(request) for rule in self.custom])
        key = (id(request.spec), request.project_id if self.reads_project else "", candidates_given, read)
        known = self.by_spec.get(key)
        if known is not None and known[1] in (-1, self.fleet.topology_epoch):
            return known[2]
        # A rule that may read the whole request has its answers made for this one alone.
        shareable = all(part is not request for part in read)
        signature = self._compile(request, candidates_given, shareable)
        # Compiling may have met a resource class or an aggregate for the first time.
        self.epoch = (self.fleet.store.capacity, self.fleet.static_epoch)
        if len(self.by_spec) >= 16 * SIGNATURES:
            self.by_spec.clear()
        if shareable:
            epoch = self.fleet.topology_epoch if names_targets(request.spec) else -1
            self.by_spec[key] = (request.spec, epoch, signature)
        return signature

    def _keep_up(self) -> None:
        """Drop what does not hold any more, and judge host classes that are new."""
        epoch = (self.fleet.store.capacity, self.fleet.static_epoch)
        if epoch != self.epoch:
            self.forget()
            self.epoch = epoch
        if len(self.fleet.classes) != self.classes:
            self.classes = len(self.fleet.classes)
            self.by_spec.clear()
            owners = list(self.by_content.values())
            self.by_content.clear()
            for owner in owners:
                owner.judge_new_classes()
                self.by_content.setdefault(owner.content, owner)

    def _compile(self, request: Request, candidates_given: bool, shareable: bool) -> Signature:
        check_spec(request.spec)
        requirements = placement_requirements(self.fleet, self.policy, request, candidates_given=candidates_given)
        signature = Signature(
            self.fleet, self.policy, request, requirements, self.filter_results, candidates_given=candidates_given
        )
        if not shareable:
            signature.share(None)
            return signature
        owner = self.by_content.pop(signature.content, None)
        if owner is not None and owner.stale:
            owner = None
        signature.share(owner)
        if owner is None:
            self._make_room(signature.ranking.nbytes)
        self.by_content[signature.content] = owner or signature
        return signature

    def _make_room(self, extra: int) -> None:
        total = extra + self.nbytes
        while self.by_content and (total > INDEX_BYTES or len(self.by_content) >= SIGNATURES):
            oldest = next(iter(self.by_content))
            total -= self.by_content.pop(oldest).ranking.nbytes
            self.by_spec.clear()

    def forget(self) -> None:
        """Drop everything compiled."""
        self.filter_results.clear()
        self.by_content.clear()
        self.by_spec.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of all rankings."""
        return sum(owner.ranking.nbytes for owner in self.by_content.values())


def _spec_only(kind: type[Filter | Weigher]) -> bool:
    """``spec_only`` as the class says that has the key, or one derived from it."""
    said = next(each for each in kind.__mro__ if {"key", "spec_only"} & vars(each).keys())
    return "spec_only" in vars(said) and kind.spec_only
