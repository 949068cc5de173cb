"""Commands on many guests or volumes are carried out in steps: with the outcome and the state that they have at once,
and between two steps with the state after a command on those so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.cluster.state_digest import state_digest
from hostler.core.errors import StateUnknown
from hostler.core.machine import guests, long_commands, volume_moves
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.tenancy import commands as c
from hostler.placement.types.errors import HostlerError
from tests.core.orders import NOW, asked, machine, order, place, uuid_of
from tests.volumes.values import place as place_volume
from tests.volumes.values import storage_machine

COUNT = 10
VOLUME, SNAPSHOT, BACKUP, OTHER = 100, 200, 300, 999


def uuids(first: int, count: int = COUNT) -> tuple[str, ...]:
    return tuple(map(uuid_of, range(first, first + count)))


def world() -> ServiceMachine:
    """Guests 1 to 10, which are held, one of them with a claim; volumes, of which one has most snapshots; backups."""
    made = storage_machine()
    for number in range(1, 1 + COUNT):
        made.apply(order(p.Hold(request=asked(number, project=f"p{number % 3}", memory_mb=64), expires_in=100.0)))
    for number in range(COUNT):
        made.apply(order(place_volume(VOLUME + number, 1)))
        made.apply(order(s.CreateVolumeBackup(uuid=uuid_of(VOLUME + number), backup_id=uuid_of(BACKUP + number))))
        volume = uuid_of(VOLUME + number // 7)
        made.apply(order(s.CreateVolumeSnapshot(uuid=volume, snapshot_id=uuid_of(SNAPSHOT + number))))
    return made


def outcome_of(made: ServiceMachine, given: Order, pause: Callable[[], object] = lambda: None) -> Any:
    steps = made.carry_out([given])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            (outcome,) = end.value
            return (type(outcome), str(outcome)) if isinstance(outcome, HostlerError) else outcome
        pause()


MANY: dict[str, tuple[Callable[[Sequence[str]], Any], Sequence[str]]] = {
    "release": (lambda some: p.Release(uuids=tuple(some)), uuids(1)),
    "release of one that is not there": (lambda some: p.Release(uuids=tuple(some)), (*uuids(1), uuid_of(OTHER))),
    "release of one twice": (lambda some: p.Release(uuids=tuple(some)), (*uuids(1), uuid_of(1))),
    "release of no uuid": (lambda some: p.Release(uuids=tuple(some)), (*uuids(1), "x")),
    "release of another's claim": (lambda some: p.Release(uuids=tuple(some), claim="c"), uuids(1)),
    "spawned": (lambda some: p.Spawned(uuids=tuple(some)), uuids(1)),
    "spawned twice": (lambda some: p.Spawned(uuids=tuple(some)), uuids(1) * 2),
    "confirm_hold": (lambda some: p.ConfirmHold(uuids=tuple(some)), uuids(1)),
    "confirm_hold of one that is not held": (lambda some: p.ConfirmHold(uuids=tuple(some)), (*uuids(1), uuid_of(99))),
    "delete_volumes": (lambda some: s.DeleteVolumes(uuids=tuple(some), cascade=True), uuids(VOLUME)),
    "delete_volumes with snapshots": (lambda some: s.DeleteVolumes(uuids=tuple(some)), uuids(VOLUME)),
    "delete_volumes without": (lambda some: s.DeleteVolumes(uuids=tuple(some)), uuids(VOLUME + 2, COUNT - 2)),
    "delete_volumes twice": (
        lambda some: s.DeleteVolumes(uuids=tuple(some), cascade=True),
        (*uuids(VOLUME), uuid_of(VOLUME)),
    ),
    "delete_volume_snapshots": (lambda some: s.DeleteVolumeSnapshots(uuids=tuple(some)), uuids(SNAPSHOT)),
    "delete_volume_snapshots twice": (lambda some: s.DeleteVolumeSnapshots(uuids=tuple(some)), uuids(SNAPSHOT) * 2),
    "delete_volume_backups": (lambda some: s.DeleteVolumeBackups(uuids=tuple(some)), uuids(BACKUP)),
    "delete_volume_backups of none": (lambda some: s.DeleteVolumeBackups(uuids=tuple(some)), uuids(OTHER)),
}


POOLS = [
    c.CreatePool(id="q", hosts=("node-2", "node-0", "node-1"), exclusive=True),
    c.CreatePool(id="pool", hosts=("node-2", "node-0", "node-1")),
    c.CreatePool(id="q", hosts=("node-2", "node-0", "node-9")),
    c.SetPoolHosts(id="pool", add=("node-1", "node-2"), remove=("node-0", "node-1")),
    c.SetPoolHosts(id="pool", add=("node-2", "node-2"), remove=("node-2",)),
    c.SetPoolHosts(id="q", add=("node-1", "node-2")),
    c.SetPoolHosts(id="pool", add=("node-1", "node-9")),
    c.DeletePool(id="pool"),
    c.DeletePool(id="q"),
]


@pytest.mark.parametrize("command", POOLS, ids=lambda each: type(each).__name__)
def test_hosts_join_and_leave_pools_in_steps(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    states, pauses = [], [0]

    def pause() -> None:
        pauses[0] += 1

    for few in (1, 1_000):
        monkeypatch.setattr(long_commands, "POOL_HOSTS", few)
        made = machine()
        made.apply(order(c.CreatePool(id="pool", hosts=("node-0", "node-1"))))
        pauses[0] = 0
        outcome = outcome_of(made, order(command), pause)
        refused = isinstance(outcome, tuple)
        assert (pauses[0] > 1) == (few == 1 and not refused)
        states.append(
            (
                outcome,
                state_digest(made.state),
                {name: made.state.pools.hosts(made.state.fleet, name) for name in made.state.pools.pools},
            )
        )
    assert states[0] == states[1]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few objects are many."""
    monkeypatch.setattr(long_commands, "GUESTS", 3)
    monkeypatch.setattr(long_commands, "VOLUMES", 3)
    monkeypatch.setattr(long_commands, "LOOKED_AT", 4)
    monkeypatch.setattr(guests, "EXPIRING", 3)
    monkeypatch.setattr(volume_moves, "ENDING", 2)


