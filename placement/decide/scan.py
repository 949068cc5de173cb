"""One request through Nova's whole pipeline over all its hosts: candidates, host selection, filters, weighers, claims.

This is the scan: every rule is looked at for every host. Engine.place takes the ranked way where both must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_A_HOST
from ...ext.draws import Draws
from ..fleet.fleet import Fleet
from ..numa.usage import settled
from ..request.host_selection import names_hosts, selected, skips_filters
from ..types.decision import Alternate, Decision, ScorePart, Selection
from ..types.errors import InvalidValue
from ..types.request import Request
from ..types.validation import shown
from .claim import Allocations, Claimed, allocations_of, extras_for, forgotten
from .compiled_filter import row_results
from .explain.refusals import refusal
from .group_state import group_state
from .signature import GROUP_FILTERS, SELECTION, Signature, Stage

if TYPE_CHECKING:
    from .engine import Engine

ClaimHook = Callable[[str, str, Mapping[str, Mapping[str, int]]], bool]
"""Called with (instance uuid, provider uuid, allocations); False if the claim failed and the next host is to be
tried."""

SELECTED_OUT: Final = 254
"""Verdict of hosts that the request's named hosts exclude."""


@dataclass(slots=True)
class Ranked:
    """Hosts that passed, best first, and what became of the others.

    ``refusing_stages`` holds for each of the ``considered`` rows the number of the stage that refused it, 0 if it
    passed, SELECTED_OUT if host selection excluded it.
    """

    signature: Signature
    considered: NDArray[np.int32]
    refusing_stages: NDArray[np.uint8]
    rows: NDArray[np.int32]
    weights: NDArray[np.float64]
    removed: dict[str, int] = field(default_factory=dict)
    filters_skipped: bool = False
    scheduling: Scheduling | None = None


