"""What refuses hosts by which rows they are: names in the request, hints and server groups. O(rows named)."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

import numpy as np

from ...ext.constants import NOT_A_HOST
from ..request.host_selection import named_rows, names_hosts, skips_filters
from ..types.request import Request
from .context import DecisionContext
from .group_state import GroupState
from .signature import GROUP_FILTERS, SELECTION, Signature, Stage


@dataclass(frozen=True, slots=True)
class RowChoice:
    """A stage passes only (``keep``) or all but the ``rows``, of those that no stage up to number ``after`` refused."""

    after: int
    name: str
    keep: bool
    rows: Set[int]


def rows_selected(
    context: DecisionContext, stage: Stage, request: Request, group: GroupState | None, instance: str
) -> RowChoice | None:
    """What a filter in selection form passes for an ``instance`` of the request; None: every host."""
    assert stage.filter is not None
    if stage.name in GROUP_FILTERS:
        return _by_group(context, stage, group, instance)
    choice = stage.filter.selection(request)
    if choice is None:
        return None
    holding: dict[int, int] = {}
    for uuid in choice.instances:
        for row in context.rows_holding(uuid):
            holding[row] = holding.get(row, 0) + 1
    named = {row for row, count in holding.items() if count >= choice.at_least}
    for host in choice.hosts:
        named.update(context.fleet._rows_of_service_host(host))
    return RowChoice(stage.number, stage.name, choice.keep, named)


def _by_group(context: DecisionContext, stage: Stage, group: GroupState | None, instance: str) -> RowChoice | None:
    """Nova 33 ServerGroupAffinityFilter and ServerGroupAntiAffinityFilter."""
    if group is None or group.policy != GROUP_FILTERS[stage.name]:
        return None
    if group.policy == "affinity":
        return RowChoice(stage.number, stage.name, True, group.hosts) if group.placed else None
    holding = group.full.intersection(context.rows_holding(instance))
    return RowChoice(stage.number, stage.name, False, group.full - holding if holding else group.full)


class RowChoices:
    """All stages of one request that refuse hosts by row, in order, beside the stages of its ranking."""

    def __init__(
        self,
        context: DecisionContext,
        signature: Signature,
        request: Request,
        group: GroupState | None,
        leave: str | None,
    ) -> None:
        """``leave``: a service host that is ignored beside those that the spec ignores."""
        self.signature, spec = signature, request.spec
        self.skipped = skips_filters(spec)
        """True if filters are not applied: hosts or nodes are forced."""
        self.named = names_hosts(spec) or leave is not None
        last = signature.last_candidate_stage
        self.choices: list[RowChoice] = []
        if self.named:
            kept, dropped = named_rows(context.fleet, spec)
            if leave is not None:
                dropped = dropped.union(context.fleet._rows_of_service_host(leave))
            if kept is not None:
                self.choices.append(RowChoice(last, SELECTION, True, kept - dropped))
            else:
                self.choices.append(RowChoice(last, SELECTION, False, dropped))
        for stage in () if self.skipped else signature.selections:
            if request.is_rebuild and not (stage.filter is not None and stage.filter.runs_on_rebuild):
                continue
            choice = rows_selected(context, stage, request, group, request.instance_uuids[0])
            if choice is not None:
                self.choices.append(choice)
        members = () if group is None or not group.policy.startswith("soft") else group.members
        self._judge({row for choice in self.choices for row in choice.rows} | set(members))

    def _judge(self, rows: Iterable[int]) -> None:
        """Find the stage that refuses each of the rows that are mentioned; count hosts by stage. O(rows, stages)."""
        signature, last = self.signature, self.signature.last_candidate_stage
        ordered = sorted(rows)
        found = signature.ranking.judge(np.array(ordered, np.int32)).tolist() if ordered else []
        others = signature.ranking.counts(-1, len(signature.stages))
        self.considered = sum(others)
        stage_of: dict[int, int] = {}
        for row, stage in zip(ordered, found, strict=True):
            if stage != NOT_A_HOST:
                stage_of[row] = stage
                others[stage] -= 1
        self._by_choice: dict[str, int] = {}
        for choice in self.choices:
            refused = 0
            if choice.keep:
                refused = others[0] + sum(others[choice.after + 1 :])
                others[0] = 0
                others[choice.after + 1 :] = [0] * (len(others) - choice.after - 1)
            for row, stage in stage_of.items():
                if (stage == 0 or stage > choice.after) and (row in choice.rows) != choice.keep:
                    stage_of[row] = -1
                    refused += 1
            self._by_choice[choice.name] = refused
        if self.skipped:
            others[0] += sum(others[last + 1 :])
            others[last + 1 :] = [0] * (len(others) - last - 1)
            stage_of = {row: 0 if stage > last else stage for row, stage in stage_of.items()}
        self.passing = [row for row, stage in stage_of.items() if stage == 0]
        """Rows that are mentioned and pass, in order."""
        self.refused = [row for row, stage in stage_of.items() if stage < 0]
        """Rows that one of the choices refuses, in order."""
        self.count = others[0] + len(self.passing)
        """Hosts that pass."""
        self._counts = others
        for stage in stage_of.values():
            if stage >= 0:
                self._counts[stage] += 1

    @property
    def among_few(self) -> bool:
        """True if only rows that are mentioned can pass."""
        return any(choice.keep for choice in self.choices)

    def removed(self) -> dict[str, int]:
        """Hosts removed by each stage, in order."""
        signature, by_choice, removed = self.signature, self._by_choice, dict[str, int]()
        for stage in signature.stages[1:]:
            if stage.number == signature.last_candidate_stage + 1 and self.named:
                removed[SELECTION] = by_choice[SELECTION]
            removed[stage.name] = by_choice.get(stage.name, self._counts[stage.number])
        if self.named:
            removed.setdefault(SELECTION, by_choice[SELECTION])
        return removed
