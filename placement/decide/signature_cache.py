"""What an engine keeps of requests that it has met: each compiled once, and one ranking for all that judge alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ...ext.ranking import HostIndex
from ..filters import BUILTIN_FILTERS
from ..filters.base import Filter
from ..filters.instance_affinity import DifferentHostFilter, SameHostFilter
from ..fleet.fleet import Fleet
from ..policy.policy import Policy
from ..request.checks import check_spec
from ..request.host_selection import names_hosts, names_targets
from ..request.placement_requirements import has_one_target, placement_requirements
from ..request.preparation import Preparation
from ..types.guarded import unguarded
from ..types.request import Request, RequestSpec
from ..types.slowly_freed import SlowlyFreed
from ..weighers import BUILTIN_WEIGHERS
from ..weighers.base import Weigher
from .compiled_filter import FilterResults
from .kept_rules import KeptRules
from .shape_table import ShapeTable
from .signature import Signature

SIGNATURES: Final = 4096
"""Compiled signatures kept at most; the least recently used go first."""
ROWS_BYTES: Final = 256 << 20
ROWS_BYTES_PER_HOST: Final = 192
"""Bytes that what rules say row by row, and rankings which cannot search the index (of such rules, formulas), may hold
together: the greater of the two, at a million hosts 12 shapes with GPUs of 21 bytes a host each. The least recently
used go first."""
HELD_BYTES_PER_HOST: Final = 192
"""Bytes that rankings which search the index may spend on rows of their own while they are asked often."""
SPEC_BYTES: Final = 64 << 20
"""Bytes that specs and their signatures may take together beside the rankings; those that were not used lately go
first."""
_SIGNATURE_BYTES: Final = 8 << 10
"""What a signature takes at least, measured."""
FREED: Final = 64
"""Entries of tables that were dropped which are freed at each request, or run of requests."""
SPARED: Final = 16
"""Specs in use that are passed over at most where one is to be forgotten."""
MET: Final = 1024
"""Specs that are found by their identity at most."""
INSTANCE_HINTS: Final = (SameHostFilter.hint, DifferentHostFilter.hint)
ANY: Final = "\0"
"""Stands for a name that a spec gives; no host has it."""
_ANY: Final = (ANY,)
_KEPT: Final = 7 / 8
"""Share that is left when room is made, so that it is not made for each newcomer."""


@dataclass(slots=True)
class _Known:
    """A signature by spec: ``epoch`` is the topology epoch if the spec names hosts, else -1."""

    epoch: int
    signature: Signature
    nbytes: int
    last_used: int
    looked: int
    """When it was last considered to be forgotten."""
    met: int = 0
    """Identity of the spec that is kept of those that were met, 0 if none was."""


class Compiled:
    """Signatures and filter results of one fleet under one policy; shared by an engine and its forks."""

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        self.fleet, self.policy = fleet, policy
        self.filter_results = FilterResults(fleet)
        self.by_content: dict[Any, Signature] = {}
        """Content -> the signature that owns its ranking."""
        self.by_spec: dict[tuple[Hashable, ...], _Known] = {}
        """What decides of a request, its spec by content -> the signature."""
        self._met: dict[int, tuple[RequestSpec, _Known]] = {}
        """Specs by identity that were met lately, and what ``by_spec`` has of them: it tells without reading them."""
        self._uses = 0
        self._spec_bytes = 0
        self._bytes = 0
        self.index = HostIndex(fleet._kernel)
        self.kept_rules = KeptRules()
        self.epoch = (-1, -1)
        self.classes = -1
        names = {judge.name for judge in policy.filters}
        options = policy.options.scheduler
        builtin = {*BUILTIN_FILTERS.values(), *BUILTIN_WEIGHERS.values()}
        rules: tuple[Filter | Weigher, ...] = (*policy.filters, *policy.weighers)
        self.custom = [rule for rule in rules if type(rule) not in builtin and not _spec_only(type(rule))]
        """Filters and weighers whose keys may tell apart requests of one spec."""
        self.reads_project = options.limit_tenants_to_placement_aggregate or "AggregateMultiTenancyIsolation" in names
        self._prepare = Preparation(fleet, policy)
        self._by_parts = not (self.custom or self.reads_project or options.enable_isolated_aggregate_filtering)
        self._freed = SlowlyFreed()
        """Of tables of shapes that were dropped."""
        self.shapes = self._new_shapes()
        """Shapes by number, as ``place_many`` has them; replaced when anything compiled is dropped."""

    def signature(self, request: Request, *, candidates_given: bool) -> Signature:
        """The compiled signature of a request. O(1) for a spec that was seen before."""
        self._keep_up()
        spec = request.spec
        met = self._met.get(id(spec))
        if met is not None and not candidates_given and met[1].epoch in (-1, self.fleet._topology_epoch):
            self._uses += 1
            met[1].last_used = met[1].signature.owner.last_used = self._uses
            return met[1].signature
        read = tuple([rule.key(request) for rule in self.custom])
        if not self.custom and _names_something(spec):
            spec = self._nameless(spec)
        key = (spec, request.project_id if self.reads_project else "", candidates_given, read)
        self._uses += 1
        known = self.by_spec.get(key)
        if known is not None and known.epoch in (-1, self.fleet._topology_epoch):
            known.last_used = known.signature.owner.last_used = self._uses
            if not (self.custom or self.reads_project or candidates_given):
                self._meet(request.spec, known, counted=spec is request.spec)
            return known.signature
        # A rule that may read the whole request has its answers made for this one alone.
        shareable = all(part is not request for part in read)
        found = None
        if self._by_parts and not candidates_given:
            self.shapes.refresh()
            found = self.shapes.find(request)
        signature = found or self._compile(request, candidates_given=candidates_given, shareable=shareable)
        # Compiling may have met a resource class or an aggregate for the first time.
        self.epoch = (self.fleet._store.capacity, self.fleet._static_epoch)
        if shareable:
            self._remember(key, spec, signature)
        return signature

    def _meet(self, spec: RequestSpec, known: _Known, *, counted: bool) -> None:
        """Find the spec by its identity from now on, instead of the one by which ``known`` was found so far.
        ``counted``: the bytes of ``known`` are those of the spec as well. O(1), amortised."""
        if not counted and spec.nbytes > _SIGNATURE_BYTES:
            return
        if len(self._met) >= MET:
            self._met.clear()
        self._met.pop(known.met, None)
        known.met = id(spec)
        self._met[known.met] = spec, known

    def _nameless(self, spec: RequestSpec) -> RequestSpec:
        """A spec that stands for all that differ from ``spec`` in the hosts and instances that they name, where what is
        compiled does not depend on these: only on whether some are named."""
        if not self._prepare.wanted(spec):
            check_spec(spec)
        destination = spec.requested_destination
        # A query for the tree of one provider is widened where hosts are named.
        if spec.requested_resources or (destination is not None and destination.node and destination.host is None):
            return spec
        if names_targets(spec) and not has_one_target(self.fleet, spec):
            return spec
        if destination is not None and destination.host is not None:
            destination = replace(destination, host=ANY, node=destination.node and ANY)
        hints = {hint: _ANY for hint in INSTANCE_HINTS if _named(spec, hint)}
        return replace(
            spec,
            scheduler_hints={**spec.scheduler_hints, **hints},
            ignore_hosts=(),
            force_hosts=spec.force_hosts and _ANY,
            force_nodes=spec.force_nodes and _ANY,
            requested_destination=destination,
        )

    def _remember(self, key: tuple[Hashable, ...], spec: RequestSpec, signature: Signature) -> None:
        """Keep a signature for its spec. O(1), amortised."""
        content = spec.content
        nbytes = _SIGNATURE_BYTES + signature.nbytes + (len(content) if isinstance(content, bytes) else 0)
        self._forget_specs(SPEC_BYTES - nbytes)
        before = self.by_spec.pop(key, None)
        if before is not None:
            self._met.clear()
            self._spec_bytes -= before.nbytes
        epoch = self.fleet._topology_epoch if names_targets(spec) else -1
        self.by_spec[key] = _Known(epoch, signature, nbytes, self._uses, self._uses)
        self._spec_bytes += nbytes

    def _forget_specs(self, room: int) -> None:
        """Forget specs that were not used lately until all take ``room`` bytes at most: the oldest one, unless it was
        used since it was looked at last. O(forgotten + SPARED)."""
        spared = 0
        while self._spec_bytes > room and self.by_spec:
            key = next(iter(self.by_spec))
            known = self.by_spec.pop(key)
            if known.last_used > known.looked and spared < SPARED:
                known.looked = self._uses
                self.by_spec[key] = known
                spared += 1
            else:
                self._spec_bytes -= known.nbytes
                self._met.pop(known.met, None)

    def _clear_specs(self) -> None:
        self.by_spec.clear()
        self._met.clear()
        self._spec_bytes = 0

    def numbered(self) -> ShapeTable:
        """The shapes that ``place_many`` may go on with."""
        self._keep_up()
        self.shapes.refresh()
        return self.shapes

    def shapes_apart(self) -> ShapeTable:
        """A table for one use, whose shapes stay whatever is dropped."""
        return ShapeTable(self.fleet, self.policy, self.filter_results)

    def _new_shapes(self) -> ShapeTable:
        if not self._by_parts:
            return self.shapes_apart()
        return ShapeTable(
            self.fleet,
            self.policy,
            self.filter_results,
            prepare=self._prepare,
            compile=self._compile_part,
            freed=self._freed,
        )

    def _drop_shapes(self) -> None:
        self.shapes.dropped = True
        self.shapes = self._new_shapes()

    def _compile_part(self, request: Request) -> Signature:
        return self._compile(request, candidates_given=False, shareable=True)

    def _keep_up(self) -> None:
        """Drop what does not hold any more, and judge host classes that are new."""
        if self._freed.parts:
            self._freed.free(FREED)
        epoch = (self.fleet._store.capacity, self.fleet._static_epoch)
        if epoch != self.epoch:
            self.forget()
            self.epoch = epoch
        elif self.shapes.full:
            self._drop_shapes()
        if len(self.fleet._classes) != self.classes:
            self.classes = len(self.fleet._classes)
            self.kept_rules.forget()
            self._clear_specs()
            self._drop_shapes()
            owners = list(self.by_content.values())
            self.by_content.clear()
            for owner in owners:
                owner.judge_new_classes()
                if self.by_content.setdefault(owner.content, owner) is not owner:
                    self._drop(owner)

    def _compile(self, request: Request, *, candidates_given: bool, shareable: bool) -> Signature:
        check_spec(request.spec)
        requirements = placement_requirements(self.fleet, self.policy, request, candidates_given=candidates_given)
        signature = Signature(
            self.fleet, self.policy, request, requirements, self.filter_results, candidates_given=candidates_given
        )
        # Compiling may have met a resource class or a trait for the first time, and so voided what is kept.
        self._keep_up()
        if not shareable:
            signature.share(None, self.index)
            return signature
        content = signature.content
        owner = self.by_content.pop(content, None)
        if owner is not None and owner.stale:
            self._drop(owner)
            owner = None
        signature.share(owner, self.index, self._make_room)
        if owner is None:
            self._make_room(signature.own_bytes)
        (owner or signature).last_used = self._uses
        self.by_content[content] = owner or signature
        return signature

    def _make_room(self, extra: int) -> None:
        """Forget the rankings that were used least recently, with the specs that lead to them. O(1), amortised."""
        most = max(ROWS_BYTES, ROWS_BYTES_PER_HOST * self.fleet._store.capacity)
        self._bytes += extra
        if self._bytes <= most and len(self.by_content) < SIGNATURES:
            return
        self._drop_shapes()
        self.kept_rules.forget()
        self._met.clear()
        gone: dict[int, Signature] = {}
        for content, owner in sorted(self.by_content.items(), key=lambda item: item[1].last_used):
            if self._bytes <= _KEPT * most and len(self.by_content) < _KEPT * SIGNATURES:
                break
            self._drop(owner)
            gone[id(owner)] = owner
            del self.by_content[content]
        left: list[_Known] = []
        for key, known in list(self.by_spec.items()):
            if id(known.signature.owner) in gone:
                self._spec_bytes -= known.nbytes
                del self.by_spec[key]
                left.append(known)
        self._freed.add(left, list(gone.values()))

    def _drop(self, owner: Signature) -> None:
        """Count the bytes of a ranking no more, nor those by which it grows where it is still asked: shapes of the
        batch that is being placed may lead to it. O(1)."""
        self._bytes -= owner.own_bytes
        owner.dropped()

    def forget(self) -> None:
        """Drop everything compiled."""
        for owner in self.by_content.values():
            self._drop(owner)
        self.filter_results.clear()
        self.by_content.clear()
        self._clear_specs()
        self._drop_shapes()
        self._bytes = 0
        self.kept_rules.forget()
        self.index = HostIndex(self.fleet._kernel, held_room=HELD_BYTES_PER_HOST * self.fleet._store.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of all rankings, of the index that they search, and of what refusals keep."""
        return self._bytes + self.index.nbytes + self.shapes.nbytes + self.kept_rules.nbytes


def _names_something(spec: RequestSpec) -> bool:
    """True if the spec names hosts or instances, which are looked up row by row."""
    return names_hosts(spec) or any(_named(spec, hint) for hint in INSTANCE_HINTS)


def _named(spec: RequestSpec, hint: str) -> bool:
    """True if a hint names instances; a single empty string counts as no hint."""
    hints = spec.scheduler_hints
    values = hints.get(hint) if isinstance(hints, Mapping) else None  # malformed ones are refused when compiled
    return isinstance(values, (tuple, list)) and bool(values) and tuple(values) != ("",)


def _spec_only(kind: type[Filter | Weigher]) -> bool:
    """``spec_only`` as the class says that has the key, or one derived from it."""
    kind = unguarded(kind)
    said = next(each for each in kind.__mro__ if {"key", "spec_only"} & vars(each).keys())
    return "spec_only" in vars(said) and kind.spec_only
