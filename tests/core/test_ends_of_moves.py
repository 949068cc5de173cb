"""Moves of guests end whatever has happened to their ends meanwhile, and quotas count each guest once all along."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, PlacementWrite
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy import commands as c
from hostler.placement.api import commands as api
from hostler.placement.types.errors import InUse
from hostler.placement.types.host import Host
from hostler.placement.types.host_report import HostReport

from .orders import NOW, asked, hosts, machine, order, place, uuid_of

GUEST, MIGRATION = uuid_of(1), uuid_of(99)
ONE = {"instances": 1, "VCPU": 1, "MEMORY_MB": 1_024}
BOTH = {"instances": 1, "VCPU": 2, "MEMORY_MB": 2_048}


def moving(**options: Any) -> ServiceMachine:
    """A guest of project p with a move under way."""
    made = machine()
    do(made, c.CreateDomain(id="d"), c.CreateProject(id="p", domain="d"), c.CreateUser(id="u", domain="d"))
    do(made, c.Grant(user="u", role="member", scope="project:p"), place(1, project="p"))
    assert do(made, p.BeginMove(uuid=GUEST, migration=MIGRATION, **options)).placed
    return made


def do(made: ServiceMachine, *commands: AnyCommand, now: float = NOW, user: str = "@local") -> Any:
    return [made.apply(order(command, now=now, user=user)) for command in commands][-1]


def used(made: ServiceMachine) -> dict[str, int]:
    """What the project uses, which is what a sum over all consumers gives."""
    counted = made.state.usage.of("project:p")
    made.state.sum_up()
    assert made.state.usage.of("project:p") == counted
    return counted


def deletes(uuid: str) -> PlacementWrite:
    return PlacementWrite(command=api.DeleteAllocations(consumer=uuid, now=NOW))


def reports(*found: Host, at: float, **fields: Any) -> p.ReportHosts:
    return columns_of([HostReport(host=host, at=at, **fields) for host in found])


def test_both_ends_count_for_resources_and_the_guest_counts_once() -> None:
    made = moving()
    assert used(made) == BOTH
    do(made, p.ConfirmMove(uuid=GUEST))
    assert used(made) == ONE


def test_a_project_that_takes_over_a_moving_guest_counts_it_once() -> None:
    made = machine()
    do(made, place(1, project="q"), p.BeginMove(uuid=GUEST), c.CreateDomain(id="d"))
    do(made, c.CreateProject(id="q", domain="d", adopt=True))
    assert made.state.usage.of("domain:d") == BOTH


@pytest.mark.parametrize("on_expiry", ["revert", "confirm"])
@pytest.mark.parametrize("gone", [(GUEST,), (MIGRATION,), (GUEST, MIGRATION)])
def test_a_move_expires_whose_ends_were_removed_by_clients_of_placement(gone: tuple[str, ...], on_expiry: str) -> None:
    made = moving(expires_in=10.0, on_expiry=on_expiry)
    do(made, *map(deletes, gone))
    used(made)
    do(made, place(2), now=NOW + 11)
    assert made.state.engine.moves() == []
    kept = (on_expiry == "revert" and gone == (GUEST,)) or gone == (MIGRATION,)
    assert used(made) == (ONE if kept else {})
    made.state.fleet.check()


def test_the_target_of_a_move_keeps_its_claim_however_long_the_move_takes() -> None:
    made = moving(expires_in=5_000.0)
    for after in (1.0, 700.0, 1_500.0):
        answer = do(made, reports(*hosts(3), at=NOW + after), now=NOW + after)
        assert answer.expired == ()
    assert used(made) == BOTH
    do(made, place(2), now=NOW + 6_000)
    assert used(made) == ONE


def test_a_guest_stands_on_the_source_of_its_move_though_a_report_leaves_it_out() -> None:
    made = moving()
    source = made.state.engine.moves()[0].source
    do(made, reports(*hosts(3), at=NOW + 1, includes=frozenset()), now=NOW + 1)
    fleet = made.state.fleet
    assert GUEST in dict(fleet._consumers.on(fleet.row(source)))


@pytest.mark.parametrize("confirm", [True, False])
def test_a_move_ends_though_its_source_was_removed(confirm: bool) -> None:
    made = moving()
    fleet, source = made.state.fleet, made.state.engine.moves()[0].source
    do(made, deletes(MIGRATION))
    fleet._consumers.stand_on(fleet.row(source), {})
    do(made, p.RemoveHost(name=source, force=True))
    do(made, p.ConfirmMove(uuid=GUEST) if confirm else p.RevertMove(uuid=GUEST))
    assert used(made) == ONE, "a revert of what clients of Placement have confirmed leaves the guest on the target"
    fleet.check()


@pytest.mark.parametrize("command", [p.RevertMove, p.ConfirmMove])
def test_a_move_that_clients_of_placement_confirmed_leaves_the_guest_on_its_target(command: Any) -> None:
    made = moving(kind="resize", request=asked(1, project="p", vcpus=2))
    target = made.state.engine.moves()[0].target
    do(made, deletes(MIGRATION), command(uuid=GUEST))
    assert made.state.fleet.consumer(GUEST).provider == target
    assert used(made) == {"instances": 1, "VCPU": 2, "MEMORY_MB": 1_024}
    assert do(made, p.Move(uuid=GUEST)).amounts()["VCPU"] == 2, "it is what the guest is asked with from now on"


@pytest.mark.parametrize("uuid", [MIGRATION, MIGRATION.replace("-", "").upper()])
@pytest.mark.parametrize("what", ["release", "move", "resize", "begin_move"])
def test_what_holds_the_source_of_a_move_is_no_instance(what: str, uuid: str) -> None:
    made = moving()
    commands: dict[str, AnyCommand] = {
        "release": p.Release(uuids=(uuid,)),
        "move": p.Move(uuid=uuid, request=place(project="p").request),
        "resize": p.Resize(uuid=uuid, request=place(project="p").request),
        "begin_move": p.BeginMove(uuid=uuid, request=place(project="p").request),
    }
    with pytest.raises(InUse, match=f"the move of instance {GUEST}"):
        do(made, commands[what])
    if what == "release":
        with pytest.raises(InUse):
            do(made, commands[what], user="u")
    assert used(made) == BOTH
