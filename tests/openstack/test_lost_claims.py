"""Claims that Nova has no use for are given back; what becomes of them while its databases are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostler.core.engine_commands import Release
from hostler.core.machine.guests import release
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.state import ServiceState
from hostler.drivers.openstack.bus.lost_claims import LostClaims
from hostler.placement.load.adding import add_hosts
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .clouds import instance_uuid


def claimed(count: int) -> ServiceState:
    """Instances that were placed, of which nothing has been heard."""
    state = ServiceMachine().state
    host = Host(host="a", vcpus_total=8, total_usable_ram_mb=16_384, total_usable_disk_gb=500)
    add_hosts(state.fleet, [host])
    spec = RequestSpec(flavor=Flavor(name="m", vcpus=1, memory_mb=64))
    for number in range(1, count + 1):
        state.engine.place(Request(spec=spec, instance_uuids=(instance_uuid(number),)))
    return state


async def given_back(state: ServiceState, meanwhile: Callable[[LostClaims], object]) -> tuple[int, list[str]]:
    """How many claims are said to be given back, and which are, if Nova has a use for none."""
    released: list[str] = []

    async def unplaced(uuids: list[str]) -> list[str]:
        meanwhile(claims)
        return sorted(uuids)

    async def submit(command: Any) -> None:
        assert isinstance(command, Release)
        released.extend(command.uuids)
        release(state, list(command.uuids))

    async def unmoved(nodes: dict[str, str]) -> list[str]:
        return []

    claims = LostClaims(lambda: state, unplaced, unmoved, submit)
    return await claims.release(), released


async def test_a_claim_is_kept_whose_instance_is_asked_for_while_the_databases_are_read() -> None:
    assert await given_back(claimed(2), lambda claims: claims.asked([instance_uuid(1)])) == (1, [instance_uuid(2)])


async def test_a_claim_that_is_released_while_the_databases_are_read_keeps_no_other() -> None:
    state = claimed(3)
    count, released = await given_back(state, lambda _: release(state, [instance_uuid(2)]))
    assert (count, released) == (2, [instance_uuid(1), instance_uuid(3)])
