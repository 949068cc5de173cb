"""An error that does not depend on a command (no memory, at any call or allocation) is never its outcome: either the
command is carried out as ever, or the error comes out, so that the process ends and its recovery gives one state."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import msgspec
import pytest

from hostler.core.engine_commands import AddHosts, Place, PlaceMany, Release, Resize
from hostler.core.errors import InternalError, StateUnknown
from hostler.core.forks import ChildFailed, tried_in_child
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, PlacementWrite
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy.commands import CreateDomain, CreateProject, SetLimits
from hostler.placement.api import in_steps
from hostler.placement.api.commands import ConsumerAllocations, SetAllocations
from hostler.placement.decide.context import DecisionContext
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.load import adding_in_steps, reports_in_steps
from hostler.placement.types.errors import DuplicateName, HostlerError
from hostler.placement.types.host_report import HostReport

from .orders import NOW, asked, hosts, order, place, uuid_of

COMMANDS: dict[str, AnyCommand] = {
    "place": place(11, project="p"),
    "place for several": place(11, 12, 13, project="p"),
    "place_many": PlaceMany(requests=tuple(asked(20 + each, project="p") for each in range(5))),
    "release": Release(uuids=(uuid_of(1), uuid_of(2))),
    "resize": Resize(uuid=uuid_of(1), request=asked(project="p", vcpus=2)),
    "add_hosts": AddHosts(hosts=hosts(6)[4:]),
    "create_project": CreateProject(id="q", domain="d"),
}


class CameOut(Exception):
    """The error that ends the process."""


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Generators that are closed while memory is short raise errors that cannot be caught."""


def made() -> ServiceMachine:
    machine = ServiceMachine()
    limits = SetLimits(scope="project:p", limits={"VCPU": 100})
    setting: list[AnyCommand] = [
        AddHosts(hosts=hosts(4)),
        CreateDomain(id="d"),
        CreateProject(id="p", domain="d"),
        limits,
    ]
    for command in (*setting, place(1, project="p"), place(2, project="p")):
        machine.apply(order(command))
    return machine


def state_of(machine: ServiceMachine) -> Any:
    state = machine.state
    state.fleet.check()
    guests = {uuid: place for row in range(state.fleet.rows) for uuid, place in _guests(state.fleet, row)}
    return guests, msgspec.to_builtins(state.usage), state.engine.sequence, list(state.tenants.projects)


def _guests(fleet: Any, row: int) -> list[tuple[str, str]]:
    return [(uuid, fleet.name(row)) for uuid in sorted(fleet.instances(row))]


