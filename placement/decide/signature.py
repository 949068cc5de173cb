"""A request compiled for the kernel: what of a policy and a request spec decides, per host class, per column and per
row.

Equal signatures share one ranking. Nothing here depends on instance uuids, on time, or on which server group it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_A_HOST, SOURCE_PACKING
from ...ext.near_misses import HIDDEN
from ...ext.ranking import HostIndex, Ranking
from ..candidates.for_engine import TreeQuery
from ..filters.adapter import NovaFilterAdapter
from ..filters.base import Filter
from ..filters.numa import NUMATopologyFilter
from ..filters.pci import PciPassthroughFilter
from ..fleet.columns import COLUMN
from ..fleet.derived_column import RowCache
from ..fleet.fleet import Fleet
from ..policy.policy import Policy
from ..policy.rule_checks import bounds_of, fields_of, selection_of
from ..request.host_selection import skips_filters
from ..request.placement_requirements import PlacementRequirements, placement_requirements, service_is_enabled
from ..types.errors import InvalidValue
from ..types.host_classes import STATIC_FIELDS, HostClass
from ..types.request import Request
from ..weighers.base import Weigher
from .compiled_filter import AllOf, ClassResults, FilterResults, TreeResults
from .compiled_weigher import CompiledWeigher, RowValues
from .known_refusals import KnownRefusals

CELL: Final = "cell"
COMPUTE_STATUS: Final = "compute_status"
TRAITS: Final = "traits"
AGGREGATES: Final = "aggregates"
CANDIDATES: Final = "allocation_candidates"
SELECTION: Final = "host_selection"
_CATCH_UP: Final = 16
"""Rows that a search beside set aside rows looks at in the time that a ranking with rows of its own takes for one
change."""
_SOON: Final = 64
"""Changes that a ranking with rows of its own always catches up with."""
_OFTEN: Final = 2
"""Requests in a row that come soon after one another before a ranking of their own is made."""
GROUP_FILTERS: Final = {"ServerGroupAffinityFilter": "affinity", "ServerGroupAntiAffinityFilter": "anti-affinity"}


CandidateJudge: TypeAlias = PciPassthroughFilter | NUMATopologyFilter | NovaFilterAdapter
"""A filter that judges single allocation candidates."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step that may refuse a host: Placement's side of the request, or a filter. ``number`` orders them."""

    number: int
    name: str
    filter: Filter | None = None


