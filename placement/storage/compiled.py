"""A request compiled against all pools: results and weights of each pool, updated as pools change, and ranked by the
kernel's index. The cost of a decision is proportional to the pools that changed since the last one. Its answers equal
those of ``scan`` for requests that ``rankable`` admits; the others are scanned.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import SOURCE_COLUMN, SOURCE_ROW
from ...ext.ranking import Ranking
from ..types.recently_used import RecentlyUsed
from .by_class import SIGNATURE_BYTES, ClassSignature, PoolIndex, steadiness, steady, wishes_of
from .pools.columns import COLUMN
from .pools.filters.base import FACTS, REQUEST, Rows
from .pools.filters.capacity import CapacityFilter
from .pools.weighers.goodness import GoodnessWeigher

if TYPE_CHECKING:
    from .pools.filter_properties import FilterProperties
    from .pools.filters import PoolFilter
    from .pools.policy import VolumePolicy
    from .pools.pools import Pools

SIGNATURES: Final = 1024
SPECS_BYTES: Final = 64 << 20
"""Memory of specs whose signature is known; those that were used least recently are forgotten."""
SHARED_BYTES: Final = 64 << 20
"""Memory of results of filters that requests share; they are forgotten when it is full."""
FACT_MASK_BYTES: Final = 1 << 10
"""What such a result takes beside a byte a pool."""
"""Compiled requests kept at most; the least recently compiled go first."""
RANKING_BYTES: Final = 2 << 30
"""Bytes that all rankings may hold together."""


CLASS_BYTES: Final = 64 << 20
"""Bytes of compiled requests that classes of pools say all of; those that were used least recently are forgotten."""


def no_chance() -> float:
    """What is drawn where nothing is left to chance."""
    raise AssertionError("a compiled request draws nothing")


def rankable(pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties) -> bool:
    """True if the kernel's index decides as the scan does. O(rules)."""
    return (
        not policy.stochastic
        and not policy.has_own_rules
        and filter_properties.spec.resource_backend is None
        and filter_properties.exists_on is None
        and not any(rule.reads == REQUEST and rule.applies(filter_properties) for rule in policy.filters)
        and all(
            isinstance(weigher, GoodnessWeigher) or weigher.column(pools, filter_properties) is not None
            for weigher in policy.weighers
        )
    )


def content(policy: VolumePolicy, filter_properties: FilterProperties, *, by_functions: bool) -> Hashable:
    """What a compiled request depends on; ``by_functions``: functions of pools may read all of it. O(spec)."""
    spec = filter_properties.spec
    return (
        filter_properties.requested_gb,
        filter_properties.operation,
        spec.thin,
        spec.availability_zones or spec.availability_zone,
        repr(sorted(filter_properties.type_specs.items())),
        repr(sorted(spec.extra_specs.items())),
        spec.scheduler_hints.get("query"),
        spec.attach_status,
        repr((spec.qos_specs, list(filter_properties.properties.items()))) if by_functions else "",
    )


class FactMask:
    """Result of a filter that reads only facts, shared by all requests with the same key."""

    def __init__(self, pools: Pools, rule: PoolFilter, filter_properties: FilterProperties) -> None:
        self._pools, self._rule, self._filter_properties = pools, rule, filter_properties
        self.mask = np.zeros(pools.columns.capacity, np.uint8)
        self._changes_seen = len(pools.changed_rows)
        self._judge(pools.live_rows())

    def refresh(self) -> None:
        """Judge what was reported since. O(reports)."""
        pools = self._pools
        if len(pools.changed_rows) != self._changes_seen:
            rows = np.unique(np.array(pools.changed_rows[self._changes_seen :], np.int32))
            self._changes_seen = len(pools.changed_rows)
            self._judge(rows[pools.columns.live[rows] != 0])

    def _judge(self, rows: Rows) -> None:
        self.mask[rows] = self._rule.passes(self._pools, self._filter_properties, rows)


FactMasks = dict[tuple[str, Hashable], FactMask]
"""By filter and by what it reads of a request."""