@pytest.mark.parametrize("name", MANY)
def test_steps_end_as_one_does_and_are_each_a_command_on_those_so_far(name: str, few: None) -> None:
    command, names = MANY[name]
    with pytest.MonkeyPatch.context() as whole:
        whole.setattr(long_commands, "in_steps", lambda *_: None)
        whole.setattr("hostler.core.machine.machine.in_steps", lambda *_: None)
        at_once = world()
        expected = outcome_of(at_once, order(command(names)))
        prefixes = {state_digest(world().state)}
        for count in range(1, len(names) + 1):
            partly = world()
            if not isinstance(outcome_of(partly, order(command(names[:count]))), tuple):
                prefixes.add(state_digest(partly.state))
    made, seen = world(), list[bytes]()
    found = outcome_of(made, order(command(names)), lambda: seen.append(state_digest(made.state)))
    assert found == expected
    assert state_digest(made.state) == state_digest(at_once.state)
    assert set(seen) <= prefixes
    if not isinstance(expected, tuple):
        assert len(set(seen)) > 2 or (name.startswith("spawned") and len(seen) > 2)


def test_holds_and_moves_that_end_together_end_in_steps(few: None) -> None:
    made, pauses = world(), list[int]()
    for number in range(5):
        outcome_of(made, order(s.BeginVolumeMigration(uuid=uuid_of(VOLUME + 5 + number), expires_in=50.0)))
    assert len(made.state.volumes.ends) == 5
    outcome_of(made, order(place(50), now=NOW + 200.0), lambda: pauses.append(len(made.state.holds)))
    assert pauses[:3] == [7, 4, 1]
    assert pauses[3:5] == [0, 0]
    assert not made.state.holds
    assert not made.state.volumes.ends


def test_a_refusal_of_a_part_when_others_are_done_is_no_outcome(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    released, real = [0], guests.release

    def release(state: Any, some: Sequence[str], claim: str = "") -> int:
        released[0] += 1
        if released[0] > 1:
            raise HostlerError("unforeseen")
        return real(state, some, claim)

    monkeypatch.setattr(guests, "release", release)
    with pytest.raises(StateUnknown):
        outcome_of(world(), order(p.Release(uuids=uuids(1))))


def test_deleting_all_snapshots_of_one_volume_reads_them_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made = storage_machine()
    made.apply(order(place_volume(1, 1)))
    names = uuids(1_000, 200)
    for each in names:
        made.apply(order(s.CreateVolumeSnapshot(uuid=uuid_of(1), snapshot_id=each)))
    counted, records = [0], made.state.volumes
    real = type(records).amounts

    def amounts(self: Any, uuid: str) -> dict[str, int]:
        counted[0] += 1
        return real(self, uuid)

    monkeypatch.setattr(type(records), "amounts", amounts)
    assert outcome_of(made, order(s.DeleteVolumeSnapshots(uuids=names))) == 200
    assert counted[0] <= 2 * (200 // long_commands.VOLUMES + 1)
    assert records.volumes[uuid_of(1)].snapshots == ()
    assert not records.snapshots
