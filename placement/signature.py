"""A request compiled for the kernel: what of a policy and a request spec decides, per host class, per column and per
row.

Equal signatures share one ranking. Nothing here depends on instance uuids, on time, or on which server group it is.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..ext.constants import NOT_A_HOST, SOURCE_CLASS, SOURCE_COLUMN, SOURCE_GROUP, SOURCE_ROW
from ..ext.ranking import Ranking
from .candidates import TreeQuery
from .columns import COLUMN
from .demands import Demands
from .errors import HostlerError, InvalidValue
from .filters.base import Filter
from .fleet import Fleet
from .host_classes import STATIC_FIELDS, HostClass
from .policy import Policy
from .request import Request
from .row_cache import RowCache
from .rule_check import bounds_of, column_of, fields_of, finite_number, raw_values, selection_of, verdicts
from .view import ClassView, FleetView, HostView
from .weighers.base import Weigher

CELL: Final = "cell"
TRAITS: Final = "traits"
AGGREGATES: Final = "aggregates"
CANDIDATES: Final = "allocation_candidates"
SELECTION: Final = "host_selection"
GROUP_WEIGHERS: Final = {"ServerGroupSoftAffinityWeigher": 1.0, "ServerGroupSoftAntiAffinityWeigher": -1.0}
GROUP_FILTERS: Final = {"ServerGroupAffinityFilter": "affinity", "ServerGroupAntiAffinityFilter": "anti-affinity"}


@dataclass(frozen=True, slots=True)
class Stage:
    """One step that may refuse a host: Placement's side of the request, or a filter. ``number`` orders them."""

    number: int
    name: str
    filter: Filter | None = None


class ClassVerdicts:
    """What one filter says of each host class, judged once per class."""

    def __init__(self, fleet: Fleet, judge: Filter, request: Request) -> None:
        self.fleet, self.judge, self.request = fleet, judge, request
        self.passes: list[bool] = []

    def refresh(self) -> list[bool]:
        """Verdicts for all classes known now. O(new classes)."""
        classes = self.fleet.classes.values
        for host_class in classes[len(self.passes) :]:
            verdict = host_class.is_host and self.judge.host_passes(ClassView(self.fleet, host_class), self.request)
            self.passes.append(bool(verdict))
        return self.passes


