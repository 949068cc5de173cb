"""One guest placed where hosts are selected by row beside the ranking: names, hints, groups that the caller keeps.

The answers are those of the scan. Rows that are left out are set aside in the ranking; where few rows can pass, these
alone are judged and scored. Costs a search and O(rows named).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...ext.draws import Draws
from ...ext.ranking import best_beside
from ..types.decision import Decision
from ..types.request import Request, RequestSpec
from .context import DecisionContext
from .group_state import GroupState, group_state
from .ranked_decision import Found, decide
from .row_choice import RowChoices
from .signature import Signature


def place_selected(context: DecisionContext, request: Request, leave: str | None) -> Decision | None:
    """The decision on a request for one instance; ``leave``: a service host that is ignored too. None if the scan has
    to decide. Nothing is changed then."""
    signature = context.signature(request)
    if any(values.errors for values in signature.owner.row_values) or signature.candidate_judges:
        return None
    signature.refresh()
    group = group_state(context.fleet, request)
    choices = RowChoices(context, signature, request, group, leave)
    found = _ranked(context, signature, request, choices, group)
    if found is None:
        return None
    rows, weights = found
    members = 0.0 if group is None or not rows else float((_members(group, rows[:1]) or [0.0])[0])
    if not rows and leave is not None:
        request = request.with_changes(spec=ignoring(request.spec, leave))
    return decide(
        context,
        signature,
        request,
        Found(rows, weights, choices.count, choices.considered, choices.removed(), signature.ranking),
        members=members,
        group=-1 if group is None else group.kept,
    )


def ignoring(spec: RequestSpec, host: str) -> RequestSpec:
    """``spec`` with one more service host ignored."""
    return replace(spec, ignore_hosts=(*spec.ignore_hosts, host))


def _ranked(
    context: DecisionContext, signature: Signature, request: Request, choices: RowChoices, group: GroupState | None
) -> tuple[list[int], list[float]] | None:
    """Rows and weights, best first, as many as the answer names; None if only the scan can tell."""
    if choices.among_few:
        return _among(context, signature, request, choices.passing, group)
    options = context.policy.options.filter_scheduler
    if options.shuffle_best_same_weighed_hosts or (request.alternates and len(context.fleet.cells()) > 1):
        return None
    beside = choices.passing
    given = None if group is None else _members(group, beside)
    return best_beside(
        signature.ranking,
        np.array(choices.refused, np.int32),
        np.array(beside, np.int32),
        None if given is None else np.array(given, np.float64),
        1 + request.alternates,
        context.decision_seed(),
    )


def _among(
    context: DecisionContext, signature: Signature, request: Request, rows: list[int], group: GroupState | None
) -> tuple[list[int], list[float]]:
    """The rows, which all pass, in order; alternates of other cells than that of the best are left out."""
    options = context.policy.options.filter_scheduler
    given = None if group is None else _members(group, rows)
    members = None if given is None else np.array(given, np.float64)
    weights = signature.ranking.score_rows(np.array(rows, np.int32), members).tolist()
    order = sorted(range(len(rows)), key=lambda at: (-weights[at], at))
    if context.draws and rows:
        ties = weights.count(weights[order[0]]) if options.shuffle_best_same_weighed_hosts else 1
        order = [order[at] for at in Draws(context.decision_seed()).order(len(rows), ties, options.host_subset_size)]
    if request.alternates and rows:
        cell = context.fleet._host_class(rows[order[0]]).cell_uuid
        order = [at for at in order if context.fleet._host_class(rows[at]).cell_uuid == cell]
    order = order[: 1 + request.alternates]
    return [rows[at] for at in order], [weights[at] for at in order]


def _members(group: GroupState, rows: list[int]) -> list[float] | None:
    """Members of a soft group on each row, negative for soft-anti-affinity; None for a group of another policy."""
    if not group.policy.startswith("soft"):
        return None
    sign = 1.0 if group.policy == "soft-affinity" else -1.0
    return [sign * group.members.get(row, 0) for row in rows]
