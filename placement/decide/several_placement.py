"""Several instances of one request placed by the ranking, each seeing the claims before it, all or nothing.

The answers are those of the scan, which weighs all hosts that passed for the first instance again for each further one
(Nova 33). Only the rows of the claims change between two of these, and stay among the weighed hosts though they may
have no more room. Equal scores keep the order of the instance before: where that is not sure to be the order of the
rows, the scan decides. Costs a search an instance, which looks at all rows that were filled before; one kernel call
makes all claims where no two rows are equally good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ...ext.batch import place_alike
from ...ext.ranking import best_beside
from ...ext.tables import format_many, parse_many
from ..types.decision import Decision, ScorePart
from ..types.request import Request
from .claim import Claimed
from .context import DecisionContext
from .explain.refusals import refused
from .ranked_decision import claim_row, score_parts
from .scan import Scan
from .signature import Signature

SEVERAL: Final = 256
"""Instances of a request, above which the scan is faster."""


def place_several(context: DecisionContext, request: Request) -> Decision | None:
    """The decision on a request for several instances; None if the scan has to decide, or to say why not all find a
    host. Nothing is changed then."""
    if context.draws or request.alternates or request.server_group is not None or context.compiled.custom:
        return None
    if len(request.instance_uuids) > SEVERAL:
        return None
    signature = context.ranked_way(request)
    if signature is None or not signature.simple or not _claims_change_their_rows_only(context, signature):
        return None
    start = context.fleet._history.hold()
    try:
        signature.refresh()
        counts = signature.ranking.counts(-1, len(signature.stages))
        considered, removed = sum(counts), dict(zip(signature.stage_names, counts[1:], strict=True))
        if not counts[0]:
            return refused(Scan(context, request), removed, considered)
        made = _claim_together(context, signature, request, counts[0])
        if not _Search(context, signature, request, counts[0], made).go_on():
            context.fleet._history.go(start)
            return None
        cells = request.spec.numa_topology is not None
        limits = [context.numa_limits(signature, request, each.row) if cells else None for each in made]
        seed = context.decision_seed()
        return Decision(
            sequence=context.next_sequence(),
            request_id=request.request_id,
            considered=considered,
            removed=removed,
            selections=context.selections(made, limits),
            seed=seed,
        )
    except BaseException:
        context.fleet._history.go(start)
        raise


def _claims_change_their_rows_only(context: DecisionContext, signature: Signature) -> bool:
    """True if a claim changes nothing that the request's rules read of other rows than its own."""
    return not context.fleet._shared_service_hosts and not any(term.get("by_load") for term in signature.terms)


def _claim_together(context: DecisionContext, signature: Signature, request: Request, passing: int) -> list[Claimed]:
    """A claim for each instance by one kernel call; fewer where the next instance has to be looked at by itself.
    ``passing``: hosts that pass for the first."""
    fleet, count = context.fleet, len(request.instance_uuids)
    if request.spec.numa_topology is not None:
        return []
    uuids = parse_many(request.instance_uuids)
    rows, consumers, weights = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count)
    parts = np.empty((count, len(signature.weigher_names), 3))
    done = place_alike(
        fleet._kernel,
        signature.ranking,
        signature.shape,
        uuids,
        fleet._projects.id(request.project_id),
        fleet._users.id(request.user_id),
        True,
        _judged_again(signature),
        rows,
        consumers,
        weights,
        parts,
    )
    claimed = consumers[:done].tolist()
    fleet._placed(claimed)
    if context.reads_instance_images and request.image_properties:
        fleet._image_properties.update(dict.fromkeys(claimed, request.image_properties))
    names = fleet.resource_classes
    amounts = {names[index]: amount for index, amount in signature.resources.items()}
    weighed: list[tuple[ScorePart, ...]] = [()] * done
    if passing > 1:
        weighers, by_field = signature.weigher_names, parts[:done].transpose(0, 2, 1).tolist()
        weighed = [tuple(map(ScorePart, weighers, *each)) for each in by_field]
    providers = format_many(fleet._providers.words(rows[:done]))
    found = zip(request.instance_uuids, rows.tolist(), claimed, weights.tolist(), providers, weighed, strict=False)
    return [
        Claimed(uuid, row, consumer, weight, {provider: amounts.copy()}, of_row)
        for uuid, row, consumer, weight, provider, of_row in found
    ]


