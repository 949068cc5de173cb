"""Uuids that the service makes follow from its seed, so that a user can name them before their turn: nothing that
others have is overwritten, and no user is kept out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.machine.machine import ServiceMachine
from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.pools.reports import BackendReport
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec
from tests.volumes.values import do, storage_machine, used, wish
from tests.volumes.values import place as place_volume

from .orders import asked, machine, order, place, uuid_of

GROUP = s.PlaceVolumeGroup(volumes=(wish(8, 1, project="q"),), project_id="q")


def with_volumes() -> ServiceMachine:
    made = storage_machine()
    do(made, place_volume(1, 10, project="p"), place_volume(2, 20, project="q"))
    return made


def test_a_volume_is_not_placed_over_another_one() -> None:
    made, other = with_volumes(), with_volumes()
    # Placing the squatter takes a number itself, so the uuid is that of the second volume from here.
    next_one = [do(other, place_volume(project="q")).selection.volume_id for _ in range(2)][1]
    mine = msgspec.structs.replace(wish(size_gb=7, project="p"), volume_id=next_one)
    do(made, s.PlaceVolume(request=mine))
    decision = do(made, place_volume(project="q"))
    assert decision.placed
    assert decision.selection.volume_id != next_one
    assert used(made, "project:p") == {"volumes": 2, "gigabytes": 17}
    assert used(made, "project:q") == {"volumes": 2, "gigabytes": 30}
    do(made, s.DeleteVolumes(uuids=(next_one,)))
    made.state.fleet.pools.check()


@pytest.mark.parametrize(
    ("mine", "theirs", "uuid"),
    [
        (s.CreateVolumeSnapshot(uuid=uuid_of(1)), s.CreateVolumeSnapshot(uuid=uuid_of(2)), "snapshot_id"),
        (s.CreateVolumeBackup(uuid=uuid_of(1)), s.CreateVolumeBackup(uuid=uuid_of(2)), "backup_id"),
        (s.PlaceVolumeGroup(volumes=(wish(7, 1, project="p"),), project_id="p"), GROUP, "group_id"),
    ],
    ids=["snapshot", "backup", "group"],
)
def test_a_snapshot_backup_or_group_is_not_kept_over_another_one(mine: Any, theirs: Any, uuid: str) -> None:
    made = with_volumes()
    next_one = getattr(do(with_volumes(), theirs), uuid)
    do(made, msgspec.structs.replace(mine, **{uuid: next_one}))
    before = used(made, "project:p")
    answer = do(made, theirs)
    assert getattr(answer, uuid) not in ("", next_one)
    assert used(made, "project:p") == before
    counted = made.state.usage
    made.state.sum_up()
    assert made.state.usage == counted


@pytest.mark.parametrize("many", [False, True])
def test_no_guest_is_refused_for_a_uuid_that_was_taken_before_its_turn(many: bool) -> None:
    made, other = machine(), machine()
    next_one = [other.apply(order(place())).selected.instance_uuid for _ in range(2)][1]
    squatter = msgspec.structs.replace(asked(), instance_uuids=(next_one,))
    assert made.apply(order(p.Place(request=squatter))).placed
    if many:
        placed = made.apply(order(p.PlaceMany(requests=(asked(), asked(9), asked()))))
        assert placed.placed == 3
        assert len({next_one, *placed.instance_uuids}) == 4
    else:
        found = [made.apply(order(place())).selected.instance_uuid for _ in range(3)]
        assert len({next_one, *found}) == 4
    made.state.fleet.check()


def test_many_volumes_do_not_get_ids_that_are_in_use() -> None:
    pool = {"pool_name": "a", "total_capacity_gb": 1_000, "free_capacity_gb": 1_000}

    def engine() -> VolumeEngine:
        made = VolumeEngine(seed=5)
        made.pools.report(BackendReport(host="h@lvm", capabilities={"pools": [pool]}, at=1.0))
        return made

    new = VolumeRequest(spec=VolumeSpec(size_gb=1))
    ids = [each.selection.volume_id for each in engine().place_many([new] * 4) if each.selection]
    found = engine()
    found.place(new.with_changes(volume_id=ids[1]))
    requests = [new, new, new.with_changes(volume_id=ids[3]), new]
    got = [each.selection.volume_id for each in found.place_many(requests) if each.selection]
    assert len(set(got)) == 4
    assert ids[1] not in got
    found.pools.check()
    assert len(found.pools.volumes) == 5