class Signature:
    """A compiled request: its stages, its ranking, and what a placed guest takes."""

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        request: Request,
        requirements: PlacementRequirements,
        shared: FilterResults,
        *,
        candidates_given: bool = False,
    ) -> None:
        self.fleet, self.policy, self.request = fleet, policy, request
        self.requirements = requirements
        self._shared = shared
        self.candidates_given = candidates_given
        self.capacity = fleet._store.capacity
        self.epoch = fleet._static_epoch
        self.last_used = 0
        self.refusals = KnownRefusals()
        self.stages: list[Stage] = [Stage(0, "passed")]
        self.resources = {fleet.resource_class(name, create=True): n for name, n in requirements.group.resources}
        flavor = request.flavor
        # Where candidates come from outside, the host state is Nova's for one request: its own estimate of the disk.
        estimate = (flavor.root_gb + flavor.ephemeral_gb) * 1024
        disk_mb = estimate if candidates_given else flavor.local_disk_mb(is_bfv=request.spec.is_bfv)
        self.shape = fleet._shape(self.resources, flavor.vcpus, flavor.memory_mb, disk_mb)
        self.class_judges: list[tuple[int, ClassResults | AllOf]] = []
        """(stage, results by class), in the order of the stages."""
        self.row_judges: list[tuple[Stage, RowCache]] = []
        self.row_values: list[RowValues] = []
        self.selections: list[Stage] = []
        self._classes_seen = 0
        self._class_stage = np.full(64, NOT_A_HOST, np.uint8)
        self.needs: list[tuple[int, int, int, bool]] = []
        self.bounds: list[tuple[int, float, float, int]] = []
        """(column, low, high, stage) of the column-form filters."""
        self._group_stage = {"affinity": 0, "anti-affinity": 0}
        self.complex = not candidates_given and requirements.complex(fleet)
        if not candidates_given:
            self._compile_candidates()
        self.last_candidate_stage = len(self.stages) - 1
        for judge in dict.fromkeys(policy.filters):  # one that is enabled twice refuses the same hosts again
            self._compile_filter(judge, shared)
        self._weighers = [compiled for weigher in policy.weighers for compiled in self._compile_weigher(weigher)]
        self._judge_classes()
        self._words: dict[bool, NDArray[np.int64]] = {}
        self._owner: Signature | None = None
        self._ranking: Ranking | None = None
        self._searched: Ranking | None = None
        self._index: HostIndex | None = None
        self._on_held: Callable[[int], None] | None = None
        self.own_bytes = 0
        """Bytes that are held whatever is asked: what rules say row by row, and the rows of the ranking where it cannot
        search the index."""
        self._asked, self._soon = -1, 0
        """Version of the fleet when the request was asked for last; how often in a row that was soon after."""

    # sharing

    @property
    def content(self) -> tuple[Hashable, ...]:
        """What the ranking is made of, with the results on the host classes known now: equal contents, equal
        rankings."""
        spec = self.request.spec
        return (
            self.shape,
            (self.candidates_given, spec.numa_topology is not None, bool(spec.pci_requests), self.request.is_rebuild),
            self.requirements.query if self.complex else None,
            tuple(self.stage_names),
            tuple(self.needs),
            tuple(self.bounds),
            tuple(stage.number for stage in self.selections),
            self._class_stage[: self._classes_seen].tobytes(),
            tuple((s.number, s.filter.key(self.request)) for s, _ in self.row_judges if s.filter is not None),
            tuple((compiled.weigher.name, compiled.weigher.key(self.request)) for compiled in self._weighers),
        )

    def share(
        self,
        owner: Signature | None,
        index: HostIndex | None = None,
        held: Callable[[int], None] | None = None,
    ) -> None:
        """Use the rankings of ``owner``, whose content is the same; None: make them, which search ``index``. ``held``
        is called with the bytes by which ``own_bytes`` grows as a ranking is made later."""
        if owner is not None:
            # Also what it looks up row by row: only the owner's is kept up to date.
            self._owner, self.row_judges, self.row_values = owner, owner.row_judges, owner.row_values
            return
        self._index, self._on_held = index, held
        by_row = bool(self.row_values) or any(term["source"] == SOURCE_PACKING for term in self.terms)
        if self.row_judges and not by_row and index is not None and not self._shuffles:
            # Row by row only rules refuse: the rows that they refuse can be set aside in a search of the index.
            searched = self._make_ranking(masked=False)
            if not searched.held:
                self._searched, self.own_bytes = searched, self._rows_bytes
                return
        self._hold()

    def dropped(self) -> None:
        """Report bytes of rankings that are made later to none: the cache has dropped this signature."""
        self._on_held = None

    @property
    def _shuffles(self) -> bool:
        return self.policy.options.filter_scheduler.shuffle_best_same_weighed_hosts

    def _hold(self) -> Ranking:
        """Make the ranking that judges by all rules. O(hosts) where it has rows of its own."""
        self._refresh_rows()
        ranking = self._ranking = self._make_ranking(masked=True)
        self.own_bytes = self._rows_bytes + (ranking.nbytes if ranking.held else 0)
        return ranking

    @property
    def _rows_bytes(self) -> int:
        """Bytes of what rules say row by row; what other signatures have too counts for each."""
        caches = [*(cache for _, cache in self.row_judges), *(values.cache for values in self.row_values)]
        return sum(cache.array.nbytes for cache in caches)

    def _make_ranking(self, *, masked: bool) -> Ranking:
        return Ranking(
            self.fleet._kernel,
            class_stage=self._class_stage,
            needs=self.needs,
            bounds=self.bounds,
            masks=[(cache.array, stage.number) for stage, cache in self.row_judges] if masked else (),
            terms=self.terms,
            affinity_stage=self._group_stage["affinity"],
            anti_affinity_stage=self._group_stage["anti-affinity"],
            shuffle=self._shuffles,
            subset=self.policy.options.filter_scheduler.host_subset_size,
            index=self._index,
        )

    def search(self) -> dict[str, Any]:
        """When which of the rankings is to be asked, as ``NestedShape`` takes it. The ranking that judges by all rules
        is None where it was not needed so far. O(hosts) where there is no other, for the first time."""
        owner = self.owner
        if owner._searched is None:
            return {"ranking": owner.ranking}
        return {
            "ranking": owner.ranking if owner._soon > _OFTEN else owner._ranking,
            "searched": owner._searched,
            "stage": owner.row_judges[0][0].number,
            "patience": self.fleet.rows // _CATCH_UP + _SOON,
            "often": _OFTEN,
            "asked": owner._asked,
            "soon": owner._soon,
        }

    def searched_by(self, asked: int, soon: int) -> None:
        """Take over how often a ``NestedShape`` of this request was asked."""
        self.owner._asked, self.owner._soon = asked, soon

    def searched(self) -> Ranking | None:
        """The ranking without the rules that judge row by row, to be asked now with the rows that these refuse set
        aside; None if ``ranking`` is to be asked, which costs less for a request that is asked for often. O(1)."""
        owner, version = self.owner, self.fleet.version
        if owner._searched is None:
            return None
        soon = _CATCH_UP * (version - owner._asked) <= self.fleet.rows + _CATCH_UP * _SOON
        owner._soon = owner._soon + 1 if soon and owner._asked >= 0 else 0
        owner._asked = version
        return None if owner._soon > _OFTEN else owner._searched

    def like(
        self,
        request: Request,
        resources: dict[int, int],
        shape: int,
        needs: list[tuple[int, int, int, bool]],
        class_judges: Sequence[tuple[int, ClassResults | AllOf]],
        class_stage: NDArray[np.uint8],
        ranking: Ranking,
    ) -> Signature:
        """The signature of a request that differs from this one's in amounts and in the host classes that pass alone.
        ``resources``, ``needs``: amounts of the resource classes of this one in their order; ``class_stage``: by class,
        what ``class_judges`` say together; ``ranking``: made for both."""
        other = Signature.__new__(Signature)
        other.__dict__.update(self.__dict__)
        for name in ("requirements", "trees"):
            other.__dict__.pop(name, None)
        other.request, other.resources, other.shape = request, resources, shape
        other.needs, other.class_judges, other._class_stage = needs, list(class_judges), class_stage
        other._words, other._owner, other.refusals = {}, None, KnownRefusals()
        other._ranking, other._searched, other.own_bytes = ranking, None, 0
        return other

    @property
    def owner(self) -> Signature:
        """The signature whose rankings this one uses. Itself it does not store: only a collection would free it."""
        return self._owner if self._owner is not None else self

    @functools.cached_property
    def requirements(self) -> PlacementRequirements:
        """What the request demands of providers."""
        given = self.candidates_given
        return placement_requirements(self.fleet, self.policy, self.request, candidates_given=given)

    @functools.cached_property
    def trees(self) -> TreeQuery:
        """The allocation candidates of the request."""
        return TreeQuery(self.fleet, self.requirements.query)

    @property
    def ranking(self) -> Ranking:
        """The kernel's ranking, shared by all signatures of the same content."""
        owner = self.owner
        if owner._ranking is not None:
            return owner._ranking
        before = owner.own_bytes
        ranking = owner._hold()
        if owner._on_held is not None:
            owner._on_held(owner.own_bytes - before)
        return ranking

    @property
    def classes_known(self) -> int:
        """Host classes that it has judged."""
        return self._classes_seen

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that the signature has for itself, without the ranking."""
        return self._class_stage.nbytes

    # compiling

    def _stage(self, name: str, judge: Filter | None = None) -> Stage:
        if len(self.stages) >= NOT_A_HOST - 1:
            raise InvalidValue("a policy has too many filters", field="enabled_filters")
        stage = Stage(len(self.stages), name, judge)
        self.stages.append(stage)
        return stage

    def _compile_candidates(self) -> None:
        requirements, fleet = self.requirements, self.fleet
        if requirements.cell_uuid is not None:
            self._require((CELL, requirements.cell_uuid), requirements.cell_allows)
        if requirements.needs_enabled:
            self._require((COMPUTE_STATUS,), service_is_enabled)
        if self.complex:
            self.row_judges.append((self._stage(CANDIDATES), TreeResults(fleet, self.trees)))
            return
        query, group = requirements.query, requirements.group
        if requirements.needs_traits:
            roots = query.root_required, query.root_forbidden
            self._require((TRAITS, group.required, group.any_of, group.forbidden, *roots), requirements.traits_allow)
        if requirements.needs_aggregates:
            self._require((AGGREGATES, group.member_of, group.forbidden_aggregates), requirements.aggregates_allow)
        for index, amount in self.resources.items():
            number = self._stage(self.fleet.resource_classes[index]).number
            self.needs.append((index, amount, number, index in self.fleet._unit_rules))

    def _require(self, key: tuple[Any, ...], judge: Callable[[Fleet, HostClass], bool]) -> None:
        """A stage of Placement's side, called ``key[0]``, that judges host classes."""
        self.class_judges.append((self._stage(key[0]).number, self._shared.by_requirement(key, judge)))

    def _compile_filter(self, judge: Filter, shared: FilterResults) -> None:
        request = self.request
        stage = self._stage(judge.name, judge)
        policy_name = GROUP_FILTERS.get(judge.name)
        if policy_name is not None:
            self._group_stage[policy_name] = stage.number
            self.selections.append(stage)
            return
        if (request.is_rebuild and not judge.runs_on_rebuild) or not judge.applies(request):
            return
        if selection_of(judge, request) is not None:
            self.selections.append(stage)
            return
        bounds = bounds_of(judge, request)
        if bounds is not None:
            self.bounds.extend((*bound, stage.number) for bound in bounds)
            if any(column == COLUMN["last_seen_up"] for column, _, _ in bounds):
                self.fleet._services.log_heartbeats()
        elif fields_of(judge, request) <= STATIC_FIELDS:
            self.class_judges.append((stage.number, shared.by_class(judge, request)))
        else:
            self.row_judges.append((stage, shared.by_row(judge, request)))

    def _compile_weigher(self, weigher: Weigher) -> list[CompiledWeigher]:
        request = self.request
        if weigher.group_factor is None and not weigher.applies(request):
            # Every raw value is the same, so every norm is 0.
            return []
        compiled = self._shared.weigher(weigher, request)
        if compiled is None:
            return []
        if compiled.rows is not None:
            self.row_values.append(compiled.rows)
        return [compiled]

    # keeping up

    def _judge_classes(self) -> None:
        count = len(self.fleet._classes)
        if count > len(self._class_stage):
            grown = np.full(2 * count, NOT_A_HOST, np.uint8)
            grown[: len(self._class_stage)] = self._class_stage
            self._class_stage = grown
        new = slice(self._classes_seen, count)
        stage = np.zeros(count - self._classes_seen, np.uint8)
        for number, judge in reversed(self.class_judges):
            stage[~judge.refresh()[new]] = number
        stage[~self._shared.hosts.refresh()[new]] = NOT_A_HOST
        self._class_stage[new] = stage
        self._classes_seen = count
        for compiled in self._weighers:
            compiled.grow()

    def _refresh_rows(self) -> None:
        for _, cache in self.row_judges:
            cache.refresh()
        for values in self.row_values:
            values.cache.refresh()

    @property
    def stale(self) -> bool:
        """True if the signature must be recompiled: the columns moved, or something treated as constant changed."""
        return self.capacity != self.fleet._store.capacity or self.epoch != self.fleet._static_epoch

    @property
    def ranks(self) -> bool:
        """True if the ranking alone can choose for one guest: nothing selects hosts by what they hold but the server
        group."""
        if any(values.errors for values in self.owner.row_values):
            return False
        return not self.candidate_judges and all(stage.name in GROUP_FILTERS for stage in self.selections)

    @functools.cached_property
    def candidate_judges(self) -> tuple[CandidateJudge, ...]:
        """Filters that judge each allocation candidate of a host by its mappings (Nova 33): where candidates came from
        outside, or PCI devices are in Placement."""
        request, spec = self.request, self.request.spec
        in_placement = self.policy.options.filter_scheduler.pci_in_placement and bool(spec.pci_requests)
        if not (self.candidates_given or in_placement) or skips_filters(spec) or request.is_rebuild:
            return ()
        devices = bool(spec.pci_requests)
        cells = spec.numa_topology is not None and bool(spec.numa_topology.cells)
        return tuple(
            judge
            for judge in dict.fromkeys(self.policy.filters)
            if (devices and isinstance(judge, PciPassthroughFilter))
            or (cells and isinstance(judge, NUMATopologyFilter))
            or ((cells or devices) and isinstance(judge, NovaFilterAdapter) and judge.judges_candidates)
        )

    @functools.cached_property
    def simple(self) -> bool:
        """True if the batch kernel alone can decide and claim: no rule needs Python between two decisions."""
        spec = self.request.spec
        extras = spec.numa_topology is not None or bool(spec.pci_requests)
        by_rows = self.row_judges or self.row_values or self.complex or extras
        return not by_rows and all(stage.name in GROUP_FILTERS for stage in self.selections)

    @functools.cached_property
    def stage_names(self) -> list[str]:
        """Names of the stages after 0, in order."""
        return [stage.name for stage in self.stages[1:]]

    def resource_of(self, stage: Stage) -> int | None:
        """Resource class index whose capacity a stage judges; None for other stages."""
        return next((index for index, _, number, _ in self.needs if number == stage.number), None)

    def class_results(self) -> dict[int, NDArray[np.bool_]]:
        """Stage number -> results by host class, for the stages that read only static fields."""
        return {number: judge.refresh() for number, judge in self.class_judges}

    def class_words(self, *, skipped: bool) -> NDArray[np.int64]:
        """Results on host classes together, in the form of the kernel's near misses; ``skipped``: without filters.
        O(classes * stages) where one is new, else O(1)."""
        known = self._words.get(skipped)
        if known is None or len(known) < len(self.fleet._classes):
            known = np.where(self._shared.hosts.refresh(), 0, HIDDEN).astype(np.int64)
            for number, passes in self.class_results().items():
                if number <= self.last_candidate_stage or not skipped:
                    known[~passes] += (1 << 32) + number
            self._words[skipped] = known
        return known

    def disabled_kinds(self) -> NDArray[np.uint8] | None:
        """By host class, 1 where compute services are disabled, 2 where they are forced down too, else 0; None if none
        are disabled. O(classes) where one is new, else O(1)."""
        return self._shared.disabled_kinds()

    def refresh(self) -> None:
        """Bring the row caches up to date. O(changes)."""
        self.owner._refresh_rows()

    def judge_new_classes(self) -> None:
        """Add host classes that are new since the signature was compiled. O(new classes)."""
        self._judge_classes()
        for ranking in (self._ranking, self._searched):
            if ranking is None:
                continue
            ranking.set_class_stage(self._class_stage)
            for position, compiled in enumerate(self._weighers):
                if compiled.grows:
                    ranking.set_class_values(position, compiled.arguments.get("values"), compiled.by_class())

    @property
    def terms(self) -> list[dict[str, Any]]:
        """What the ranking's terms are made of, in order."""
        return [compiled.arguments for compiled in self._weighers]

    @functools.cached_property
    def weigher_names(self) -> list[str]:
        """Names of ``weighers``."""
        return [compiled.weigher.name for compiled in self._weighers]

    @property
    def weighers(self) -> list[Weigher]:
        """Weighers in the order of the ranking's terms; the others add nothing to this request."""
        return [compiled.weigher for compiled in self._weighers]
