"""Requests of a batch that Python has to see between two decisions (nested providers such as GPUs, weighers that read
hosts row by row): each decided by the ranking of its spec, without what only single answers need.

Score parts are left out, and the advice of refusals, as for requests that one kernel call decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...ext.constants import BUILDING
from ..candidates.for_engine import Amounts, Mappings
from ..fleet.consumers import Detail, Extras
from ..types.decision import Decision, Selection
from ..types.request import Request
from ..weighers.gpu import GpuRandomWeigher, GpuWeigher
from .claim import Claimed
from .context import DecisionContext
from .explain.refusals import quick_refusal
from .ranked_decision import best_by_rows
from .signature import Signature


class NestedAnswer(NamedTuple):
    """What was decided. ``taken`` says amounts by provider row, and the rows of each request group, none where a
    weigher chose the providers. ``row`` -1: refused."""

    sequence: int
    seed: int
    signature: Signature
    counts: list[int]
    row: int
    weight: float
    consumer: int
    taken: Callable[[], tuple[Amounts, Mappings]]


class OneNested(NamedTuple):
    """A request that was decided by itself, the uuid of its instance, and the answer."""

    request: Request
    uuid: str
    answer: NestedAnswer

    def removed(self, index: int) -> dict[str, int]:
        """Hosts that each stage removed. O(stages)."""
        return dict(zip(self.answer.signature.stage_names, self.answer.counts[1:], strict=True))

    def told(self, index: int) -> tuple[Request, str, NestedAnswer]:
        """All of it, as ``as_decision`` takes it. O(1)."""
        return self


def goes_here(context: DecisionContext, signature: Signature) -> bool:
    """True if requests for one instance with this signature can be decided here. O(weighers)."""
    spec = signature.request.spec
    if spec.numa_topology is not None or spec.pci_requests or signature.candidate_judges or signature.simple:
        return False
    if context.compiled.custom or context.reads_instance_images or context.fleet._shared_service_hosts:
        return False
    # What it draws depends on the instance.
    return not any(isinstance(weigher, GpuRandomWeigher) for weigher in signature.weighers)


def decide_nested(
    context: DecisionContext, signature: Signature, words: tuple[int, int], project: int, user: int
) -> NestedAnswer | None:
    """Choose the host of one instance, whose uuid no consumer has, and claim it. None, and nothing is changed, if the
    ranking cannot decide now. O(changes + log hosts), or one pass over all hosts for a request that is seldom asked
    for."""
    fleet = context.fleet
    signature.refresh()
    if signature.owner.row_values and not signature.ranks:
        return None
    seed = context.decision_seed()
    ranking = signature.searched()
    if ranking is not None:
        rows, weights, counts = best_by_rows(signature, ranking, 1, seed)
    else:
        ranking = signature.ranking
        rows, weights = ranking.best(-1, 1, seed)
        counts = ranking.counts(-1, len(signature.stages))
    if not rows:
        return NestedAnswer(context.next_sequence(), seed, signature, counts, -1, 0.0, -1, _nothing)
    row = rows[0]
    amounts, mapped = _taken(signature, row)
    own = amounts.get(row, {})
    shape = signature.shape
    if own != signature.resources:
        flavor, is_bfv = signature.request.flavor, signature.request.spec.is_bfv
        shape = fleet._shape(own, flavor.vcpus, flavor.memory_mb, flavor.local_disk_mb(is_bfv=is_bfv))
    elsewhere = tuple(
        [(other, index, n) for other, each in amounts.items() if other != row for index, n in each.items()]
    )
    extras = Extras(elsewhere) if elsewhere else None
    consumer = fleet._consumers.claim(Detail(words, row, shape, project, user, -1, BUILDING, extras))
    return NestedAnswer(
        context.next_sequence(), seed, signature, counts, row, weights[0], consumer, lambda: (amounts, mapped)
    )


def _nothing() -> tuple[Amounts, Mappings]:
    return {}, {}


def _taken(signature: Signature, row: int) -> tuple[Amounts, Mappings]:
    """What a guest takes in the tree of a host that passes."""
    if not signature.complex:
        return {row: signature.resources}, {}
    amounts, mapped = next(signature.trees.mapped(row))
    for weigher in signature.weighers:
        if isinstance(weigher, GpuWeigher):
            chosen = weigher.choose(signature.fleet, row, signature.request, amounts)
            if chosen is not None:
                return chosen, {}
    return amounts, mapped


def as_decision(context: DecisionContext, request: Request, uuid: str, answer: NestedAnswer) -> Decision:
    """An answer as a value; names and classes of rows are those of its time."""
    signature, counts, fleet = answer.signature, answer.counts, context.fleet
    removed, considered = dict(zip(signature.stage_names, counts[1:], strict=True)), sum(counts)
    selections: tuple[Selection, ...] = ()
    refusal = None
    if answer.row < 0:
        refusal = quick_refusal(removed, considered)
    else:
        names, (amounts_of_rows, mapped) = fleet.resource_classes, answer.taken()
        allocations = {
            fleet.uuid(row): {names[index]: amount for index, amount in amounts.items()}
            for row, amounts in amounts_of_rows.items()
        }
        mappings = {suffix: tuple(map(fleet.uuid, rows)) for suffix, rows in mapped.items()}
        claimed = Claimed(uuid, answer.row, answer.consumer, answer.weight, allocations, (), mappings)
        selections = (context.selection(claimed, (), None),)
    return Decision(
        sequence=answer.sequence,
        request_id=request.request_id,
        considered=considered,
        removed=removed,
        selections=selections,
        refusal=refusal,
        seed=answer.seed,
    )
