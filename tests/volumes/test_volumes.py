"""Volumes as commands of the service: what each charges, counts and gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core import storage_commands as s
from hostler.core.engine_commands import SetPolicy
from hostler.core.machine import queries as q
from hostler.core.machine import volume_backend_queries as vb
from hostler.core.machine import volume_queries as vq
from hostler.core.machine import what_if as w
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import QuotaExceeded
from hostler.placement.storage.with_guests import Locality
from hostler.placement.types.errors import DuplicateName, InUse, InvalidValue, NoValidHost, UnknownName
from tests.core.orders import LOCAL, NOW, asked, uuid_of
from tests.volumes.values import do, free, place, report, reports, storage_machine, used, volume_type, wish

GOLD_A, GOLD_B = "node-0@lvm#a", "node-0@lvm#b"


def where(made: ServiceMachine, number: int) -> str:
    return made.state.storage.pools.volumes[uuid_of(number)].backend_id


def limited(**limits: int) -> ServiceMachine:
    """With a domain d, a project p in it, and limits of p."""
    made = storage_machine()
    do(made, c.CreateDomain(id="d"), c.CreateProject(id="p", domain="d"), c.SetLimits(scope="project:p", limits=limits))
    return made


def test_a_volume_is_placed_by_type_and_charged() -> None:
    made = storage_machine()
    decision = do(made, place(1, 100, volume_type="silver"))
    assert decision.selected.backend_id == "node-1@lvm#a"
    assert free(made, "node-1@lvm#a") == 600
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)))
    assert free(made, "node-1@lvm#a") == 700


def test_a_volume_that_no_pool_can_take_is_a_decision_and_leaves_nothing() -> None:
    made = storage_machine()
    decision = do(made, place(1, 5_000))
    assert decision.refusal is not None
    assert not made.state.volumes.volumes
    assert not used(made, "project:")


def test_reports_that_are_older_do_not_undo_newer_ones() -> None:
    made = storage_machine()
    taken = do(made, reports(report("node-1@lvm", ("a", 5), at=NOW - 10)))
    assert taken == 0
    assert free(made, "node-1@lvm#a") == 700
    do(made, place(1, 100, volume_type="silver"), now=NOW + 5)
    do(made, reports(report("node-1@lvm", ("a", 700), at=NOW + 4, tier="silver")), now=NOW + 6)
    assert free(made, "node-1@lvm#a") == 600


def test_a_report_from_the_future_does_not_shut_out_later_ones() -> None:
    made = storage_machine()
    do(made, reports(report("node-1@lvm", ("a", 50), at=NOW + 1e6)), now=NOW + 1)
    do(made, reports(report("node-1@lvm", ("a", 40))), now=NOW + 2)
    assert free(made, "node-1@lvm#a") == 40


def test_reports_are_taken_all_or_none() -> None:
    made = storage_machine()
    with pytest.raises(InvalidValue):
        do(made, reports(report("new@lvm", ("a", 1)), report("bad#name", ("a", 1))))
    with pytest.raises(InvalidValue, match="JSON"):
        do(made, reports(report("new@lvm", ("a", 1)), report("x@lvm", ("a", 1), secret=b"bytes")))
    assert "new@lvm" not in made.state.storage.pools.services


def test_a_backend_is_disabled_enabled_and_removed() -> None:
    made = storage_machine()
    do(made, place(1, 1, volume_type="gold"), s.SetVolumeBackend(host="node-0@lvm", disabled=True))
    assert do(made, place(2, 1, volume_type="gold")).refusal is not None
    do(made, s.SetVolumeBackend(host="node-0@lvm", disabled=False))
    assert do(made, place(3, 1, volume_type="gold")).placed
    with pytest.raises(InUse):
        do(made, s.RemoveVolumeBackend(host="node-0@lvm"))
    do(made, s.RemoveVolumeBackend(host="node-2@lvm"), s.RemoveVolumeBackend(host="node-0@lvm", force=True))
    assert [line.host for line in q.answer(made.state, LOCAL, vb.VolumeBackends())] == ["node-1@lvm"]
    do(made, s.DeleteVolumes(uuids=(uuid_of(1), uuid_of(3))))


def test_quotas_count_volumes_gigabytes_and_snapshots_in_all_and_by_type() -> None:
    made = limited()
    do(made, place(1, 10, project="p", volume_type="gold"), place(2, 5, project="p"))
    do(made, s.CreateVolumeSnapshot(uuid=uuid_of(1)))
    assert used(made, "project:p") == {
        "volumes": 2,
        "gigabytes": 25,
        "snapshots": 1,
        "volumes_gold": 1,
        "gigabytes_gold": 20,
        "snapshots_gold": 1,
    }
    assert used(made, "domain:d") == used(made, "project:p")


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        ({"volumes": 1}, True),
        ({"gigabytes": 15}, True),
        ({"gigabytes_gold": 15}, True),
        ({"volumes_gold": 1}, True),
        ({"per_volume_gigabytes": 9}, True),
        ({"gigabytes_silver": 1, "volumes_silver": 0}, False),
        ({"gigabytes": 20, "volumes": 2, "per_volume_gigabytes": 10}, False),
    ],
)
def test_limits_bind_exactly(limits: dict[str, int], refused: bool) -> None:
    made = limited(**{name: limit for name, limit in limits.items() if name != "per_volume_gigabytes"})
    do(made, place(1, 10, project="p", volume_type="gold"))
    do(made, c.SetLimits(scope="project:p", limits=limits))
    before = used(made, "project:p"), free(made, GOLD_A)
    if refused:
        with pytest.raises(QuotaExceeded):
            do(made, place(2, 10, project="p", volume_type="gold"))
        assert (used(made, "project:p"), free(made, GOLD_A)) == before
    else:
        assert do(made, place(2, 10, project="p", volume_type="gold")).placed


def test_a_project_without_a_limit_has_no_more_than_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostler.core.tenancy.usage.MOST", {"backups": 2})
    made = limited()
    do(made, place(1, project="p"))
    for _ in range(2):
        do(made, s.CreateVolumeBackup(uuid=uuid_of(1)))
    with pytest.raises(QuotaExceeded, match="most without a limit"):
        do(made, s.CreateVolumeBackup(uuid=uuid_of(1)))


def test_a_volume_grows_within_its_pool_and_quota() -> None:
    made = limited(gigabytes=150)
    do(made, place(1, 100, project="p", volume_type="gold"))
    assert do(made, s.ExtendVolume(uuid=uuid_of(1), new_size_gb=140)).placed
    assert free(made, GOLD_A) == 760
    with pytest.raises(QuotaExceeded):
        do(made, s.ExtendVolume(uuid=uuid_of(1), new_size_gb=151))
    with pytest.raises(InvalidValue):
        do(made, s.ExtendVolume(uuid=uuid_of(1), new_size_gb=140))
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)))
    assert free(made, GOLD_A) == 900
    assert not used(made, "project:p")


def test_a_retype_in_place_counts_both_types_until_it_ends() -> None:
    made = limited()
    do(made, volume_type("fast"), place(1, 10, project="p", volume_type="gold"))
    do(made, s.BeginRetype(uuid=uuid_of(1), volume_type="fast"))
    assert used(made, "project:p")["gigabytes_fast"] == used(made, "project:p")["gigabytes_gold"] == 10
    assert used(made, "project:p")["gigabytes"] == 10
    moved = do(made, s.ConfirmVolumeMove(uuid=uuid_of(1)))
    assert (moved.volume_type, moved.backend_id) == ("fast", GOLD_A)
    assert "gigabytes_gold" not in used(made, "project:p")
    assert free(made, GOLD_A) == 890


def test_a_retype_elsewhere_charges_both_pools_and_reverts() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="gold"))
    assert do(made, s.BeginRetype(uuid=uuid_of(1), volume_type="silver")).refusal is not None
    decision = do(made, s.BeginRetype(uuid=uuid_of(1), volume_type="silver", migration_policy="on-demand"))
    assert decision.selected.backend_id == "node-1@lvm#a"
    assert (free(made, GOLD_A), free(made, "node-1@lvm#a")) == (890, 690)
    moved = do(made, s.RevertVolumeMove(uuid=uuid_of(1)))
    assert (moved.volume_type, moved.backend_id) == ("gold", GOLD_A)
    assert (free(made, GOLD_A), free(made, "node-1@lvm#a")) == (890, 700)


def test_a_migration_keeps_both_ends_until_it_is_confirmed() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="gold"))
    assert do(made, s.BeginVolumeMigration(uuid=uuid_of(1))).selected.backend_id == GOLD_B
    for again in (
        s.BeginVolumeMigration(uuid=uuid_of(1)),
        s.BeginRetype(uuid=uuid_of(1), volume_type="silver"),
        s.ExtendVolume(uuid=uuid_of(1), new_size_gb=20),
        s.CreateVolumeSnapshot(uuid=uuid_of(1)),
    ):
        with pytest.raises(InvalidValue, match="under way"):
            do(made, again)
    assert (free(made, GOLD_A), free(made, GOLD_B)) == (890, 790)
    do(made, s.ConfirmVolumeMove(uuid=uuid_of(1)))
    assert (free(made, GOLD_A), free(made, GOLD_B)) == (900, 790)
    assert where(made, 1) == GOLD_B


def test_a_target_is_judged_by_every_filter() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="gold"))
    refused = do(made, s.BeginVolumeMigration(uuid=uuid_of(1), target="node-1@lvm")).refusal
    assert "tier is 'silver'" in refused.sentence
    with pytest.raises(InvalidValue, match="already"):
        do(made, s.BeginVolumeMigration(uuid=uuid_of(1), target=GOLD_A))
    assert do(made, s.BeginVolumeMigration(uuid=uuid_of(1), target="node-0@lvm")).selected.backend_id == GOLD_B


def test_a_revert_cannot_fail_when_the_old_pool_is_gone_and_a_move_expires() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="gold"), s.BeginVolumeMigration(uuid=uuid_of(1), expires_in=60.0))
    do(made, reports(report("node-0@lvm", ("b", 790), tier="gold")), now=NOW + 30)
    do(made, s.SetBackupService(host="any"), now=NOW + 61)
    assert where(made, 1) == GOLD_A
    assert free(made, GOLD_B) == 800
    assert made.state.volumes.volumes[uuid_of(1)].move is None
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)))


def test_deleting_during_a_move_gives_both_ends_back() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="gold"), s.BeginVolumeMigration(uuid=uuid_of(1)))
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)))
    assert (free(made, GOLD_A), free(made, GOLD_B)) == (900, 800)


def test_snapshots_are_charged_and_keep_their_volume() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="gold"))
    first = do(made, s.CreateVolumeSnapshot(uuid=uuid_of(1)))
    second = do(made, s.CreateVolumeSnapshot(uuid=uuid_of(1), snapshot_id=uuid_of(21)))
    assert second.snapshot_id == uuid_of(21)
    assert free(made, GOLD_A) == 870
    with pytest.raises(InUse):
        do(made, s.DeleteVolumes(uuids=(uuid_of(1),)))
    with pytest.raises(InUse):
        do(made, s.BeginVolumeMigration(uuid=uuid_of(1)))
    do(made, s.DeleteVolumeSnapshots(uuids=(first.snapshot_id,)))
    assert free(made, GOLD_A) == 880
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),), cascade=True))
    assert free(made, GOLD_A) == 900
    assert not made.state.volumes.snapshots


def test_a_volume_of_a_source_goes_to_its_pool_and_is_of_its_type() -> None:
    made = limited()
    do(made, place(1, 10, project="p", volume_type="silver"))
    snapshot = do(made, s.CreateVolumeSnapshot(uuid=uuid_of(1))).snapshot_id
    for number, source in ((2, uuid_of(1)), (3, snapshot)):
        do(made, place(number, 20, project="p", source=source))
        assert where(made, number) == where(made, 1)
        assert made.state.volumes.volumes[uuid_of(number)].volume_type == "silver"
    with pytest.raises(InvalidValue, match="at least 10 GiB"):
        do(made, place(4, 9, project="p", source=snapshot))
    for project, source in (("other", snapshot), ("p", uuid_of(99))):
        with pytest.raises(UnknownName, match="of this project"):
            do(made, place(4, 20, project=project, source=source))


def test_a_backup_goes_to_a_service_of_the_zone() -> None:
    made = limited()
    do(made, place(1, 10, project="p"), s.SetBackupService(host="far", availability_zone="az2"))
    found = do(made, s.CreateVolumeBackup(uuid=uuid_of(1)))
    assert (found.host, found.size_gb) == ("node-0", 10)
    assert do(made, s.CreateVolumeBackup(uuid=uuid_of(1), availability_zone="az2")).host == "far"
    assert do(made, s.CreateVolumeBackup(uuid=uuid_of(1), same_host=True)).host == "node-0"
    assert used(made, "project:p")["backup_gigabytes"] == 30
    do(made, s.SetBackupService(host="node-0", disabled=True))
    with pytest.raises(NoValidHost, match="zone nova"):
        do(made, s.CreateVolumeBackup(uuid=uuid_of(1)))
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)), s.DeleteVolumeBackups(uuids=(found.backup_id,)))
    assert used(made, "project:p") == {"backups": 2, "backup_gigabytes": 20}


def test_a_group_is_placed_on_one_backend_and_its_later_volumes_too() -> None:
    made = limited()
    volumes = (wish(1, 850, project="p"), wish(2, 700, project="p"))
    answer = do(made, s.PlaceVolumeGroup(volumes=volumes, project_id="p"))
    assert answer.decision.backend == "node-0@lvm"
    do(made, place(3, 10, project="p", group=answer.group_id))
    assert where(made, 3).startswith("node-0@lvm")
    assert used(made, "project:p")["groups"] == 1
    for refused in (s.BeginVolumeMigration(uuid=uuid_of(3)), s.DeleteVolumeGroup(uuid=answer.group_id)):
        with pytest.raises(InUse):
            do(made, refused)
    do(made, s.DeleteVolumes(uuids=(uuid_of(1), uuid_of(2), uuid_of(3))), s.DeleteVolumeGroup(uuid=answer.group_id))
    assert not used(made, "project:p")


def test_a_guest_and_its_volumes_are_placed_together_or_not_at_all() -> None:
    made = limited(gigabytes=100)
    near = Locality(level="host")
    together = s.PlaceTogether(
        request=asked(1, project="p"), volumes=(wish(11, 20, project="p"), wish(12, 30, project="p")), locality=near
    )
    decision = do(made, together)
    assert decision.guest.selected.host == "node-0"
    assert {where(made, 11), where(made, 12)} <= {GOLD_A, GOLD_B}
    assert used(made, "project:p") == {
        "instances": 1,
        "VCPU": 1,
        "MEMORY_MB": 1_024,
        "volumes": 2,
        "gigabytes": 50,
    }
    before = used(made, "project:p"), made.state.fleet.version
    more = s.PlaceTogether(request=asked(2, project="p"), volumes=(wish(13, 60, project="p"),))
    with pytest.raises(QuotaExceeded):
        do(made, more)
    do(made, c.SetLimits(scope="project:p", limits={"gigabytes": -1}))
    refused = do(made, s.PlaceTogether(request=asked(2, project="p"), volumes=(wish(13, 6_000, project="p"),)))
    assert refused.refusal is not None
    assert used(made, "project:p") == before[0]
    assert uuid_of(13) not in made.state.volumes.volumes


def test_a_volume_that_its_backend_cannot_make_is_tried_elsewhere() -> None:
    made = storage_machine()
    filters = ["AvailabilityZoneFilter", "CapacityFilter", "CapabilitiesFilter", "IgnoreAttemptedHostsFilter"]
    do(made, SetPolicy(policy={"storage": {"scheduler_default_filters": filters}}), place(1, 10, volume_type="gold"))
    again = do(made, s.RetryVolume(uuid=uuid_of(1)))
    assert again.selected.backend_id == GOLD_B
    assert (free(made, GOLD_A), free(made, GOLD_B)) == (900, 790)
    last = do(made, s.RetryVolume(uuid=uuid_of(1)))
    assert last.refusal is not None
    assert (free(made, GOLD_A), free(made, GOLD_B)) == (900, 800)
    assert uuid_of(1) not in made.state.volumes.volumes


def test_a_managed_volume_counts_and_charges_nothing() -> None:
    made = limited()
    do(made, s.ManageVolume(request=wish(1, 50, project="p"), backend="node-1@lvm#a"))
    assert free(made, "node-1@lvm#a") == 700
    assert used(made, "project:p") == {"volumes": 1, "gigabytes": 50}


def test_the_policy_decides_about_volumes_and_a_malformed_one_is_refused() -> None:
    made = storage_machine()
    most_used = {"storage": {"capacity_weight_multiplier": -1.0}}
    do(made, SetPolicy(policy=most_used))
    assert do(made, place(1, 10)).selected.backend_id == "node-2@lvm#a"
    with pytest.raises(UnknownName):
        do(made, SetPolicy(policy={"storage": {"scheduler_default_filters": ["NoneSuch"]}}))
    assert made.state.policy == most_used


def test_a_malformed_table_of_a_journal_from_before_is_left_out() -> None:
    made = storage_machine()
    old = Order(NOW, LOCAL, SetPolicy(policy={"storage": {"none": 1}}), 1)
    made.apply(old)
    assert made.state.policy == {}
    assert do(made, place(1)).placed


def test_pools_are_listed_by_name_type_and_capabilities() -> None:
    made = storage_machine()

    def names(**what: Any) -> list[str]:
        return [line.name for line in q.answer(made.state, LOCAL, vb.VolumePools(**what))]

    assert names() == [GOLD_A, GOLD_B, "node-1@lvm#a", "node-2@lvm#a"]
    assert names(name=GOLD_B) == [GOLD_B]
    assert names(volume_type="silver") == names(filters={"tier": "silver"}) == ["node-1@lvm#a", "node-2@lvm#a"]
    assert names(filters={"free_capacity_gb": "700"}) == ["node-1@lvm#a"]
    (line,) = q.answer(made.state, LOCAL, vb.VolumePools(name=GOLD_A, detail=True))
    assert line.capabilities["tier"] == "gold"


def test_questions_are_answered_and_what_if_changes_nothing() -> None:
    made = storage_machine()
    do(made, place(1, 100, volume_type="gold"))
    before = msgspec.msgpack.encode(made.state.volumes), free(made, GOLD_A)
    story = q.answer(made.state, LOCAL, vq.ExplainVolume(request=wish(size_gb=10, volume_type="gold")))
    assert {each.backend_id for each in story.refused} == {"node-1@lvm#a", "node-2@lvm#a"}
    assert q.answer(made.state, LOCAL, vq.FitsVolume(request=wish(size_gb=100, volume_type="silver"))).count == 13
    tried = q.answer(
        made.state,
        LOCAL,
        w.WhatIf(
            commands=[
                s.SetVolumeBackend(host="node-0@lvm", disabled=True),
                place(2, 10),
                s.DeleteVolumes(uuids=(uuid_of(1),)),
                s.ExtendVolume(uuid=uuid_of(1), new_size_gb=300),
            ]
        ),
    )
    assert tried[1].result.selected.backend_id == "node-1@lvm#a"
    assert tried[2].result == 1
    assert tried[3].error is not None
    assert (msgspec.msgpack.encode(made.state.volumes), free(made, GOLD_A)) == before
    assert do(made, place(3, 10)).selected.backend_id in (GOLD_A, GOLD_B)


def test_types_in_use_stay_and_names_are_unique() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="gold"))
    with pytest.raises(InUse):
        do(made, c.DeleteVolumeType(name="gold"))
    with pytest.raises(DuplicateName):
        do(made, volume_type("gold"))
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)), c.DeleteVolumeType(name="gold"))
    with pytest.raises(UnknownName):
        do(made, place(2, 10, volume_type="gold"))


def test_a_snapshot_of_the_state_has_all_of_it(tmp_path: Path) -> None:
    made = limited(gigabytes=1_000)
    do(made, place(1, 10, project="p", volume_type="gold"), place(2, 10, project="p"))
    do(made, s.CreateVolumeSnapshot(uuid=uuid_of(1)), s.CreateVolumeBackup(uuid=uuid_of(1)))
    do(made, s.BeginVolumeMigration(uuid=uuid_of(2), expires_in=60.0))
    do(made, s.PlaceVolumeGroup(volumes=(wish(3, 1, project="p"),), project_id="p"))
    made.save(tmp_path)
    other = ServiceMachine()
    other.load(tmp_path)
    for each in (
        reports(report("node-1@lvm", ("a", 650), tier="silver")),
        s.RevertVolumeMove(uuid=uuid_of(2)),
        place(5, 20, project="p", volume_type="silver"),
        s.CreateVolumeBackup(uuid=uuid_of(5)),
    ):
        assert do(made, each, now=NOW + 1) == do(other, each, now=NOW + 1)
    assert msgspec.msgpack.encode(other.state.volumes) == msgspec.msgpack.encode(made.state.volumes)
    assert other.state.usage == made.state.usage
    other.state.sum_up()
    assert other.state.usage == made.state.usage


def test_answers_are_kept_for_those_who_ask_again() -> None:
    made = storage_machine()
    for command in (
        place(1),
        s.CreateVolumeSnapshot(uuid=uuid_of(1)),
        s.CreateVolumeBackup(uuid=uuid_of(1)),
        s.PlaceVolumeGroup(volumes=(wish(3),)),
        s.BeginVolumeMigration(uuid=uuid_of(2)),
        s.PlaceTogether(request=asked(7), volumes=(wish(4),)),
    ):
        if isinstance(command, s.BeginVolumeMigration):
            do(made, place(2))
        answer = do(made, command)
        assert made.decode_result(made.encode_result(answer)) == answer
