"""An order whose command was encoded before is the same bytes in the journal."""

from __future__ import annotations

import msgspec

from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import WrittenOrder

from .orders import order, place


def test_an_order_of_a_written_command_encodes_to_the_orders_own_bytes() -> None:
    machine, given = ServiceMachine(), order(place(11, project="p"))
    written = msgspec.msgpack.encode(given.command)
    again = WrittenOrder(given.now, given.user, msgspec.Raw(written), given.rules)
    assert msgspec.msgpack.encode(again) == machine.encode(given)
    assert machine.decode(msgspec.msgpack.encode(again)) == given