class Scheduling:
    """The run of one request. ``candidates``: provider uuid -> its allocation requests, as Placement returned them;
    hosts that are not named are no candidates, hosts with an empty list are weighed and never claimed. None: the
    engine's own candidates."""

    def __init__(
        self,
        engine: Engine,
        request: Request,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        claim: ClaimHook | None = None,
    ) -> None:
        if claim is not None and not callable(claim):
            raise InvalidValue(f"claim must be a function, got {shown(claim)}", field="claim")
        self.engine, self.fleet, self.request, self.claim = engine, engine.fleet, request, claim
        self.candidates = None if candidates is None else _by_row(self.fleet, candidates)
        self.signature = engine.signature(request, candidates_given=candidates is not None)
        self.group = group_state(self.fleet, request)
        self.claims: list[tuple[str, str, bool]] = []
        self._settled = False
        self._instance = request.instance_uuids[0]
        """The instance that is being placed; while alternates are sorted, the last one."""

    # ranking

    def rank(self) -> Ranked:
        """Filter and weigh all hosts for the request's first instance. O(hosts)."""
        signature, spec = self.signature, self.request.spec
        signature.refresh()
        stages = signature.ranking.stages()
        considered = self._considered(stages)
        refusing = stages[considered]
        last = signature.last_candidate_stage
        skipped = skips_filters(spec)
        if names_hosts(spec):
            keep = selected(self.fleet, spec, considered)
            refusing[~keep & _not_before(refusing, last)] = SELECTED_OUT
        if skipped:
            refusing[(refusing > last) & (refusing < SELECTED_OUT)] = 0
        else:
            for stage in self.selections:
                refused = ~self.selection_passes(stage, considered)
                refusing[refused & _not_before(refusing, stage.number)] = stage.number
        rows = considered[refusing == 0]
        rows, weights = self._weigh(rows)
        return Ranked(signature, considered, refusing, rows, weights, self._removed(refusing), skipped, self)

    def _considered(self, stages: NDArray[np.uint8]) -> NDArray[np.int32]:
        if self.candidates is None:
            return np.flatnonzero(stages != NOT_A_HOST).astype(np.int32)
        considered = np.array(sorted(self.candidates), np.int32)
        return considered[stages[considered] != NOT_A_HOST] if len(considered) else considered

    def _removed(self, refusing: NDArray[np.uint8]) -> dict[str, int]:
        counts = np.bincount(refusing, minlength=256)
        removed = {}
        for stage in self.signature.stages[1:]:
            if stage.number == self.signature.last_candidate_stage + 1 and names_hosts(self.request.spec):
                removed[SELECTION] = int(counts[SELECTED_OUT])
            removed[stage.name] = int(counts[stage.number])
        if names_hosts(self.request.spec):
            removed.setdefault(SELECTION, int(counts[SELECTED_OUT]))
        return removed

    @property
    def selections(self) -> list[Stage]:
        """The filters in selection form that judge the request."""
        stages = self.signature.selections
        return [stage for stage in stages if _on_rebuild(stage)] if self.request.is_rebuild else stages

    def selection_passes(self, stage: Stage, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of ``rows`` pass a filter in selection form."""
        assert stage.filter is not None
        if stage.name in GROUP_FILTERS:
            return self._group_passes(stage.name, rows)
        choice = stage.filter.selection(self.request)
        if choice is None:
            return np.ones(len(rows), bool)
        holding: dict[int, int] = {}
        for uuid in choice.instances:
            for row in self.engine.rows_holding(uuid):
                holding[row] = holding.get(row, 0) + 1
        named = {row for row, count in holding.items() if count >= choice.at_least}
        for host in choice.hosts:
            named.update(self.fleet.rows_of_service_host(host))
        found = np.isin(rows, np.array(sorted(named), np.int32))
        return found if choice.keep else ~found

    def _group_passes(self, name: str, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Nova 33 ServerGroupAffinityFilter and ServerGroupAntiAffinityFilter."""
        group = self.group
        if group is None or group.policy != GROUP_FILTERS[name]:
            return np.ones(len(rows), bool)
        if group.policy == "affinity":
            return np.isin(rows, np.array(sorted(group.hosts), np.int32)) if group.placed else np.ones(len(rows), bool)
        full = {row for row, members in group.members.items() if members >= group.at_most}
        full -= set(self.engine.rows_holding(self._instance))
        return ~np.isin(rows, np.array(sorted(full), np.int32))

    def members(self, rows: NDArray[np.int32]) -> NDArray[np.float64] | None:
        """Members of the request's soft group on each row, negative for soft-anti-affinity, for the group weighers."""
        if self.group is None or not self.group.policy.startswith("soft"):
            return None
        held, sign = self.group.members, 1.0 if self.group.policy == "soft-affinity" else -1.0
        members = np.zeros(len(rows), np.float64)
        for position in np.flatnonzero(np.isin(rows, np.fromiter(held, np.int32, len(held)))).tolist():
            members[position] = sign * held[int(rows[position])]
        return members

    def _weigh(self, rows: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """``rows`` and their weights, best first; equal weights keep the order they came in."""
        self._raise_missing(rows)
        weights = self.signature.ranking.score_rows(rows, self.members(rows))
        order = np.argsort(-weights, kind="stable")
        return rows[order], weights[order]

    def _raise_missing(self, rows: NDArray[np.int32]) -> None:
        """A weigher that could not value a passing host fails the request (Nova 33 MetricsWeigher)."""
        if len(rows) <= 1:
            return
        for values in self.signature.row_values:
            for row in rows if values.errors else ():
                error = values.errors.get(int(row))
                if error is not None:
                    raise error

    # placing

    def place(self) -> Decision:
        """Claim a host for every instance, all or nothing."""
        engine, request = self.engine, self.request
        ranked = self.rank()
        draws = Draws(engine.decision_seed())
        uuids = request.instance_uuids
        start = self.fleet.history.hold()
        rows, weights = self._choose_first(ranked.rows, ranked.weights, draws)
        made: list[tuple[Claimed, NDArray[np.int32], NDArray[np.float64], tuple[ScorePart, ...]]] = []
        try:
            for index, uuid in enumerate(uuids):
                self._instance = uuid
                if index > 0:
                    rows, weights = self._again(rows, draws)
                claimed = self._claim_first(uuid, rows, weights)
                if claimed is None:
                    break
                made.append((claimed, rows, weights, claimed.parts))
            if len(made) < len(uuids):
                self._clean_up(made)
                self.fleet.history.go(start)
                return self._refused(ranked, len(made))
            return self._decision(ranked, made, draws)
        except BaseException:
            self.fleet.history.go(start)
            raise

    def refuse(self) -> Decision:
        """The refusal of a request that is known to have no host, with what would help. O(hosts)."""
        return self._refused(self.rank(), 0)

    def _choose_first(
        self, rows: NDArray[np.int32], weights: NDArray[np.float64], draws: Draws
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Nova 33 ``_get_sorted_hosts``: shuffle the equal best if asked, then one of the first ``host_subset_size``
        to the front."""
        options = self.engine.policy.options.filter_scheduler
        if len(rows) == 0 or not self.engine.draws:
            return rows, weights
        ties = np.count_nonzero(weights == weights[0]) if options.shuffle_best_same_weighed_hosts else 1
        order = draws.order(len(rows), int(ties), options.host_subset_size)
        return rows[order], weights[order]

    def _again(self, rows: NDArray[np.int32], draws: Draws) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """For a further instance: the filters that judge every instance, over what survived, then weigh anew (Nova
        33)."""
        self.signature.refresh()
        self.signature.ranking.refresh()
        rows = rows[self._still_passes(rows)]
        rows, weights = self._weigh(rows)
        return self._choose_first(rows, weights, draws)

    def _still_passes(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        keep = np.ones(len(rows), bool)
        if skips_filters(self.request.spec):
            return keep
        signature = self.signature
        for stage, cache in signature.row_judges:
            if stage.filter is None or stage.filter.once_per_request:
                continue
            if not self._settled:
                keep &= cache.array[rows] != 0
            else:
                keep &= row_results(self.fleet, stage.filter, self.request).evaluate(rows) != 0
        for column, low, high, number in signature.bounds:
            judge = signature.stages[number].filter
            if judge is not None and not judge.once_per_request:
                values = self.fleet.store.host[column, rows]
                keep &= (values >= low) & (values <= high)
        for stage in self.selections:
            assert stage.filter is not None
            if not stage.filter.once_per_request:
                keep &= self.selection_passes(stage, rows)
        return keep

    def _claim_first(self, uuid: str, rows: NDArray[np.int32], weights: NDArray[np.float64]) -> Claimed | None:
        """The first host in order that the claim succeeds on; ``rows`` were scored last."""
        for position, row in enumerate(rows):
            row = int(row)
            if self.candidates is not None and not self.candidates[row]:
                continue
            allocations = self._allocations(uuid, row)
            if allocations is None:
                continue
            if self.claim is not None:
                provider = self.fleet.uuid(row)
                if not self._claims(uuid, provider, allocations.by_uuid(self.fleet)):
                    continue
            parts = self._parts(rows, position)
            return self._take(uuid, row, float(weights[position]), allocations, parts)
        return None

    def _allocations(self, uuid: str, row: int) -> Allocations | None:
        request = self.request.with_changes(instance_uuids=(uuid,))
        return allocations_of(self.fleet, self.signature, row, given=self.candidates is not None, request=request)

    def _claims(self, uuid: str, provider: str, allocations: Mapping[str, Mapping[str, int]]) -> bool:
        """Whether the outside claim succeeds."""
        assert self.claim is not None
        ok = self.claim(uuid, provider, allocations)
        if not isinstance(ok, (bool, np.bool_)):
            raise InvalidValue(f"claim must return true or false, got {shown(ok)}", field="claim")
        self.claims.append((uuid, provider, bool(ok)))
        return bool(ok)

    def _parts(self, rows: NDArray[np.int32], position: int) -> tuple[ScorePart, ...]:
        if len(rows) <= 1:
            return ()
        ranking = self.signature.ranking
        if self.claim is not None:
            # The hook may have had the engine look at something else.
            ranking.score_rows(rows, self.members(rows))
        members = self.members(rows[position : position + 1])
        parts = ranking.row_parts(int(rows[position]), 0.0 if members is None else float(members[0]))
        return tuple(ScorePart(name, *part) for name, part in zip(self.signature.weigher_names, parts, strict=True))

    def _take(self, uuid: str, row: int, weight: float, allocations: Any, parts: tuple[ScorePart, ...]) -> Claimed:
        request = self.request
        consumer = self.fleet.claim(
            uuid,
            row,
            allocations.shape,
            project_id=request.project_id,
            user_id=request.user_id,
            group=self.group.kept if self.group is not None else -1,
            building=not forgotten(self.fleet, self.engine.policy, request, row),
            extras=extras_for(self.fleet, self.signature, request, row, allocations),
            image_properties=request.image_properties if self.engine.reads_instance_images else None,
        )
        if self.group is not None:
            self.group.join(self.fleet, row, uuid)
        self._settle(consumer)
        return Claimed(uuid, row, consumer, weight, allocations.by_uuid(self.fleet), parts)

    def _settle(self, consumer: int) -> None:
        """The next instances ask for the page sizes that this one was given (Nova 33 overwrites the request's
        cells)."""
        wanted, extras = self.request.spec.numa_topology, self.fleet.extras.get(consumer)
        if wanted is None or extras is None or extras.numa is None:
            return
        cells = settled(wanted, extras.numa)
        if cells != wanted:
            self._settled = True
            self.request = self.request.with_changes(spec=replace(self.request.spec, numa_topology=cells))

    # answering

    def _clean_up(self, made: Sequence[Any]) -> None:
        if self.claim is not None:
            self.claims.extend((claimed.uuid, "delete", True) for claimed, *_ in made)

    def _refused(self, ranked: Ranked, placed: int) -> Decision:
        return Decision(
            seed=self.engine.decision_seed(),
            sequence=self.engine.next_sequence(),
            request_id=self.request.request_id,
            considered=len(ranked.considered),
            removed=ranked.removed,
            refusal=refusal(self.request, ranked, placed),
            claims=tuple(self.claims),
        )

    def _decision(self, ranked: Ranked, made: Sequence[Any], draws: Draws) -> Decision:
        chosen = {claimed.row for claimed, *_ in made}
        last = made[-1]
        if len(made) > 1 and self.request.alternates:
            rows, weights = self._again(last[1], draws)
        else:
            rows, weights = last[1], last[2]
        seed = self.engine.decision_seed()
        return Decision(
            sequence=self.engine.next_sequence(),
            request_id=self.request.request_id,
            considered=len(ranked.considered),
            removed=ranked.removed,
            selections=tuple(self._selected(claimed, chosen, rows, weights) for claimed, *_ in made),
            claims=tuple(self.claims),
            seed=seed,
        )

    def _selected(
        self, claimed: Claimed, chosen: set[int], rows: NDArray[np.int32], weights: NDArray[np.float64]
    ) -> Selection:
        fleet = self.fleet
        cell = fleet.host_class(claimed.row).cell_uuid
        alternates: list[Alternate] = []
        for row, weight in zip(rows, weights, strict=True):
            if len(alternates) == self.request.alternates:
                break
            row = int(row)
            if row in chosen or fleet.host_class(row).cell_uuid != cell:
                continue
            if self.candidates is not None and not self.candidates[row]:
                continue
            alternates.append(Alternate(fleet.service_host(row), fleet.name(row), fleet.uuid(row), cell, float(weight)))
        return self.engine.selection(claimed, tuple(alternates))


def _by_row(fleet: Fleet, candidates: object) -> dict[int, Sequence[Any]]:
    """Outside candidates by provider row; InvalidValue or UnknownName if they are malformed. O(candidates)."""
    if not isinstance(candidates, Mapping):
        raise InvalidValue(f"candidates must map provider uuids to lists, got {shown(candidates)}", field="candidates")
    by_row: dict[int, Sequence[Any]] = {}
    for uuid, requests in candidates.items():
        row = fleet.row_of_uuid(uuid, field="candidates")
        if not isinstance(requests, (list, tuple)):
            raise InvalidValue(f"candidates of {uuid} must be a list, got {shown(requests)}", field="candidates")
        if row in by_row:
            raise InvalidValue(f"candidates name the provider {uuid} twice", field="candidates")
        by_row[row] = requests
    return by_row


def _not_before(refusing: NDArray[np.uint8], number: int) -> NDArray[np.bool_]:
    """Rows that neither host selection nor a stage up to ``number`` refused."""
    open_to_all: NDArray[np.bool_] = (refusing == 0) | ((refusing > number) & (refusing < SELECTED_OUT))
    return open_to_all


def _on_rebuild(stage: Stage) -> bool:
    return stage.filter is not None and stage.filter.runs_on_rebuild


__all__ = ["ClaimHook", "Ranked", "Scheduling"]
