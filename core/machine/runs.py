"""Which placements that come one after the other are decided together."""

from __future__ import annotations

from collections.abc import Sequence

from ...placement.decide.in_steps import is_long
from ..engine_commands import Place
from ..tenancy import rights
from ..tenancy.tenants import LOCAL, is_internal
from .orders import Order
from .state import ServiceState


def _is_alone(state: ServiceState, order: Order) -> bool:
    """True if whether a placement is allowed depends on what those before it have done."""
    assert isinstance(order.command, Place)
    return not is_internal(order.user) and rights.depends_on_guests(order.command.request, state)


def end_of_run(state: ServiceState, commands: Sequence[Order], first: int) -> int:
    """End of the placements of one time that begin at ``first`` and can be decided together; ``first`` if the one there
    is to be carried out by itself."""
    now, last = commands[first].now, first
    while last < len(commands):
        order = commands[last]
        command = order.command
        if order.now != now or type(command) is not Place:
            break
        if len(command.request.instance_uuids) > 1 and is_long(command.request):
            break
        if order.user != LOCAL and order.rules and _is_alone(state, order):
            return max(last, first + 1)
        last += 1
    return last
