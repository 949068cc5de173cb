"""No memory at any call of a command, of every kind, is no outcome: see test_unexpected_errors. Each try is a fork."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as f
from hostler.core import storage_commands as s
from hostler.core.cluster.state_digest import state_digest
from hostler.core.errors import InternalError, StateUnknown
from hostler.core.machine import guests
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.report_columns import columns_of
from hostler.core.tenancy import commands as c
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host_report import HostReport
from tests.tenancy.test_access import OWN, world
from tests.volumes.values import wish

from .orders import NOW, asked, hosts, order, uuid_of
from .test_unexpected_errors import FailingCall

GUEST = uuid_of(201)
NODES = tuple(f.NodeReport(f"vn{number}", 16, 65_536, 500) for number in range(2))
CAN = ("compute", "volumes", "snapshot", "resize", "live_migrate", "cold_migrate")


def tried(made: ServiceMachine, command: Any, at: int, now: float) -> tuple[int, str, str]:
    """(calls, kind of the outcome, digest of the state then) of a command in a child; no kind if an error came out."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        hook, found = FailingCall(at), (0, "", "")
        try:
            sys.setprofile(hook)
            try:
                (outcome,) = made.apply_batch([order(command, now=now)])
            finally:
                sys.setprofile(None)
            kind = f"{type(outcome).__name__} {outcome}" if isinstance(outcome, HostlerError) else "done"
            found = hook.calls, kind, state_digest(made.state).decode()
        finally:
            os.write(writing, msgspec.msgpack.encode(found))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return msgspec.msgpack.decode(said, type=tuple[int, str, str])


def life(made: ServiceMachine) -> Iterator[tuple[float, Any]]:
    """(seconds, command), each of which meets the state after those before: guests and volumes of a back end from their
    making to their end, moves, holds and what expires, volumes and their groups, pools and policies."""
    lives = made.state.lives

    def claim() -> int:
        return lives.guests[GUEST].claim

    for number in range(3):
        yield 0, p.SetService(name=f"node-{number}", disabled=True)
    yield 0, f.ReportBackend(name="bk", at=NOW, nodes=NODES, can=CAN)
    yield 0, f.ReportPools(name="bk", kind="model", at=NOW, pools=(f.PoolReport("p0", 1_000, 900, 0),))
    yield 0, f.CreateGuest(request=asked(201, project="own"), name="x")
    yield 0, f.BeginBuild(uuid=GUEST, claim=claim())
    yield 0, f.ConfirmGuest(uuid=GUEST, claim=claim(), power="on", key="k1")
    yield 0, f.SnapshotGuest(uuid=GUEST)
    ((snapshot, taken),) = lives.guests[GUEST].snapshots.items()
    yield 0, f.BeginSnapshot(uuid=GUEST, snapshot=snapshot, claim=taken.claim)
    yield 0, f.ConfirmSnapshot(uuid=GUEST, snapshot=snapshot, claim=taken.claim, key="s1")
    yield 0, f.DeleteGuestSnapshot(uuid=GUEST, snapshot=snapshot)
    yield 0, f.ClearSnapshot(uuid=GUEST, snapshot=snapshot, claim=lives.guests[GUEST].snapshots[snapshot].claim)
    yield 0, f.CreateVolume(request=wish(0x401, project="own"))
    yield from volumes_of_guests(made)
    yield 0, f.StopGuest(uuid=GUEST)
    yield 0, f.ConfirmGuest(uuid=GUEST, claim=claim(), power="off", key="k1")
    yield 0, f.ResizeGuest(uuid=GUEST, request=asked(project="own", vcpus=2))
    yield 0, f.BeginMigration(uuid=GUEST, claim=claim())
    yield 0, f.EndMigration(uuid=GUEST, claim=claim(), moved=True, power="off", key="k2")
    yield 0, f.MoveGuest(uuid=GUEST, kind="cold_migrate")
    yield 0, f.BeginMigration(uuid=GUEST, claim=claim())
    yield 0, f.EndMigration(uuid=GUEST, claim=claim(), moved=False, stayed="off", failure="transient")
    yield 0, f.LoseGuest(uuid=GUEST, claim=claim())
    yield 0, f.DeleteGuest(uuid=GUEST)
    yield from moves_and_storage()


def volumes_of_guests(made: ServiceMachine) -> Iterator[tuple[float, Any]]:
    lives = made.state.lives
    (volume,) = lives.volumes
    yield 0, f.BeginVolume(volume=volume, claim=lives.volumes[volume].claim)
    yield 0, f.ConfirmVolume(volume=volume, claim=lives.volumes[volume].claim, key="v1")
    for attached, command in ((True, f.AttachVolume), (False, f.DetachVolume)):
        yield 0, command(uuid=GUEST, volume=volume)
        claim = lives.guests[GUEST].claim
        yield 0, f.ConfirmAttachment(uuid=GUEST, claim=claim, volume=volume, attached=attached)


def moves_and_storage() -> Iterator[tuple[float, Any]]:
    for number in range(3):
        yield 0, p.SetService(name=f"node-{number}", disabled=False)
    moving = OWN["guest"]
    yield 0, p.Hold(request=asked(210, project="own"), expires_in=9.0)
    yield 0, p.ConfirmHold(uuids=(uuid_of(210),))
    yield 0, p.BeginMove(uuid=moving, migration=uuid_of(501), expires_in=100.0)
    yield 0, columns_of([HostReport(host=each, at=NOW, includes=frozenset()) for each in hosts(3)])
    yield 0, p.ConfirmMove(uuid=moving)
    yield 0, p.BeginMove(uuid=moving, kind="resize", request=asked(vcpus=2, project="own"), expires_in=5.0)
    yield 10, p.Heartbeats(names=("node-0",))
    yield 10, p.Move(uuid=moving)
    yield 10, s.BeginRetype(uuid=OWN["volume"], volume_type="fast", expires_in=5.0)
    yield 20, p.Heartbeats(names=("node-0",))
    together = tuple(wish(project="own") for _ in range(2))
    yield 20, s.PlaceTogether(request=asked(220, project="own"), volumes=together)
    yield 20, s.PlaceVolumeGroup(volumes=together, project_id="own", group_id=uuid_of(601))
    yield 20, s.DeleteVolumes(uuids=(OWN["volume"],), cascade=True)
    yield 20, c.SetPoolHosts(id="pool", add=("node-0", "node-1"))
    yield 20, c.DeleteProject(id="own-below")
    yield 20, p.SetPolicy(policy={"hostler": {"prepare": False}})


@pytest.mark.parametrize("points", [2, pytest.param(40, marks=pytest.mark.soak)])
def test_no_memory_at_any_call_of_a_command_is_no_outcome(points: int) -> None:
    made, came_out = world(), 0
    for seconds, command in life(made):
        now = NOW + seconds
        calls, kind, digest = tried(made, command, -1, now)
        assert kind == "done", (command, kind)
        for at in range(calls, 0, -max(1, calls // points)):  # near the end most has been done
            _, other, state = tried(made, command, at, now)
            assert not other or (other, state) == (kind, digest), (command, at, calls)
            came_out += not other
        made.apply(order(command, now=now))
    assert came_out > 60


def test_an_unexpected_error_amid_the_life_of_a_guest_is_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world()
    for seconds, command in life(made):
        made.apply(order(command, now=NOW + seconds))
        if isinstance(command, f.CreateGuest):
            break

    def fails(*_: object) -> int:
        raise InternalError("unexpected")

    monkeypatch.setattr(guests, "release", fails)
    with pytest.raises(StateUnknown):
        made.apply_batch([order(f.DeleteGuest(uuid=GUEST))])