class VolumeSignature:
    """One request on one layout of the pools: masks and ratings by row, and the ranking over them."""

    def __init__(
        self, pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties, shared: FactMasks
    ) -> None:
        self.pools, self.policy, self.filter_properties = pools, policy, filter_properties
        self.layout = pools.layout
        self.steadiness = steadiness(pools, policy)
        capacity = pools.columns.capacity
        first = 1  # stage 0 is that of rows that pass
        self.usable = np.zeros(capacity, np.uint8)
        masks: list[tuple[NDArray[np.uint8], int]] = [(self.usable, first)]
        bounds: list[tuple[int, float, float, int]] = []
        self.facts: list[FactMask] = []
        self.capacity_filters: list[tuple[PoolFilter, NDArray[np.uint8]]] = []
        for stage, rule in enumerate(policy.filters, first + 1):
            if not rule.applies(filter_properties):
                continue
            if isinstance(rule, CapacityFilter):
                bounds.append(
                    (COLUMN[rule.column(filter_properties)], float(filter_properties.requested_gb), np.inf, stage)
                )
                continue
            if rule.reads == FACTS or rule.steady(pools):
                self.facts.append(_shared(shared, pools, rule, filter_properties))
                masks.append((self.facts[-1].mask, stage))
                continue
            mask = np.zeros(capacity, np.uint8)
            masks.append((mask, stage))
            self.capacity_filters.append((rule, mask))
        self.ratings: list[tuple[GoodnessWeigher, NDArray[np.float64], NDArray[np.uint8]]] = []
        terms = []
        for stage, weigher in enumerate(policy.weighers, first + 1 + len(policy.filters)):
            if isinstance(weigher, GoodnessWeigher):
                rated, fine = np.zeros(capacity), np.zeros(capacity, np.uint8)
                self.ratings.append((weigher, rated, fine))
                masks.append((fine, stage))
                terms.append({"source": SOURCE_ROW, "values": rated, "multiplier": weigher.multiplier})
            else:
                column = weigher.column(pools, filter_properties)
                assert column is not None
                terms.append({"source": SOURCE_COLUMN, "column": COLUMN[column], "multiplier": weigher.multiplier})
        self.stages = len(policy.filters) + len(policy.weighers) + 3  # passing, report, resource_backend
        pools.classes.refresh()
        self._every = pools.classes.every
        self.ranking = Ranking(pools.columns.kernel, class_stage=self._every, bounds=bounds, masks=masks, terms=terms)
        self._changes_seen = len(pools.changed_rows)
        self.seen = pools.columns.kernel.version
        rows = pools.live_rows()
        self._judge(rows)
        self._follow(rows)

    @property
    def alone(self) -> bool:
        """True if placing volumes changes nothing but columns, so that many can be placed in one kernel call."""
        return not self.capacity_filters and (all(self.steadiness) or not self.ratings)

    @property
    def stale(self) -> bool:
        """True if the rows were rebuilt since it was compiled, or its columns no longer match."""
        pools, filter_properties = self.pools, self.filter_properties
        changed = self.layout != pools.layout or self.steadiness != steadiness(pools, self.policy)
        return changed or not all(
            isinstance(weigher, GoodnessWeigher) or weigher.column(pools, filter_properties) is not None
            for weigher in self.policy.weighers
        )

    def refresh(self) -> None:
        """Catch up with the pools that changed. O(changes)."""
        pools = self.pools
        pools.classes.refresh()
        if self._every is not pools.classes.every:
            self._every = pools.classes.every
            self.ranking.set_class_stage(self._every)
        if len(pools.changed_rows) != self._changes_seen:
            rows = np.unique(np.array(pools.changed_rows[self._changes_seen :], np.int32))
            self._changes_seen = len(pools.changed_rows)
            rows = rows[pools.columns.live[rows] != 0]
            self._judge(rows)
            self._follow(rows)
        if not self.alone:
            kernel = pools.columns.kernel
            changed = kernel.changed(self.seen)
            self.seen = kernel.version
            rows = pools.live_rows() if changed is None else np.unique(changed)
            if len(rows):
                self._follow(rows[pools.columns.live[rows] != 0], facts_changed=False)

    def _judge(self, rows: Rows) -> None:
        """Update the masks of filters that read only facts."""
        pools = self.pools
        self.usable[rows] = [pools.fact(row).problem is None for row in rows.tolist()] if pools.problems else 1
        for each in self.facts:
            each.refresh()

    def _follow(self, rows: Rows, *, facts_changed: bool = True) -> None:
        """Update masks and ratings that depend on capacities of ``rows``; ``facts_changed``: on facts as well."""
        pools, filter_properties = self.pools, self.filter_properties
        for rule, mask in self.capacity_filters:
            at = rows if facts_changed else rule.following(pools, rows)
            mask[at] = rule.passes(pools, filter_properties, at)
        for weigher, rated, fine in self.ratings:
            at = rows if facts_changed else weigher.following(pools, rows)
            raw = weigher.raw(pools, filter_properties, at, no_chance)
            rateable = ~np.isnan(raw)
            fine[at] = rateable
            rated[at] = np.where(rateable, raw, 0.0)


