"""Random moves of guests, with reports, holds and clients of the Placement API between their steps, against sums over a
list: each guest counts once, its claims count where they are, and no move that hangs keeps out what comes after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, PlacementWrite
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy import commands as c
from hostler.placement.api import commands as api
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host_report import HostReport

from .orders import NOW, asked, hosts, order, uuid_of

PROJECTS = ("p", "q")


@dataclass
class Guest:
    """VCPUs that a guest claims where it is or goes to, and on the source of its move; None: there is no claim."""

    project: str
    here: int | None
    source: int | None = None
    moving: bool = False
    ends: float | None = None
    confirms: bool = False
    held_until: float | None = None


class Moves(RuleBasedStateMachine):
    """Commands on a few guests of two projects."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.now, self.journal = ServiceMachine(), NOW, list[bytes]()
        self.guests: dict[str, Guest] = {}
        self.number = 0

    def do(self, command: AnyCommand, seconds: float = 1.0) -> Any:
        """The answer, or the error that refused it. The time goes on first, which ends moves and holds."""
        self.now += seconds
        data = self.made.encode(order(command, now=self.now))
        self.journal.append(data)
        for guest in list(self.guests.values()):
            if guest.moving and guest.ends is not None and guest.ends <= self.now:
                self.end(guest, confirm=guest.confirms)
        for uuid, guest in list(self.guests.items()):
            if guest.held_until is not None and guest.held_until <= self.now:
                guest.held_until = None
                if guest.here is not None:
                    del self.guests[uuid]
        (answer,) = self.made.apply_batch([self.made.decode(data)])
        return answer

    @staticmethod
    def end(guest: Guest, *, confirm: bool) -> None:
        confirmed = guest.source is None and guest.here is not None  # by a client of Placement: no source is left
        if not confirm and not confirmed:
            guest.here = guest.source
        guest.source, guest.moving, guest.ends = None, False, None

    @initialize()
    def begin(self) -> None:
        commands: list[AnyCommand] = [p.AddHosts(hosts=hosts(3)), c.CreateDomain(id="d")]
        for command in (*commands, *(c.CreateProject(id=name, domain="d") for name in PROJECTS)):
            self.do(command)

    @rule(project=st.sampled_from(PROJECTS), vcpus=st.integers(1, 6), hold=st.sampled_from([None, 20.0, 900.0]))
    def place(self, project: str, vcpus: int, hold: float | None) -> None:
        self.number += 1
        request = asked(self.number, project=project, vcpus=vcpus)
        answer = self.do(p.Place(request=request) if hold is None else p.Hold(request=request, expires_in=hold))
        if answer.placed:
            until = None if hold is None else self.now + hold
            self.guests[uuid_of(self.number)] = Guest(project, vcpus, held_until=until)

    @precondition(lambda self: self.guests)
    @rule(
        data=st.data(), size=st.sampled_from([None, 3]), ends=st.sampled_from([None, 30.0, 2_000.0]), ok=st.booleans()
    )
    def begin_move(self, data: st.DataObject, size: int | None, ends: float | None, ok: bool) -> None:
        uuid = data.draw(st.sampled_from(sorted(self.guests)))
        request, on_expiry = None if size is None else asked(vcpus=size), "confirm" if ok else "revert"
        kind = "cold_migrate" if size is None else "resize"
        move = p.BeginMove(uuid=uuid, kind=kind, request=request, expires_in=ends, on_expiry=on_expiry)  # type: ignore[arg-type]  # literals
        answer = self.do(move)
        guest = self.guests.get(uuid)
        if isinstance(answer, HostlerError) or not answer.placed:
            return
        assert guest is not None
        assert not guest.moving
        claimed = answer.selected.allocations[answer.selected.provider_uuid]["VCPU"]
        guest.source, guest.here = guest.here, claimed
        guest.moving, guest.ends, guest.confirms = True, None if ends is None else self.now + ends, ok

    @precondition(lambda self: any(guest.moving for guest in self.guests.values()))
    @rule(data=st.data(), confirm=st.booleans())
    def end_move(self, data: st.DataObject, confirm: bool) -> None:
        uuid = data.draw(st.sampled_from(sorted(name for name, guest in self.guests.items() if guest.moving)))
        answer = self.do(p.ConfirmMove(uuid=uuid) if confirm else p.RevertMove(uuid=uuid))
        guest = self.guests.get(uuid)
        if guest is not None and guest.moving:
            assert not isinstance(answer, HostlerError), "the end of a move cannot fail"
            self.end(guest, confirm=confirm)

    @precondition(lambda self: self.guests)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        uuid = data.draw(st.sampled_from(sorted(self.guests)))
        if not isinstance(self.do(p.Release(uuids=(uuid,))), HostlerError):
            del self.guests[uuid]

    @precondition(lambda self: self.guests)
    @rule(data=st.data(), source=st.booleans())
    def deleted_by_a_client_of_placement(self, data: st.DataObject, source: bool) -> None:
        uuid = data.draw(st.sampled_from(sorted(self.guests)))
        migration = next((move.migration for move in self.made.state.engine.moves() if move.instance == uuid), "")
        name = migration if source and migration else uuid
        answer = self.do(PlacementWrite(command=api.DeleteAllocations(consumer=name, now=self.now)))
        guest = self.guests.get(uuid)
        if isinstance(answer, HostlerError) or guest is None:
            return
        if name == uuid:
            guest.here = guest.held_until = None
        else:
            guest.source = None

    @rule(seconds=st.sampled_from([1.0, 50.0, 700.0]))
    def report_that_includes_no_guest(self, seconds: float) -> None:
        at = self.now + seconds
        answer = self.do(columns_of([HostReport(host=host, at=at, includes=frozenset()) for host in hosts(3)]), seconds)
        for uuid in answer.expired:
            assert not self.guests[uuid].moving, "a move keeps its claims"
            del self.guests[uuid]

    @rule(seconds=st.sampled_from([1.0, 40.0, 1_000.0]))
    def time_passes(self, seconds: float) -> None:
        assert not isinstance(self.do(p.Heartbeats(names=()), seconds), HostlerError)

    @invariant()
    def quotas_are_sums(self) -> None:
        for project in PROJECTS:
            mine = [guest for guest in self.guests.values() if guest.project == project]
            claims = [size for guest in mine for size in (guest.here, guest.source) if size is not None]
            expected = {
                "instances": sum(guest.here is not None for guest in mine),
                "VCPU": sum(claims),
                "MEMORY_MB": 1_024 * len(claims),
            }
            found = self.made.state.usage.of(f"project:{project}")
            assert found == {name: amount for name, amount in expected.items() if amount}

    @invariant()
    def the_state_is_whole(self) -> None:
        state, usage = self.made.state, self.made.state.usage
        state.fleet.check()
        state.sum_up()
        assert state.usage == usage
        state.usage = usage
        moving = {uuid for uuid, guest in self.guests.items() if guest.moving}
        assert {move.instance for move in state.engine.moves()} == moving
        consumers = state.fleet._kernel.consumers
        assert all(uuid in moving or consumers.get(uuid) >= 0 for uuid in state.requests.uuids())

    def teardown(self) -> None:
        again = ServiceMachine()
        for data in self.journal:
            again.apply_batch([again.decode(data)])
        assert again.state.usage == self.made.state.usage
        assert again.state.engine.moves() == self.made.state.engine.moves()


TestMoves = pytest.mark.property(Moves.TestCase)
TestMoves.settings = settings(
    max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
