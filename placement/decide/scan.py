"""One request through Nova's pipeline over all its hosts: candidates, host selection, filters and weighers.

This is the scan: every rule judges every host. ``Engine.place`` takes the ranked way where both agree. Claims are made
in ``scan_placement``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_A_HOST
from ..fleet.fleet import Fleet
from ..fleet.host_view import HostView
from ..request.host_selection import names_hosts, selected, skips_filters
from ..types.errors import InvalidValue, UnknownName
from ..types.request import Request
from ..types.validation import shown
from .claim import mappings_of
from .context import DecisionContext
from .group_state import group_state
from .row_choice import rows_selected
from .signature import SELECTION, CandidateJudge, Signature, Stage

SELECTED_OUT: Final = 254
"""Number for hosts that host selection excludes."""
FEW: Final = 64
"""Rows that are looked up one by one in what a server group or a request names."""


@dataclass(slots=True)
class Ranked:
    """Hosts that passed, best first, and what became of the others.

    ``refusing_stages`` holds for each of the ``considered`` rows the number of the stage that refused it, 0 if it
    passed, SELECTED_OUT if host selection excluded it. ``signature`` and ``scan`` are for Hostler's own packages.
    """

    signature: Signature = field(repr=False)
    considered: NDArray[np.int32]
    refusing_stages: NDArray[np.uint8]
    rows: NDArray[np.int32]
    weights: NDArray[np.float64]
    removed: dict[str, int] = field(default_factory=dict)
    filters_skipped: bool = False
    scan: Scan | None = field(default=None, repr=False)

    def refused(self) -> Iterator[tuple[int, str]]:
        """(row, name of the stage that removed it) of the hosts that did not pass, in the order considered."""
        names = {stage.number: stage.name for stage in self.signature.stages} | {SELECTED_OUT: SELECTION}
        for row, number in zip(self.considered.tolist(), self.refusing_stages.tolist(), strict=True):
            if number:
                yield row, names[number]


class Scan:
    """The run of one request. ``candidates``: provider uuid -> its allocation requests, as Placement returned them;
    hosts that are not named are no candidates, hosts with an empty list are weighed and never claimed. None: the
    engine's own candidates. ``rows``: the hosts that are judged, ascending; None: all."""

    def __init__(
        self,
        context: DecisionContext,
        request: Request,
        candidates: Mapping[str, Sequence[Any]] | None = None,
        *,
        rows: NDArray[np.int32] | None = None,
    ) -> None:
        self._rows = rows
        self.context, self.fleet, self.request = context, context.fleet, request
        self.candidates = None if candidates is None else _by_row(self.fleet, candidates)
        self.signature = context.signature(request, candidates_given=candidates is not None)
        self.group = group_state(self.fleet, request)
        self.instance = request.instance_uuids[0]
        """The instance that is being placed; while alternates are sorted, the last one."""

    # ranking

    def rank(self) -> Ranked:
        """Filter and weigh all hosts for the request's first instance. O(hosts)."""
        considered, refusing = self._filter()
        rows, weights = self.weigh(considered[refusing == 0])
        skipped = skips_filters(self.request.spec)
        return Ranked(self.signature, considered, refusing, rows, weights, self._removed(refusing), skipped, self)

    def passing_rows(self) -> NDArray[np.int32]:
        """The rows of all hosts that pass, ascending. O(hosts)."""
        considered, refusing = self._filter()
        rows: NDArray[np.int32] = considered[refusing == 0]
        return rows

    def _filter(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """The rows that are judged, and the number of the stage that refuses each, as ``Ranked`` has them."""
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
            if self.candidates is not None:
                self._judge_candidates(self.candidates, considered, refusing)
        return considered, refusing

    def _judge_candidates(
        self, candidates: dict[int, Sequence[Any]], considered: NDArray[np.int32], refusing: NDArray[np.uint8]
    ) -> None:
        """Leave each host the candidates that the filters pass which judge single ones; a host without any is refused
        (Nova 33 NUMATopologyFilter and PciPassthroughFilter). O(candidates), where such a filter applies."""
        judges = self.signature.candidate_judges
        for stage in self.signature.stages if judges else ():
            judge = next((each for each in judges if each is stage.filter), None)
            if judge is None:
                continue
            for at in np.flatnonzero(_not_before(refusing, stage.number)).tolist():
                if not self._leave_good(candidates, int(considered[at]), judge):
                    refusing[at] = stage.number

    def _leave_good(self, candidates: dict[int, Sequence[Any]], row: int, judge: CandidateJudge) -> bool:
        """Leave a host the candidates that a filter passes; False if it has none then. O(candidates)."""
        view = HostView(self.fleet, row)
        candidates[row] = [c for c in candidates[row] if judge.candidate_passes(view, self.request, mappings_of(c))]
        return bool(candidates[row])

    def _considered(self, stages: NDArray[np.uint8]) -> NDArray[np.int32]:
        if self._rows is not None:
            rows: NDArray[np.int32] = self._rows[stages[self._rows] != NOT_A_HOST]
            return rows
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

    @property
    def considers_all(self) -> bool:
        """True if every host of the fleet is judged."""
        return self._rows is None and self.candidates is None

    def selects(self, stage: Stage) -> bool:
        """Whether a filter in selection form may refuse a host. O(1), and O(members) of a server group."""
        return rows_selected(self.context, stage, self.request, self.group, self.instance) is not None

    def selection_passes(self, stage: Stage, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of ``rows`` pass a filter in selection form."""
        choice = rows_selected(self.context, stage, self.request, self.group, self.instance)
        if choice is None:
            return np.ones(len(rows), bool)
        if len(rows) < FEW:
            found = np.fromiter((row in choice.rows for row in rows.tolist()), bool, len(rows))
        else:
            found = np.isin(rows, np.array(sorted(choice.rows), np.int32))
        return found if choice.keep else ~found

    def members(self, rows: NDArray[np.int32]) -> NDArray[np.float64] | None:
        """Members of the request's soft group on each row, negative for soft-anti-affinity, for the group weighers."""
        if self.group is None or not self.group.policy.startswith("soft"):
            return None
        if len(rows) < FEW:
            held = self.group.members
            members = np.array([held.get(row, 0) for row in rows.tolist()], np.float64)
        else:
            members = self._members_by_row(self.group.members)[rows].astype(np.float64)
        if self.group.policy != "soft-affinity":
            np.subtract(0.0, members, out=members)  # which makes no negative zero
        return members

    def _members_by_row(self, members: Mapping[int, int]) -> NDArray[np.int64]:
        """Members of a group by row, of all rows. O(rows)."""
        by_row = np.zeros(self.fleet.rows, np.int64)
        by_row[np.fromiter(members.keys(), np.int64, len(members))] = np.fromiter(
            members.values(), np.int64, len(members)
        )
        return by_row

    def weigh(self, rows: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
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


def _by_row(fleet: Fleet, candidates: object) -> dict[int, Sequence[Any]]:
    """Outside candidates by provider row; those of unknown providers are left out. InvalidValue if they are malformed.
    O(candidates)."""
    if not isinstance(candidates, Mapping):
        raise InvalidValue(f"candidates must map provider uuids to lists, got {shown(candidates)}", field="candidates")
    by_row: dict[int, Sequence[Any]] = {}
    for uuid, requests in candidates.items():
        try:
            row = fleet.row_of_uuid(uuid, field="candidates")
        except UnknownName:
            continue  # a provider that is no host, or one that came after the fleet was read
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