class FailingCall:
    """Makes the n-th call of a Python function raise MemoryError. ``calls`` counts them."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "/hostler/" in frame.f_code.co_filename:
            self.calls += 1
            if self.calls == self.at:
                raise MemoryError


def tried(command: AnyCommand, hook: Any) -> tuple[ServiceMachine, Any]:
    machine = made()
    given = order(command)
    sys.setprofile(hook)
    try:
        (outcome,) = machine.apply_batch([given])
    finally:
        sys.setprofile(None)
    return machine, outcome


@pytest.mark.parametrize("name", COMMANDS)
def test_no_memory_at_any_call_is_no_outcome(name: str) -> None:
    command = COMMANDS[name]
    count = FailingCall(-1)
    machine, outcome = tried(command, count)
    expected = state_of(machine)
    assert not isinstance(outcome, HostlerError)
    came_out = 0
    step = max(1, count.calls // 120)
    for at in range(1, count.calls + 1, step):
        try:
            machine, again = tried(command, FailingCall(at))
        except (MemoryError, StateUnknown):
            came_out += 1
        else:
            assert not isinstance(again, HostlerError), f"call {at} of {count.calls}"
            assert state_of(machine) == expected, f"call {at} of {count.calls}"
    assert came_out > 0


@pytest.mark.parametrize("name", ["place", "place_many", "resize"])
def test_no_memory_at_any_allocation_is_no_outcome(name: str) -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python was built without its test modules")
    command = COMMANDS[name]
    machine, _ = tried(command, None)
    expected = state_of(machine)
    ends = []

    def without(at: int) -> None:
        machine, given = made(), order(command)
        outcome: Any = None
        try:
            testcapi.set_nomemory(at, at + 1)
            try:
                (outcome,) = machine.apply_batch([given])
            finally:
                testcapi.remove_mem_hooks()
        except (MemoryError, StateUnknown, SystemError):
            raise CameOut from None
        assert not isinstance(outcome, HostlerError), f"allocation {at}"
        assert state_of(machine) == expected, f"allocation {at}"

    for at in range(0, 600, 7):
        try:
            tried_in_child(partial(without, at))
        except ChildFailed as failed:
            ends.append(str(failed))
    # Some of numpy's functions do not check whether they were given memory.
    assert set(ends) <= {repr(CameOut()), f"the child ended with status {-signal.SIGSEGV}"}
    assert ends


@pytest.mark.parametrize("after", [False, True])
def test_an_error_of_the_engine_that_depends_on_the_command_is_refused_and_all_is_as_before(
    after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = made()
    before = state_of(machine)
    real: Callable[..., Any] = Fleet.claim

    def broken(self: Fleet, *arguments: Any, **named: Any) -> Any:
        if after:
            real(self, *arguments, **named)
        raise ZeroDivisionError

    command = Resize(uuid=uuid_of(1), request=asked(project="p", vcpus=2))
    with monkeypatch.context() as patch:
        patch.setattr(Fleet, "claim", broken)
        (outcome,) = machine.apply_batch([order(command)])
    assert isinstance(outcome, InternalError)
    assert state_of(machine) == before
    assert not isinstance(machine.apply(order(Place(request=asked(11, project="p")))), HostlerError)


def test_an_error_among_the_claims_of_several_instances_leaves_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = made()
    before = state_of(machine)
    with monkeypatch.context() as patch:
        patch.setattr(DecisionContext, "selections", lambda *_: 1 / 0)
        (outcome,) = machine.apply_batch([order(place(11, 12, project="p"))])
    assert isinstance(outcome, InternalError)
    assert state_of(machine) == before
    assert not isinstance(machine.apply(order(Place(request=asked(11, project="p")))), HostlerError)


class FullList(list[Any]):
    """A list that takes in nothing more."""

    def append(self, _: object) -> None:
        raise MemoryError


@pytest.mark.parametrize("command", [place(11, 12, project="p"), COMMANDS["release"], COMMANDS["resize"]])
def test_changes_that_cannot_be_recorded_are_undone(command: AnyCommand) -> None:
    machine = made()
    before = state_of(machine)
    held = machine.state.fleet._history.hold()
    held.path = FullList()
    with pytest.raises((MemoryError, StateUnknown)):
        machine.apply_batch([order(command)])
    held.path = []
    assert state_of(machine) == before


def test_a_refusal_that_comes_of_undoing_what_was_cut_off_is_no_outcome() -> None:
    machine = made()
    with pytest.MonkeyPatch.context() as patch:

        def refused(*_: object, **__: object) -> None:
            try:
                raise MemoryError
            finally:
                raise DuplicateName("met while undoing")

        patch.setattr(Fleet, "claim", refused)
        with pytest.raises(StateUnknown):
            machine.apply_batch([order(Resize(uuid=uuid_of(1), request=asked(project="p", vcpus=2)))])


STEPWISE: dict[str, tuple[Any, str, AnyCommand]] = {
    "add_hosts": (adding_in_steps, "_in_steps", AddHosts(hosts=hosts(100)[4:])),
    "report_hosts": (
        reports_in_steps,
        "_in_steps",
        columns_of([HostReport(host=each, at=NOW) for _ in range(30) for each in hosts(4)]),
    ),
    "allocations": (
        in_steps,
        "write",
        PlacementWrite(
            command=SetAllocations(
                consumers={
                    uuid_of(number): ConsumerAllocations(allocations={}, project_id="p", user_id="u")
                    for number in range(20)
                },
                now=NOW,
            )
        ),
    ),
}


@pytest.mark.parametrize("name", STEPWISE)
def test_steps_that_can_neither_go_on_nor_be_undone_are_not_tried_again_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = made()
    history = machine.state.fleet._history
    owner, function, command = STEPWISE[name]
    fails = 0

    def no_memory(*_: object, **__: object) -> Any:
        nonlocal fails
        fails += 1
        with history.undoing():
            raise MemoryError

    def taken(*_: object) -> None:
        raise DuplicateName("met while undoing")

    monkeypatch.setattr(owner, function, no_memory)
    monkeypatch.setattr(history, "go", taken)
    with pytest.raises((RuntimeError, StateUnknown)):
        machine.apply_batch([order(command)])
    assert fails == 1


def test_an_error_between_the_engine_and_the_account_comes_out() -> None:
    machine = made()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(machine.state.usage), "add", lambda *_: 1 / 0)
        with pytest.raises(StateUnknown):
            machine.apply_batch([order(place(11))])
