"""A uuid names a volume, a snapshot, a backup or a volume group, and never two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hostler.core import storage_commands as s
from hostler.core.lifecycle_commands import CreateGuest, CreateVolume, GuestVolume
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import UUIDS_APART
from hostler.placement.types.errors import DuplicateName
from tests.core.orders import asked, order, uuid_of
from tests.volumes.values import do, place, storage_machine, wish

KEPT = {"volume": 1, "snapshot": 2, "backup": 3, "volume group": 4}
MAKING: dict[str, list[Callable[[str], Any]]] = {
    "snapshot": [lambda uuid: s.CreateVolumeSnapshot(uuid=uuid_of(1), snapshot_id=uuid)],
    "backup": [lambda uuid: s.CreateVolumeBackup(uuid=uuid_of(1), backup_id=uuid)],
    "volume group": [lambda uuid: s.PlaceVolumeGroup(volumes=(wish(),), group_id=uuid)],
    "volume": [
        lambda uuid: s.PlaceVolume(request=named(uuid)),
        lambda uuid: s.ManageVolume(request=named(uuid), backend="node-0@lvm#a"),
        lambda uuid: s.PlaceVolumeGroup(volumes=(wish(), named(uuid))),
        lambda uuid: s.PlaceTogether(request=asked(9), volumes=(named(uuid),)),
        lambda uuid: CreateVolume(request=named(uuid)),
        lambda uuid: CreateGuest(request=asked(9), volumes=(GuestVolume(request=named(uuid)),)),
    ],
}


def named(uuid: str) -> s.AskedVolume:
    return msgspec.structs.replace(wish(), volume_id=uuid)


def with_one_of_each() -> ServiceMachine:
    made = storage_machine()
    do(
        made,
        place(1),
        s.CreateVolumeSnapshot(uuid=uuid_of(1), snapshot_id=uuid_of(2)),
        s.CreateVolumeBackup(uuid=uuid_of(1), backup_id=uuid_of(3)),
        s.PlaceVolumeGroup(volumes=(wish(5),), group_id=uuid_of(4)),
    )
    return made


@pytest.mark.parametrize("kind", MAKING)
def test_what_is_made_has_no_uuid_of_another_kind(kind: str) -> None:
    made = with_one_of_each()
    before = msgspec.msgpack.encode(made.state.volumes)
    for make in MAKING[kind]:
        for other, number in KEPT.items():
            if other != kind:
                with pytest.raises(DuplicateName, match=f"{other} {uuid_of(number)} exists"):
                    do(made, make(uuid_of(number)))
    assert msgspec.msgpack.encode(made.state.volumes) == before


def test_a_group_and_its_volumes_have_uuids_of_their_own() -> None:
    made = storage_machine()
    with pytest.raises(DuplicateName, match=r"volume group .* exists"):
        do(made, s.PlaceVolumeGroup(volumes=(wish(7),), group_id=uuid_of(7)))


def test_a_journal_of_before_keeps_the_uuids_that_it_has() -> None:
    made = with_one_of_each()
    again = s.CreateVolumeSnapshot(uuid=uuid_of(1), snapshot_id=uuid_of(1))
    made.apply(msgspec.structs.replace(order(again), rules=UUIDS_APART - 1))
    assert uuid_of(1) in made.state.volumes.snapshots
