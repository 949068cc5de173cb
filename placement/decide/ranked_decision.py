"""What a ranking found becomes a decision: the claim of the best row, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from ...ext.ranking import Ranking, best_beside, set_aside
from ..types.decision import Alternate, Decision, ScorePart
from ..types.request import Request
from .claim import Claimed, allocations_of, extras_for, forgotten
from .context import DecisionContext
from .explain.refusals import refused
from .scan import Scan
from .signature import Signature

_NO_ROWS: Final = np.zeros(0, np.int32)


def best_by_rows(
    signature: Signature, ranking: Ranking, wanted: int, seed: int
) -> tuple[list[int], list[float], list[int]]:
    """The ``wanted`` best rows, their weights, and the number of rows by stage, where ``ranking`` is without the rules
    that judge row by row: the rows that these refuse are set aside. O(rows) in one pass, and a search."""
    counts = np.array(ranking.counts(-1, len(signature.stages)), np.int64)
    aside = set_aside(ranking, [(cache.array, stage.number) for stage, cache in signature.row_judges], counts)
    rows, weights = best_beside(ranking, aside, _NO_ROWS, None, wanted, seed)
    return rows, weights, counts.tolist()


class Found(NamedTuple):
    """What a search found: rows and weights, best first, as many as the answer names (none: no host passes); how many
    hosts pass, of how many, and how many each stage removed; and the ranking that was asked."""

    rows: Sequence[int]
    weights: Sequence[float]
    passing: int
    considered: int
    removed: dict[str, int]
    ranking: Ranking


def decide(
    context: DecisionContext, signature: Signature, request: Request, found: Found, *, members: float, group: int
) -> Decision:
    """Claim the first row for the request's one instance, the others being alternates; or refuse. ``members``: of its
    soft server group on that row, signed; ``group``: the server group of the fleet that the guest joins, -1 for
    none."""
    rows, weights = found.rows, found.weights
    if not rows:
        return refused(Scan(context, request), found.removed, found.considered)
    fleet, row = context.fleet, rows[0]
    parts = score_parts(signature, found.ranking, row, members) if found.passing > 1 else ()
    claimed = claim_row(context, signature, request, request.instance_uuids[0], row, weights[0], parts, group=group)
    alternates: tuple[Alternate, ...] = ()
    if len(rows) > 1:
        alternates = tuple(
            context.alternate(
                signature, request, other, weight, allocations_of(fleet, signature, other, given=False, request=request)
            )
            for other, weight in zip(rows[1:], weights[1:], strict=True)
        )
    chosen = context.selection(claimed, alternates, context.numa_limits(signature, request, row))
    seed = context.decision_seed()
    return Decision(
        seed=seed,
        sequence=context.next_sequence(),
        request_id=request.request_id,
        considered=found.considered,
        removed=found.removed,
        selections=(chosen,),
    )


def claim_row(
    context: DecisionContext,
    signature: Signature,
    request: Request,
    uuid: str,
    row: int,
    weight: float,
    parts: tuple[ScorePart, ...],
    *,
    group: int,
) -> Claimed:
    """Charge an instance of the request to a row, which has room for it. ``group``: the server group of the fleet that
    it joins, -1 for none."""
    fleet = context.fleet
    taken = None if signature.simple else allocations_of(fleet, signature, row, given=False, request=request)
    consumer = fleet.claim(
        uuid,
        row,
        signature.shape if taken is None else taken.shape,
        project_id=request.project_id,
        user_id=request.user_id,
        group=group,
        building=not forgotten(fleet, context.policy, request, row),
        extras=None if taken is None else extras_for(fleet, signature, request, row, taken),
        image_properties=request.image_properties if context.reads_instance_images else None,
    )
    if taken is None:
        names = fleet.resource_classes
        allocations = {fleet.uuid(row): {names[index]: amount for index, amount in signature.resources.items()}}
    else:
        allocations = taken.by_uuid(fleet)
    return Claimed(uuid, row, consumer, weight, allocations, parts, {} if taken is None else taken.mappings)


def score_parts(signature: Signature, ranking: Ranking, row: int, members: float) -> tuple[ScorePart, ...]:
    """Score parts of the row under the normalisers of the decision that ``ranking`` made last."""
    parts = ranking.row_parts(row, members)
    return tuple([ScorePart(name, *part) for name, part in zip(signature.weigher_names, parts, strict=True)])
