"""One request placed: by the ranked way where the ranking kernel alone can decide it, else by the scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...ext.constants import SOFT_AFFINITY, SOFT_ANTI_AFFINITY
from ..fleet.fleet import Fleet, uuid_words
from ..types.decision import Alternate, Decision, Refusal, ScorePart
from ..types.errors import DuplicateName, NoValidHost
from ..types.request import Request
from .claim import Claimed, allocations_of, extras_for
from .context import DecisionContext
from .scan_placement import ClaimHook, ScanPlacement
from .signature import Signature


def place(
    context: DecisionContext, request: Request, candidates: Mapping[str, Sequence[Any]] | None, claim: ClaimHook | None
) -> Decision:
    for uuid in request.instance_uuids:
        _check_new(context.fleet, uuid)
    try:
        if candidates is None and claim is None:
            decision = _place_ranked(context, request)
            if decision is not None:
                return decision
        scheduling = ScanPlacement(context, request, candidates, claim)
    except NoValidHost as error:
        return _ruled_out(context, request, error)
    return scheduling.place()


def _ruled_out(context: DecisionContext, request: Request, error: NoValidHost) -> Decision:
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


def _check_new(fleet: Fleet, uuid: str) -> None:
    try:
        taken = fleet.kernel.consumers.get(uuid) >= 0
    except (TypeError, ValueError):
        uuid_words(uuid, "instance_uuids")
        raise
    if taken:
        raise DuplicateName(f"consumer {uuid} exists", field="instance_uuids")


def _place_ranked(context: DecisionContext, request: Request) -> Decision | None:
    signature = context.ranked_way(request)
    if signature is None:
        return None
    uuid = request.instance_uuids[0]
    fleet = context.fleet
    group = fleet.group_id(request.server_group) if isinstance(request.server_group, str) else -1
    signature.refresh()
    seed = context.decision_seed()
    rows, weights = signature.ranking.best(group, 1 + request.alternates, seed)
    counts = signature.ranking.counts(group, len(signature.stages))
    if not rows:
        return ScanPlacement(context, request).refuse()
    row = rows[0]
    parts = _parts(fleet, signature, row, group) if counts[0] > 1 else ()
    taken = None if signature.simple else allocations_of(fleet, signature, row, given=False, request=request)
    fleet.claim(
        uuid,
        row,
        signature.shape if taken is None else taken.shape,
        project_id=request.project_id,
        user_id=request.user_id,
        group=group,
        building=True,
        extras=None if taken is None else extras_for(fleet, signature, request, row, taken),
        image_properties=request.image_properties if context.reads_instance_images else None,
    )
    names = fleet.resource_classes
    allocations: Mapping[str, Mapping[str, int]]
    if taken is None:
        allocations = {fleet.uuid(row): {names[index]: amount for index, amount in signature.resources.items()}}
    else:
        allocations = taken.by_uuid(fleet)
    alternates: tuple[Alternate, ...] = ()
    if len(rows) > 1:
        alternates = tuple(
            context.alternate(
                signature, request, other, weight, allocations_of(fleet, signature, other, given=False, request=request)
            )
            for other, weight in zip(rows[1:], weights[1:], strict=True)
        )
    claimed = Claimed(uuid, row, -1, weights[0], allocations, parts, {} if taken is None else taken.mappings)
    chosen = context.selection(claimed, alternates, context.numa_limits(signature, request, row))
    return Decision(
        seed=seed,
        sequence=context.next_sequence(),
        request_id=request.request_id,
        considered=sum(counts),
        removed=dict(zip(signature.stage_names, counts[1:], strict=True)),
        selections=(chosen,),
    )


def _parts(fleet: Fleet, signature: Signature, row: int, group: int) -> tuple[ScorePart, ...]:
    """Score parts of the row under the normalisers of the decision at hand."""
    members = 0.0
    if group >= 0:
        policy, _ = fleet.kernel.group_policy(group)
        sign = {SOFT_AFFINITY: 1.0, SOFT_ANTI_AFFINITY: -1.0}.get(policy, 0.0)
        members = sign * fleet.kernel.group_members(group, row)
    parts = signature.ranking.row_parts(row, members)
    return tuple([ScorePart(name, *part) for name, part in zip(signature.weigher_names, parts, strict=True)])
