"""One request placed in steps, on a fork of the fleet: between two steps the fleet is as it was before the request."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Final, Protocol

from ..fleet.fleet import Fleet
from ..types.decision import Decision
from ..types.errors import HostlerError
from ..types.request import Request
from .batch import place_batch
from .batch_decisions import Decisions
from .batch_plan import ALONE, Plan
from .context import DecisionContext
from .placement import place_in_steps

MANY: Final = 12
"""Instances of a request that are placed at once."""
ALTERNATES: Final = 64
"""Alternates, of all instances, that are told at once."""


class AsksForInstances(Protocol):
    """What says how many instances a request is for, and how many alternates of each are to be told."""

    @property
    def instance_uuids(self) -> Sequence[str]: ...
    @property
    def alternates(self) -> int: ...


def is_long(request: AsksForInstances) -> bool:
    """True for a request that takes several steps."""
    instances = len(request.instance_uuids)
    return instances > MANY or (instances > 1 and instances * request.alternates > ALTERNATES)


def place_alone(
    context: DecisionContext, request: Request, place: Callable[[Request], Decision]
) -> Generator[None, None, Decisions]:
    """``place_batch`` of one request, not strict, in steps. Between two of them others may look at the fleet and change
    forks of it, but not the fleet."""
    fleet = context.fleet
    fleet._reclaim.if_due()
    plan = Plan(context, fleet, [request], place, strict=False)
    if plan.errors or plan.which[0] != ALONE:
        return place_batch(context, [request], place, strict=False)
    decisions, aside = Decisions(context, 1), context.fork(None)
    try:
        decision = yield from place_in_steps(aside, aside.begin(request))
    except HostlerError as error:
        Fleet._drop(fleet, aside._fleet)
        decisions._add_error(0, error.with_traceback(None))
    except BaseException:
        Fleet._drop(fleet, aside._fleet)
        raise
    else:
        Fleet._replace(fleet, aside._fleet)
        decisions._add(0, decision)
    fleet._change_log.add_reader(decisions)
    return decisions
