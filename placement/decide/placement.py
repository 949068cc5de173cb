"""One request placed: by the ranked way where the ranking kernel alone can decide it, else by the scan."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from ...ext.constants import SOFT_AFFINITY, SOFT_ANTI_AFFINITY
from ...ext.fleet_state import find_uuids
from ...ext.tables import parse_many
from ..fleet.fleet import Fleet, uuid_words
from ..types.decision import Decision, Refusal
from ..types.errors import DuplicateName, NoValidHost
from ..types.request import Request
from .context import DecisionContext
from .ranked_decision import Found, best_by_rows, decide
from .scan_placement import ClaimHook, ScanPlacement
from .selected_placement import ignoring, place_selected
from .several_placement import place_several


def place(
    context: DecisionContext,
    request: Request,
    candidates: Mapping[str, Sequence[Any]] | None,
    claim: ClaimHook | None,
    *,
    leave: str | None = None,
) -> Decision:
    """The decision on a request, prepared; ``leave``: a service host that is ignored beside those that it ignores."""
    decision = _decided(context, request, candidates, claim, leave)
    return decision if isinstance(decision, Decision) else decision.place()


def place_in_steps(context: DecisionContext, request: Request) -> Generator[None, None, Decision]:
    """The same in steps, between which others may use other versions of the fleet."""
    decision = _decided(context, request, None, None, None)
    return decision if isinstance(decision, Decision) else (yield from decision.placing())


def _decided(
    context: DecisionContext,
    request: Request,
    candidates: Mapping[str, Sequence[Any]] | None,
    claim: ClaimHook | None,
    leave: str | None,
) -> Decision | ScanPlacement:
    """The decision, or the scan that is to make it."""
    if leave is not None and (candidates is not None or claim is not None or context.compiled.custom):
        # A rule that is not ours may read the ignored hosts.
        request, leave = request.with_changes(spec=ignoring(request.spec, leave)), None
    check_new(context.fleet, request.instance_uuids)
    try:
        if candidates is None and claim is None:
            decision = _place_ranked(context, request) if leave is None else None
            if decision is None and len(request.instance_uuids) > 1:
                decision = place_several(context, request) if leave is None else None
            elif decision is None:
                decision = place_selected(context, request, leave)
            if decision is not None:
                return decision
        if leave is not None:
            request = request.with_changes(spec=ignoring(request.spec, leave))
        return ScanPlacement(context, request, candidates, claim)
    except NoValidHost as error:
        return ruled_out(context, request, error)


def ruled_out(context: DecisionContext, request: Request, error: NoValidHost) -> Decision:
    """The answer where the request was refused before any host was looked at."""
    seed = context.decision_seed()
    return Decision(
        sequence=context.next_sequence(),
        request_id=request.request_id,
        considered=0,
        removed={},
        refusal=Refusal(sentence=error.args[0], stage="request", hint=error.hint, code="request"),
        seed=seed,
    )


def check_new(fleet: Fleet, uuids: Sequence[str]) -> None:
    consumers = fleet._kernel.consumers
    if len(uuids) > 1:
        try:
            if find_uuids(consumers, parse_many(uuids)).max() < 0:
                return
        except (TypeError, ValueError):
            pass  # said below, of which
    for uuid in uuids:
        try:
            taken = consumers.get(uuid) >= 0
        except (TypeError, ValueError):
            uuid_words(uuid, "instance_uuids")
            raise
        if taken:
            raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")


def _place_ranked(context: DecisionContext, request: Request) -> Decision | None:
    signature = context.ranked_way(request) if len(request.instance_uuids) == 1 else None
    if signature is None:
        return None
    fleet = context.fleet
    group = fleet._group_id(request.server_group) if isinstance(request.server_group, str) else -1
    signature.refresh()
    seed, wanted = context.decision_seed(), 1 + request.alternates
    ranking = signature.searched() if group < 0 else None
    if ranking is not None:
        rows, weights, counts = best_by_rows(signature, ranking, wanted, seed)
    else:
        ranking = signature.ranking
        rows, weights = ranking.best(group, wanted, seed)
        counts = ranking.counts(group, len(signature.stages))
    removed = dict(zip(signature.stage_names, counts[1:], strict=True))
    found = Found(rows, weights, counts[0], sum(counts), removed, ranking)
    members = _members_on(fleet, rows[0], group) if rows and group >= 0 else 0.0
    return decide(context, signature, request, found, members=members, group=group)


def _members_on(fleet: Fleet, row: int, group: int) -> float:
    """Members of a server group of the fleet on a row, signed as ``Ranking.row_parts`` has them."""
    policy, _ = fleet._kernel.group_policy(group)
    sign = {SOFT_AFFINITY: 1.0, SOFT_ANTI_AFFINITY: -1.0}.get(policy, 0.0)
    return sign * fleet._kernel.group_members(group, row)
