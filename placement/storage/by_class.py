"""A request compiled against classes of pools: what its filters say of each class, and a ranking that searches an index
which all such requests share. O(classes) to compile, whatever the number of pools and of volume types."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_A_HOST, SOURCE_COLUMN
from ...ext.ranking import HostIndex, Ranking
from ..types.recently_used import RecentlyUsed
from .pools.columns import COLUMN
from .pools.filters.capacity import CapacityFilter
from .pools.filters.driver import DriverFilter
from .pools.pool_classes import ClassWish
from .pools.weighers.goodness import GoodnessWeigher

if TYPE_CHECKING:
    from .pools.filter_properties import FilterProperties
    from .pools.policy import VolumePolicy
    from .pools.pools import Pools

TEMPLATES: Final = 4096
"""Rankings kept at most that differ in more than what they say of classes; beyond that all are made again."""
RANKINGS_BYTES: Final = 64 << 20
"""Bytes of rankings; those that were used least recently are forgotten."""
STAGES_BYTES: Final = 8 << 20
"""Bytes of what wishes say of classes; what was used least recently is forgotten."""
HELD_BYTES_PER_POOL: Final = 192
"""Bytes that rankings which search the index may spend on rows of their own while they are asked often."""
SIGNATURE_BYTES: Final = 2 << 10
"""What a compiled request takes beside its ranking."""
_RANKING_BYTES: Final = 6 << 10
"""What a ranking takes beside what it says of classes."""
_STAGES_BYTES: Final = 2 << 10
"""What the wishes of a request take beside what they say of classes."""
_CLASS_BYTES: Final = 10
"""What a ranking takes for a class."""

Bounds = tuple[tuple[int, float, float, int], ...]
"""(column, least, greatest, stage) of filters that bound one."""
Terms = tuple[tuple[int, float], ...]
"""(column, multiplier) of weighers."""
Wishes = tuple[int, Sequence[ClassWish]]
"""A stage, and what it wants of things that pools report; there is some."""


class PoolIndex:
    """The index of one fleet's pools, and the rankings that search it by what else they read."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.layout = pools.layout
        room = HELD_BYTES_PER_POOL * pools.columns.capacity
        self._index = HostIndex(pools.columns.kernel, held_room=room)
        self._templates: dict[Hashable, Ranking] = {}
        self._rankings: RecentlyUsed[Hashable, Ranking] = RecentlyUsed(RANKINGS_BYTES)
        """By all that a ranking is made of: volume types that admit the same pools share one."""
        self._stages: RecentlyUsed[Hashable, NDArray[np.uint8]] = RecentlyUsed(STAGES_BYTES)
        self._judged = (-1, -1)
        """Edition and number of the classes that ``_stages`` is of."""

    def ranking(self, bounds: Bounds, terms: Terms, class_stage: NDArray[np.uint8]) -> Ranking | None:
        """A ranking over the index; None if the index cannot be searched for it. O(classes)."""
        key = (bounds, terms, class_stage.tobytes())
        known = self._rankings.get(key) or self._rankings.again(key)
        if known is not None:
            return known
        made = self._template(bounds, terms).judging(class_stage)
        size = _RANKING_BYTES + _CLASS_BYTES * len(class_stage)
        return None if made is None else self._rankings.keep(key, made, size)

    def class_stage(self, wishes: Sequence[Wishes]) -> NDArray[np.uint8]:
        """By class of pools, the first stage whose wishes it does not have, uint8[classes]; not to be changed. Volume
        types mostly want what others do. O(wishes), or O(wishes * classes) for those that are new."""
        classes = self.pools.classes
        state = classes.edition, classes.count
        if state != self._judged:
            self._stages.clear()
            self._judged = state
        key = tuple([(number, tuple([(wish.key, wish.wish) for wish in wanted])) for number, wanted in wishes])
        known = self._stages.get(key)
        if known is None:
            known = self._stages.again(key)
        if known is not None:
            return known
        stage = np.zeros(classes.count, np.uint8)
        for number, wanted in reversed(wishes):
            passing = classes.passing(wanted[0])
            for wish in wanted[1:]:
                passing &= classes.passing(wish)
            np.putmask(stage, ~passing, number)
        stage[0] = NOT_A_HOST
        return self._stages.keep(key, stage, len(stage) + _STAGES_BYTES)

    def _template(self, bounds: Bounds, terms: Terms) -> Ranking:
        template = self._templates.get((bounds, terms))
        if template is None:
            if len(self._templates) >= TEMPLATES:
                self._templates.clear()
            template = self._templates[bounds, terms] = Ranking(
                self.pools.columns.kernel,
                class_stage=self.pools.classes.every,
                bounds=bounds,
                terms=[{"source": SOURCE_COLUMN, "column": column, "multiplier": by} for column, by in terms],
                index=self._index,
            )
        return template