def _judged_again(signature: Signature) -> list[tuple[int, float, float]]:
    """(column, low, high) of the filters that judge the hosts for each instance again."""
    judges = [stage.filter for stage in signature.stages]
    return [
        (column, low, high)
        for column, low, high, number in signature.bounds
        if (judge := judges[number]) is not None and not judge.once_per_request
    ]


class _Search:
    """The hosts of one request's instances, one after the other."""

    def __init__(
        self, context: DecisionContext, signature: Signature, request: Request, passing: int, made: list[Claimed]
    ) -> None:
        """``passing``: hosts that pass for the first instance; ``made``: claims, to which those of the others are
        added."""
        self._context, self._signature, self._request = context, signature, request
        self._passing, self._made = passing, made
        self._again = _judged_again(signature)
        self._beside: list[int] = []
        """Rows of claims that the filters still pass, whether or not they have room."""
        self._without: list[int] = []
        """Rows of claims that a filter refuses now."""

    def go_on(self) -> bool:
        """Make a claim for each instance that has none; False if one finds no host, or if only the scan can tell
        which."""
        ranking, made = self._signature.ranking, self._made
        others = self._request.instance_uuids[len(made) :]
        for row in dict.fromkeys(claimed.row for claimed in made) if others else ():
            self._sort_in(row)
        for uuid in others:
            found = self._next() if made else self._best(*ranking.best(-1, 1, self._context.decision_seed()))
            if found is None:
                return False
            row, weight = found
            several = self._passing - len(self._without) > 1
            parts = score_parts(self._signature, ranking, row, 0.0) if several else ()
            made.append(claim_row(self._context, self._signature, self._request, uuid, row, weight, parts, group=-1))
            self._signature.refresh()
            if row in self._beside:
                self._beside.remove(row)
            self._sort_in(row)
        return True

    def _sort_in(self, row: int) -> None:
        """Take in the row of a claim."""
        (self._beside if self._still_passes(row) else self._without).append(row)

    def _next(self) -> tuple[int, float] | None:
        """Row and weight of the host of a further instance."""
        rows, weights = best_beside(
            self._signature.ranking,
            np.array(self._without, np.int32),
            np.array(self._beside, np.int32),
            None,
            len(self._beside) + 3,
            self._context.decision_seed(),
        )
        return self._best(rows, weights)

    def _best(self, rows: Sequence[int], weights: Sequence[float]) -> tuple[int, float] | None:
        """The first of the rows, in order, that has room; None if none has, or another has the same weight and may have
        come first for the instance before."""
        fleet, resources = self._context.fleet, self._signature.resources
        usable = [
            (row, weight)
            for row, weight in zip(rows, weights, strict=True)
            if row not in self._beside or fleet._fits_row(row, resources)
        ]
        if not usable:
            return None
        equal = [row for row, weight in usable if weight == usable[0][1]]
        if len(equal) > 1 and not self._always_equal(equal, complete=len(equal) < len(usable)):
            return None
        return usable[0]

    def _always_equal(self, rows: list[int], *, complete: bool) -> bool:
        """Whether rows of equal weight had equal weights for the instances before, too: rows without claims that have
        the same raw values. ``complete``: there are no others of that weight."""
        if not complete or any(row in self._beside for row in rows):
            return False
        ranking = self._signature.ranking
        first = [(raw, multiplier) for raw, _, multiplier in ranking.row_parts(rows[0])]
        return all(first == [(raw, multiplier) for raw, _, multiplier in ranking.row_parts(row)] for row in rows[1:])

    def _still_passes(self, row: int) -> bool:
        """Whether the filters that are applied to every instance pass the row of a claim."""
        host = self._context.fleet._store.host
        return all(low <= host[column, row] <= high for column, low, high in self._again)
