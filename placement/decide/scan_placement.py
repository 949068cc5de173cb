"""A request placed by the scan: hosts claimed for all of its instances or for none, and the decision that says so."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.draws import Draws
from ..numa.usage import settled
from ..request.host_selection import skips_filters
from ..types.decision import Alternate, Decision, ScorePart, Selection
from ..types.errors import InvalidValue
from ..types.request import Request
from ..types.steps import finished
from ..types.validation import shown
from .claim import Allocations, Claimed, allocations_of, extras_for, forgotten
from .compiled_filter import row_results
from .context import DecisionContext
from .explain.refusals import refusal
from .remaining import Remaining
from .scan import Ranked, Scan
from .signature import GROUP_FILTERS

ClaimHook = Callable[[str, str, Mapping[str, Mapping[str, int]]], bool]
"""Called with (instance uuid, provider uuid, allocations); False if the claim failed and the next host is to be
tried."""


SEVERAL: Final = 3
"""Instances from which on it pays to keep what is left in columns."""
STEP: Final = 12
"""Instances that are placed in one step."""
ALTERNATES: Final = 64
"""Alternates that are told in one step."""


class ScanPlacement(Scan):
    """The scan of one request, and its claims."""

    def __init__(
        self,
        context: DecisionContext,
        request: Request,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        claim: ClaimHook | None = None,
    ) -> None:
        if claim is not None and not callable(claim):
            raise InvalidValue(f"claim must be a function, got {shown(claim)}", field="claim")
        super().__init__(context, request, candidates)
        self._given = request
        self.claim = claim
        self.claims: list[tuple[str, str, bool]] = []
        self._settled = False
        self._remaining: Remaining | None = None
        """What is left for further instances, where only the rows of each claim change."""

    def place(self) -> Decision:
        """Claim a host for every instance, all or nothing."""
        return finished(self._placing())

    def placing(self) -> Generator[None, None, Decision]:
        """``place`` in steps of about a millisecond, between which others may use other versions of the fleet: those of
        this scan's are its own."""
        fleet = self.fleet
        start, sequence, epoch = fleet._history.hold(), fleet._heads.sequence, fleet._topology_epoch
        steps = self._placing()
        try:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    decision: Decision = end.value
                    return decision
                yield
                self.context.fleet  # noqa: B018  # the state comes back to this version
                self.signature.refresh()
                self.signature.ranking.refresh()
                if self.signature.stale or fleet._topology_epoch != epoch:
                    # What others did has made what was compiled invalid: all of it again, at once.
                    steps.close()
                    fleet._history.go(start)
                    fleet._heads.sequence = sequence
                    return self._anew().place()
        finally:
            self.context.fleet  # noqa: B018  # where steps that are given up are undone
            steps.close()

    def _anew(self) -> ScanPlacement:
        """The scan of the same request, from its beginning."""
        return ScanPlacement(self.context, self._given)

    def _placing(self) -> Generator[None, None, Decision]:
        context, request = self.context, self.request
        ranked = self.rank()
        draws = Draws(context.decision_seed())
        uuids = request.instance_uuids
        start = self.fleet._history.hold()
        rows, weights = self._choose_first(ranked.rows, ranked.weights, draws)
        if len(uuids) >= SEVERAL and self._claims_change_their_rows_only():
            self._remaining = Remaining(self.fleet, self.signature, rows, self.members, self._still_passes)
        made: list[tuple[Claimed, NDArray[np.int32], NDArray[np.float64], tuple[ScorePart, ...]]] = []
        try:
            for index, uuid in enumerate(uuids):
                if index % STEP == 0 and len(uuids) > STEP:
                    yield
                    if index == 0 and self._remaining is None and len(rows):  # others may have scored the like
                        self.signature.ranking.score_rows(rows, self.members(rows))
                self.instance = uuid
                if index > 0:
                    rows, weights = self._next(rows, draws)
                claimed = self._claim_first(uuid, rows, weights)
                if claimed is None:
                    break
                made.append((claimed, rows, weights, claimed.parts))
            if len(made) < len(uuids):
                self._clean_up(made)
                self.fleet._history.go(start)
                return self._refused(ranked, len(made))
            return (yield from self._decision(ranked, made, draws))
        except BaseException:
            self.fleet._history.go(start)
            raise
        finally:
            self._remaining = None  # which refers to this scan

    def _choose_first(
        self, rows: NDArray[np.int32], weights: NDArray[np.float64], draws: Draws
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Nova 33 ``_get_sorted_hosts``: shuffle the equal best if asked, then one of the first ``host_subset_size``
        to the front."""
        options = self.context.policy.options.filter_scheduler
        if len(rows) == 0 or not self.context.draws:
            return rows, weights
        ties = np.count_nonzero(weights == weights[0]) if options.shuffle_best_same_weighed_hosts else 1
        order = draws.order(len(rows), int(ties), options.host_subset_size)
        return rows[order], weights[order]

    def _claims_change_their_rows_only(self) -> bool:
        if self.claim is not None or self.candidates is not None or self.context.draws:
            return False
        if any(stage.name not in GROUP_FILTERS for stage in self.selections):
            return False
        return (self.group is None or self.group.policy != "affinity") and Remaining.applies(self.signature)

    def _next(self, rows: NDArray[np.int32], draws: Draws) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """``_again``, in less time where that is possible."""
        remaining = self._remaining
        if remaining is not None:
            self.signature.refresh()
            self.signature.ranking.refresh()
            if not self._settled and remaining.after_claim():
                rows = remaining.rows
                self._raise_missing(rows)
                return rows, remaining.weights
            self._remaining = None
        return self._again(rows, draws)

    def _again(self, rows: NDArray[np.int32], draws: Draws) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """For a further instance: apply the filters that check every instance to the remaining hosts, then weigh again
        (Nova 33)."""
        self.signature.refresh()
        self.signature.ranking.refresh()
        rows = rows[self._still_passes(rows)]
        rows, weights = self.weigh(rows)
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
                values = self.fleet._store.host[column, rows]
                keep &= (values >= low) & (values <= high)
        for stage in self.selections:
            assert stage.filter is not None
            if not stage.filter.once_per_request:
                keep &= self.selection_passes(stage, rows)
        if self.candidates is not None:
            # Candidates that were good for the first instance may have what it has taken.
            for judge in signature.candidate_judges:
                for at in np.flatnonzero(keep).tolist() if not judge.once_per_request else ():
                    keep[at] = self._leave_good(self.candidates, int(rows[at]), judge)
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
        candidates = None if self.candidates is None else self.candidates[row]
        return allocations_of(
            self.fleet,
            self.signature,
            row,
            given=candidates is not None,
            request=request,
            candidate=candidates[0] if candidates else None,
        )

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
        if self._remaining is not None:
            return self._remaining.parts(position)
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
            building=not forgotten(self.fleet, self.context.policy, request, row),
            extras=extras_for(self.fleet, self.signature, request, row, allocations),
            image_properties=request.image_properties if self.context.reads_instance_images else None,
        )
        if self.group is not None:
            self.group.join(self.fleet, row, uuid)
        self._settle(consumer)
        return Claimed(uuid, row, consumer, weight, allocations.by_uuid(self.fleet), parts, allocations.mappings)

    def _settle(self, consumer: int) -> None:
        """The next instances ask for the page sizes that this one was given (Nova 33 overwrites the request's
        cells)."""
        wanted, extras = self.request.spec.numa_topology, self.fleet._extras.get(consumer)
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
            seed=self.context.decision_seed(),
            sequence=self.context.next_sequence(),
            request_id=self.request.request_id,
            considered=len(ranked.considered),
            removed=ranked.removed,
            refusal=refusal(self.request, ranked, placed),
            claims=tuple(self.claims),
        )

    def _decision(self, ranked: Ranked, made: Sequence[Any], draws: Draws) -> Generator[None, None, Decision]:
        chosen = {claimed.row for claimed, *_ in made}
        last = made[-1]
        if len(made) > 1 and self.request.alternates:
            rows, weights = self._next(last[1], draws)
        else:
            rows, weights = last[1], last[2]
        selections, alternates = list[Selection](), 0
        for claimed, *_ in made:
            if alternates >= ALTERNATES:
                yield
                alternates = 0
            selections.append(self._selected(claimed, chosen, rows, weights))
            alternates += self.request.alternates
        seed = self.context.decision_seed()
        return Decision(
            sequence=self.context.next_sequence(),
            request_id=self.request.request_id,
            considered=len(ranked.considered),
            removed=ranked.removed,
            selections=tuple(selections),
            claims=tuple(self.claims),
            seed=seed,
        )

    def _selected(
        self, claimed: Claimed, chosen: set[int], rows: NDArray[np.int32], weights: NDArray[np.float64]
    ) -> Selection:
        fleet = self.fleet
        cell = fleet._host_class(claimed.row).cell_uuid
        alternates: list[Alternate] = []
        for row, weight in zip(rows, weights, strict=True):
            if len(alternates) == self.request.alternates:
                break
            row = int(row)
            if row in chosen or fleet._host_class(row).cell_uuid != cell:
                continue
            if self.candidates is not None and not self.candidates[row]:
                continue
            taken = self._allocations(claimed.uuid, row)
            if taken is None and self.candidates is not None:
                continue  # the claims took what its candidates need
            alternates.append(self.context.alternate(self.signature, self.request, row, float(weight), taken))
        limits = self.context.numa_limits(self.signature, self.request, claimed.row)
        return self.context.selection(claimed, tuple(alternates), limits)