class ClassSignature:
    """One request on one layout of the pools, all of whose filters judge classes or bound a column."""

    alone: Final = True
    """Placing volumes changes nothing but columns, so that many can be placed in one kernel call."""

    def __init__(
        self, index: PoolIndex, policy: VolumePolicy, filter_properties: FilterProperties, wishes: list[Wishes]
    ) -> None:
        """Where functions of pools are ``steady``."""
        self.pools, self.policy = index.pools, policy
        self.layout = index.layout
        self._wishes = wishes
        self._columns = [
            None if isinstance(weigher, GoodnessWeigher) else (weigher, filter_properties)
            for weigher in policy.weighers
        ]
        self.stages = len(policy.filters) + len(policy.weighers) + 3  # passing, report, resource_backend
        self._index = index
        self._bounds, self._terms = _bounds(policy, filter_properties), _terms(self.pools, policy, filter_properties)
        self._judge()

    @property
    def fine(self) -> bool:
        """True if the index can be searched for it."""
        return self._ranking is not None

    @property
    def ranking(self) -> Ranking:
        """What decides."""
        assert self._ranking is not None
        return self._ranking

    @property
    def stale(self) -> bool:
        """True if the rows were rebuilt since it was compiled, or its columns no longer match."""
        pools, policy = self.pools, self.policy
        if self.layout != pools.layout or (policy.has_functions and not steady(pools, policy)):
            return True
        return any(each is not None and each[0].column(pools, each[1]) is None for each in self._columns)

    def refresh(self) -> None:
        """Catch up with what was reported. O(reports), and O(classes) where there are new ones."""
        classes = self.pools.classes
        classes.refresh()
        if (classes.edition, classes.count) != (self._edition, self._count):
            self._judge()

    def _judge(self) -> None:
        """Find by class the first stage that refuses it, and the ranking that says so. O(classes)."""
        classes = self.pools.classes
        classes.refresh()
        self._edition, self._count = classes.edition, classes.count
        self._ranking = self._index.ranking(self._bounds, self._terms, self._index.class_stage(self._wishes))


def steady(pools: Pools, policy: VolumePolicy) -> bool:
    """True if what functions of pools say is the same for all requests, whatever is placed, until pools report again.
    O(changes)."""
    return all(steadiness(pools, policy))


def steadiness(pools: Pools, policy: VolumePolicy) -> tuple[bool, bool]:
    """The same of filter functions, and of goodness functions. O(changes)."""
    by_filter = all(rule.steady(pools) for rule in policy.filters if isinstance(rule, DriverFilter))
    return by_filter, all(each.steady(pools) for each in policy.weighers if isinstance(each, GoodnessWeigher))


def wishes_of(pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties) -> list[Wishes] | None:
    """What all filters of a request want of single things that pools report, by stage; None if one judges otherwise.
    O(spec)."""
    wishes: list[Wishes] = [(1, (_usable(pools),))]
    for stage, rule in enumerate(policy.filters, 2):
        if isinstance(rule, CapacityFilter) or not rule.applies(filter_properties):
            continue
        wanted = rule._class_wishes(pools, filter_properties)
        if wanted is None:
            return None
        if wanted:
            wishes.append((stage, wanted))
    for stage, weigher in enumerate(policy.weighers, 2 + len(policy.filters)):
        if isinstance(weigher, GoodnessWeigher):
            if not weigher.steady(pools):
                return None
            wishes.append((stage, (weigher.class_wish(pools),)))
    return wishes if pools.classes.add([wish for _, wanted in wishes for wish in wanted]) else None


def _usable(pools: Pools) -> ClassWish:
    return ClassWish(("usable",), lambda rows: [pools.fact(row).problem is None for row in rows.tolist()], True, bool)


def _bounds(policy: VolumePolicy, filter_properties: FilterProperties) -> Bounds:
    return tuple(
        [
            (COLUMN[rule.column(filter_properties)], float(filter_properties.requested_gb), np.inf, stage)
            for stage, rule in enumerate(policy.filters, 2)
            if isinstance(rule, CapacityFilter) and rule.applies(filter_properties)
        ]
    )


def _terms(pools: Pools, policy: VolumePolicy, filter_properties: FilterProperties) -> Terms:
    terms: list[tuple[int, float]] = []
    for weigher in policy.weighers:
        if isinstance(weigher, GoodnessWeigher):
            column = weigher.steady_column(pools)
        else:
            name = weigher.column(pools, filter_properties)
            assert name is not None
            column = COLUMN[name]
        terms.append((column, weigher.multiplier))
    return tuple(terms)