AnySignature = VolumeSignature | ClassSignature


def _shared(shared: FactMasks, pools: Pools, rule: PoolFilter, filter_properties: FilterProperties) -> FactMask:
    key = (rule.name, () if rule.steady(pools) else rule.key(filter_properties))
    found = shared.get(key)
    if found is None:
        found = shared[key] = FactMask(pools, rule, filter_properties)
    found.refresh()
    return found


class CompiledVolumes:
    """Signatures of one fleet's pools under one policy; shared by an engine and its forks."""

    def __init__(self, pools: Pools, policy: VolumePolicy) -> None:
        self.pools, self.policy = pools, policy
        self.by_content: dict[Hashable, VolumeSignature] = {}
        self.by_class: RecentlyUsed[Hashable, ClassSignature] = RecentlyUsed(CLASS_BYTES)
        self.by_spec: RecentlyUsed[tuple[Any, ...], tuple[Any, AnySignature]] = RecentlyUsed(SPECS_BYTES)
        self.index = PoolIndex(pools)
        self.shared: FactMasks = {}
        self.layout = -1

    def known(self, key: tuple[Any, ...], spec: object) -> AnySignature | None:
        """The signature that was compiled for a spec object, if it still holds. O(1)."""
        found = self.by_spec.get(key) or self.by_spec.again(key)
        if found is None or found[0] is not spec or found[1].stale:
            return None
        return found[1]

    def signature(self, key: tuple[Any, ...], filter_properties: FilterProperties) -> AnySignature:
        """The signature of a request, which must be ``rankable``. O(1) if its content is known, else O(classes of
        pools), or O(pools) where a filter judges more than single things that pools report."""
        if self.layout != self.pools.layout:
            self.layout = self.pools.layout
            self.by_content.clear()
            self.by_class.clear()
            self.by_spec.clear()
            self.shared.clear()
            self.index = PoolIndex(self.pools)
        is_steady = not self.policy.has_functions or steady(self.pools, self.policy)
        what = content(self.policy, filter_properties, by_functions=not is_steady)
        spec = filter_properties.spec
        by_class = self._of_classes(what, filter_properties) if is_steady else None
        signature = self._of_rows(what, filter_properties) if by_class is None else by_class
        self.by_spec.keep(key, (spec, signature), spec.nbytes)
        return signature

    def _of_classes(self, what: Hashable, filter_properties: FilterProperties) -> ClassSignature | None:
        """The signature where classes of pools say all; None where they do not."""
        known = self.by_class.get(what) or self.by_class.again(what)
        if known is not None and not known.stale:
            return known
        wishes = wishes_of(self.pools, self.policy, filter_properties)
        if wishes is None:
            return None
        made = ClassSignature(self.index, self.policy, filter_properties, wishes)
        return self.by_class.keep(what, made, SIGNATURE_BYTES) if made.fine else None

    def _of_rows(self, what: Hashable, filter_properties: FilterProperties) -> VolumeSignature:
        signature = self.by_content.pop(what, None)
        if signature is None or signature.stale:
            signature = VolumeSignature(self.pools, self.policy, filter_properties, self.shared)
            self._make_room(signature.ranking.nbytes)
            if len(self.shared) * (FACT_MASK_BYTES + self.pools.columns.rows) > SHARED_BYTES:
                self.shared.clear()
        self.by_content[what] = signature
        return signature

    def _make_room(self, extra: int) -> None:
        total = extra + sum(each.ranking.nbytes for each in self.by_content.values())
        while self.by_content and (total > RANKING_BYTES or len(self.by_content) >= SIGNATURES):
            total -= self.by_content.pop(next(iter(self.by_content))).ranking.nbytes
            self.by_spec.clear()