def row_verdicts(fleet: Fleet, judge: Filter, request: Request) -> RowCache:
    """A filter's verdicts row by row: its mask form where it has one, else its host form on each host."""

    def evaluate(rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        mask = judge.mask(FleetView(fleet, rows), request)
        if mask is None:
            hosts = (HostView(fleet, int(row)) for row in rows)
            passes = [host._class.is_host and bool(judge.host_passes(host, request)) for host in hosts]
            return np.array(passes, np.uint8)
        return verdicts(judge, mask, len(rows))

    return RowCache(fleet, np.uint8, evaluate)


def tree_verdicts(fleet: Fleet, asked: TreeQuery) -> RowCache:
    """Whether each row's provider tree has an allocation candidate, for queries that one provider alone does not
    settle."""

    def evaluate(rows: NDArray[np.int32]) -> NDArray[np.uint8]:
        return asked.having(rows).astype(np.uint8)

    return RowCache(fleet, np.uint8, evaluate, whole_trees=True)


class RowValues:
    """A weigher's raw values row by row, and the rows for which it raised."""

    def __init__(self, fleet: Fleet, weigher: Weigher, request: Request) -> None:
        self.weigher, self.request, self.fleet = weigher, request, fleet
        self.errors: dict[int, HostlerError] = {}
        self.cache = RowCache(fleet, np.float64, self._evaluate)

    def _evaluate(self, rows: NDArray[np.int32]) -> NDArray[np.float64]:
        weigher, raw = self.weigher, np.zeros(len(rows), np.float64)
        values = weigher.values(FleetView(self.fleet, rows), self.request)
        if values is not None:
            return self._vectorised(rows, raw_values(weigher, values, len(rows)))
        for position, row in enumerate(rows.tolist()):
            self.errors.pop(row, None)
            host = HostView(self.fleet, row)
            if not host._class.is_host:
                continue
            try:
                raw[position] = finite_number(weigher, "raw value", weigher.raw(host, self.request))
            except HostlerError as error:
                self.errors[row] = error
        return raw

    def _vectorised(self, rows: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """``values`` as they are for hosts; what is said of other rows is ignored."""
        finite, hosts = np.isfinite(values), self.fleet.is_host[rows]
        for row in rows.tolist() if self.errors else ():
            self.errors.pop(row, None)
        for position in np.flatnonzero(hosts & ~finite).tolist():
            try:
                finite_number(self.weigher, "raw value", float(values[position]))
            except InvalidValue as error:
                self.errors[int(rows[position])] = error
        return np.where(hosts & finite, values, 0.0)


class Signature:
    """A compiled request: its stages, its ranking, and what a placed guest takes."""

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        request: Request,
        demands: Demands,
        shared: SharedVerdicts,
        *,
        candidates_given: bool = False,
    ) -> None:
        self.fleet, self.policy, self.request, self.demands = fleet, policy, request, demands
        self._shared = shared
        self.candidates_given = candidates_given
        self.capacity = fleet.store.capacity
        self.epoch = fleet.static_epoch
        self.last_used = 0
        self.stages: list[Stage] = [Stage(0, "passed")]
        self.resources = {fleet.resource_class(name, create=True): n for name, n in demands.group.resources}
        flavor = request.flavor
        disk_mb = (flavor.root_gb + flavor.ephemeral_gb) * 1024
        self.shape = fleet.shape(self.resources, flavor.vcpus, flavor.memory_mb, disk_mb)
        self.class_judges: list[tuple[int, Any]] = []
        self.row_judges: list[tuple[Stage, RowCache]] = []
        self.row_values: list[RowValues] = []
        self.selections: list[Stage] = []
        self._classes_seen = 0
        self._class_stage = np.full(64, NOT_A_HOST, np.uint8)
        self.needs: list[tuple[int, int, int, bool]] = []
        self.bounds: list[tuple[int, float, float, int]] = []
        """(column, low, high, stage) of the column-form filters."""
        self._group_stage = {"affinity": 0, "anti-affinity": 0}
        self.complex = not candidates_given and demands.complex(fleet)
        self.trees = TreeQuery(fleet, demands.query)
        if not candidates_given:
            self._compile_candidates()
        self.last_candidate_stage = len(self.stages) - 1
        for judge in policy.filters:
            self._compile_filter(judge, shared)
        self._terms = [term for weigher in policy.weighers for term in self._compile_weigher(weigher)]
        self._judge_classes()
        self.owner = self
        self._ranking: Ranking | None = None

    # sharing

    @property
    def content(self) -> tuple[Hashable, ...]:
        """What the ranking is made of, with the verdicts on the host classes known now: equal contents, equal
        rankings."""
        spec = self.request.spec
        return (
            self.shape,
            (self.candidates_given, spec.numa_topology is not None, bool(spec.pci_requests), self.request.is_rebuild),
            self.demands.query if self.complex else None,
            tuple(self.stage_names),
            tuple(self.needs),
            tuple(self.bounds),
            tuple(stage.number for stage in self.selections),
            self._class_stage[: self._classes_seen].tobytes(),
            tuple((s.number, s.filter.key(self.request)) for s, _ in self.row_judges if s.filter is not None),
            tuple((term.weigher.name, term.weigher.key(self.request)) for term in self._terms),
        )

    def share(self, owner: Signature | None) -> None:
        """Use the ranking of ``owner``, whose content is the same; None: make one."""
        if owner is not None:
            # Also what it looks up row by row: only the owner's is kept up to date.
            self.owner, self.row_judges, self.row_values = owner, owner.row_judges, owner.row_values
            return
        self._refresh_rows()
        self._ranking = Ranking(
            self.fleet.kernel,
            class_stage=self._class_stage,
            needs=self.needs,
            bounds=self.bounds,
            masks=[(cache.array, stage.number) for stage, cache in self.row_judges],
            terms=[term.arguments for term in self._terms],
            affinity_stage=self._group_stage["affinity"],
            anti_affinity_stage=self._group_stage["anti-affinity"],
        )

    @property
    def ranking(self) -> Ranking:
        """The kernel's ranking, shared by all signatures of the same content."""
        ranking = self.owner._ranking
        assert ranking is not None
        return ranking

    # compiling

    def _stage(self, name: str, judge: Filter | None = None) -> Stage:
        if len(self.stages) >= NOT_A_HOST - 1:
            raise InvalidValue("a policy has too many filters", field="enabled_filters")
        stage = Stage(len(self.stages), name, judge)
        self.stages.append(stage)
        return stage

    def _compile_candidates(self) -> None:
        demands, fleet = self.demands, self.fleet
        if demands.cell_uuid is not None:
            self.class_judges.append((self._stage(CELL).number, demands.cell_allows))
        if self.complex:
            self.row_judges.append((self._stage(CANDIDATES), tree_verdicts(fleet, self.trees)))
            return
        if demands.needs_traits:
            self.class_judges.append((self._stage(TRAITS).number, demands.traits_allow))
        if demands.needs_aggregates:
            self.class_judges.append((self._stage(AGGREGATES).number, demands.aggregates_allow))
        for index, amount in self.resources.items():
            number = self._stage(self.fleet.resource_classes[index]).number
            self.needs.append((index, amount, number, index in self.fleet.unit_rules))

    def _compile_filter(self, judge: Filter, shared: SharedVerdicts) -> None:
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
        elif fields_of(judge, request) <= STATIC_FIELDS:
            self.class_judges.append((stage.number, shared.by_class(judge, request)))
        else:
            self.row_judges.append((stage, shared.by_row(judge, request)))

    def _compile_weigher(self, weigher: Weigher) -> list[Term]:
        request = self.request
        if weigher.name not in GROUP_WEIGHERS and not weigher.applies(request):
            # Every raw value is the same, so every norm is 0.
            return []
        term = Term(self.fleet, weigher, request, self._shared.multipliers(weigher))
        if term.adds_nothing():
            return []
        if term.rows is not None:
            self.row_values.append(term.rows)
        return [term]

    # keeping up

    def _judge_classes(self) -> None:
        classes = self.fleet.classes.values
        verdicts = [
            (number, judge.refresh() if isinstance(judge, ClassVerdicts) else None, judge)
            for number, judge in self.class_judges
        ]
        if len(classes) > len(self._class_stage):
            grown = np.full(2 * len(classes), NOT_A_HOST, np.uint8)
            grown[: len(self._class_stage)] = self._class_stage
            self._class_stage = grown
        for index in range(self._classes_seen, len(classes)):
            self._class_stage[index] = self._class_verdict(index, classes[index], verdicts)
        self._classes_seen = len(classes)
        for term in self._terms:
            term.grow()

    def _class_verdict(self, index: int, host_class: HostClass, verdicts: list[Any]) -> int:
        if not host_class.is_host:
            return NOT_A_HOST
        for number, passes, judge in verdicts:
            if not (passes[index] if passes is not None else judge(self.fleet, host_class)):
                return int(number)
        return 0

    def _refresh_rows(self) -> None:
        for _, cache in self.row_judges:
            cache.refresh()
        for values in self.row_values:
            values.cache.refresh()

    @property
    def stale(self) -> bool:
        """True if the signature must be compiled anew: the columns moved, or something that was taken as constant
        changed."""
        return self.capacity != self.fleet.store.capacity or self.epoch != self.fleet.static_epoch

    @property
    def ranks(self) -> bool:
        """True if the ranking alone can choose for one guest: nothing selects hosts by what they hold but the server
        group."""
        if any(values.errors for values in self.owner.row_values):
            return False
        return all(stage.name in GROUP_FILTERS for stage in self.selections)

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

    def class_verdicts(self) -> dict[int, NDArray[np.bool_]]:
        """Stage number -> verdict by host class, for the stages that judge static fields."""
        classes = self.fleet.classes.values
        found = {}
        for number, judge in self.class_judges:
            if isinstance(judge, ClassVerdicts):
                found[number] = np.array(judge.refresh(), bool)
            else:
                found[number] = np.array([value.is_host and judge(self.fleet, value) for value in classes], bool)
        return found

    def growth(self, column: int) -> int:
        """What one more guest adds to a host column that a filter bounds."""
        return 1 if column in (COLUMN["num_instances"], COLUMN["num_io_ops"]) else 0

    def refresh(self) -> None:
        """Bring the row caches up to date. O(changes)."""
        self.owner._refresh_rows()

    def judge_new_classes(self) -> None:
        """Take in host classes that came since the signature was compiled. O(new classes)."""
        self._judge_classes()
        if self._ranking is not None:
            self._ranking.set_class_stage(self._class_stage)
            for position, term in enumerate(self._terms):
                if term.grows:
                    self._ranking.set_class_values(position, term.arguments.get("values"), term.by_class())

    @functools.cached_property
    def weigher_names(self) -> list[str]:
        """Names of ``weighers``."""
        return [term.weigher.name for term in self._terms]

    @property
    def weighers(self) -> list[Weigher]:
        """Weighers in the order of the ranking's terms; the others add nothing to this request."""
        return [term.weigher for term in self._terms]


class Term:
    """One weigher compiled: where its raw value comes from, and its multiplier by host class."""

    def __init__(
        self, fleet: Fleet, weigher: Weigher, request: Request, by_aggregates: dict[tuple[int, ...], float]
    ) -> None:
        """``by_aggregates``: the weigher's multipliers by a host's aggregates, as far as they are known; shared."""
        self.fleet, self.weigher, self.request = fleet, weigher, request
        self._by_aggregates = by_aggregates
        self.rows: RowValues | None = None
        self._multiplier = finite_number(weigher, "multiplier", weigher.multiplier())
        self._multipliers: list[float] = []
        self._values: list[float] = []
        self._per_class = False
        self.arguments: dict[str, Any] = {"minval": weigher.minval, "multiplier": self._multiplier}
        self._find_source()
        self._read_multipliers()

    def _find_source(self) -> None:
        weigher, request = self.weigher, self.request
        factor = GROUP_WEIGHERS.get(weigher.name)
        column = weigher.column(request) if factor is None else None
        if factor is not None:
            self.arguments.update(source=SOURCE_GROUP, group_factor=factor)
        elif column is not None:
            # These two change only by edits that also have every signature compiled anew.
            steady = column in ("hypervisor_version", "failed_builds")
            self.arguments.update(source=SOURCE_COLUMN, column=column_of(weigher, column), steady=steady)
        elif fields_of(weigher, request) <= STATIC_FIELDS:
            self.arguments.update(source=SOURCE_CLASS, values=np.zeros(64))
        else:
            self.rows = RowValues(self.fleet, weigher, request)
            self.arguments.update(source=SOURCE_ROW, values=self.rows.cache.array)

    def _read_multipliers(self) -> None:
        """Multipliers by class, kept only if an aggregate of some class sets one."""
        for host_class in self.fleet.classes.values[len(self._multipliers) :]:
            value = self._multiplier
            if host_class.is_host and host_class.aggregates:
                known = self._by_aggregates.get(host_class.aggregates)
                if known is None:
                    known = self.weigher.host_multiplier(ClassView(self.fleet, host_class))
                    known = finite_number(self.weigher, "multiplier", known)
                    self._by_aggregates[host_class.aggregates] = known
                value = known
            self._multipliers.append(value)
        self._per_class = any(value != self._multiplier for value in self._multipliers)
        if self._per_class:
            array, least, greatest = self.by_class() or (None, 0.0, 0.0)
            self.arguments.update(multipliers=array, least_multiplier=least, greatest_multiplier=greatest)

    def by_class(self) -> tuple[NDArray[np.float64], float, float] | None:
        """(multiplier by class, least, greatest), or None where all are the configured one."""
        if not self._per_class:
            return None
        return np.array(self._multipliers), min(self._multipliers), max(self._multipliers)

    @property
    def grows(self) -> bool:
        """True if something of the term is held per host class."""
        return self._per_class or self.arguments["source"] == SOURCE_CLASS

    def grow(self) -> None:
        """Take in host classes that are new since the last call."""
        known = len(self._values)
        self._read_multipliers()
        if self.arguments["source"] != SOURCE_CLASS:
            return
        for host_class in self.fleet.classes.values[known:]:
            raw = self.weigher.raw(ClassView(self.fleet, host_class), self.request) if host_class.is_host else 0.0
            self._values.append(finite_number(self.weigher, "raw value", raw))
        self.arguments["values"] = np.array([*self._values, 0.0])

    def adds_nothing(self) -> bool:
        """True if no host's score can depend on the weigher as things stand; the fleet's static epoch tells when that
        may change."""
        if not self._per_class and self._multiplier == 0.0:
            # A rule of rows may still refuse the request by raising.
            return self.rows is None
        column = self.arguments.get("column")
        if column == COLUMN["pci_weight"]:
            return not self.fleet.has_pci
        if column in (COLUMN["hypervisor_version"], COLUMN["failed_builds"]):
            values = self.fleet.store.host[column, : self.fleet.rows][self.fleet.is_host]
            return len(values) == 0 or bool(values.min() == values.max())
        return False


class SharedVerdicts:
    """Verdicts of filters, shared by the signatures whose requests look alike to a filter."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._classes: dict[Hashable, ClassVerdicts] = {}
        self._rows: dict[Hashable, RowCache] = {}
        self._multipliers: dict[str, dict[tuple[int, ...], float]] = {}

    def clear(self) -> None:
        """Forget everything: the columns moved, or aggregates changed."""
        self._classes.clear()
        self._rows.clear()
        self._multipliers.clear()

    def multipliers(self, weigher: Weigher) -> dict[tuple[int, ...], float]:
        """A weigher's multipliers by a host's aggregates, to be filled as they are asked for."""
        return self._multipliers.setdefault(weigher.name, {})

    def by_class(self, judge: Filter, request: Request) -> ClassVerdicts:
        key = (judge.name, judge.key(request))
        found = self._classes.get(key)
        if found is None:
            found = self._classes[key] = ClassVerdicts(self.fleet, judge, request)
        return found

    def by_row(self, judge: Filter, request: Request) -> RowCache:
        key = (judge.name, judge.key(request))
        found = self._rows.get(key)
        if found is None:
            found = self._rows[key] = row_verdicts(self.fleet, judge, request)
        return found
