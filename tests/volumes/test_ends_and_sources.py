"""Volumes count once through failed attempts, and are where their source, group or move says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from hostler.core import storage_commands as s
from hostler.core.machine import volumes
from hostler.core.machine.machine import ServiceMachine
from hostler.placement.types.errors import InUse, InvalidValue
from tests.core.orders import NOW, asked, order, uuid_of
from tests.volumes.values import do, free, place, report, reports, storage_machine, wish


def test_another_attempt_with_a_guest_gives_back_nothing_that_was_not_taken() -> None:
    made = storage_machine()
    together = s.PlaceTogether(request=asked(1), volumes=(wish(2, 50), wish(3, 20)))
    pools = ("node-0@lvm#a", "node-0@lvm#b", "node-1@lvm#a", "node-2@lvm#a")
    before = sum(free(made, pool) for pool in pools)
    assert volumes.place_with_guest(made.state, together, NOW, ("node-0@lvm#a",)).placed
    assert sum(free(made, pool) for pool in pools) == before - 70
    do(made, s.DeleteVolumes(uuids=(uuid_of(2), uuid_of(3))))
    assert sum(free(made, pool) for pool in pools) == before


def test_the_backend_that_a_migrating_volume_comes_from_is_not_removed() -> None:
    made = storage_machine()
    do(made, place(1, 10), s.BeginVolumeMigration(uuid=uuid_of(1), target="node-1@lvm"))
    with pytest.raises(InUse, match="node-0@lvm has 1 volumes"):
        do(made, s.RemoveVolumeBackend(host="node-0@lvm"))
    do(made, s.ConfirmVolumeMove(uuid=uuid_of(1)), s.RemoveVolumeBackend(host="node-0@lvm"))


def test_a_volume_of_a_group_goes_to_the_pool_of_its_source() -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="silver"))
    answer = do(made, s.PlaceVolumeGroup(volumes=(wish(2, 10, source=uuid_of(1)), wish(3, 5))))
    assert {each.backend_id for each in answer.decision.selections} == {"node-1@lvm#a"}
    refused = do(made, s.PlaceVolumeGroup(volumes=(wish(4, 10, source=uuid_of(1), volume_type="gold"),)))
    assert refused.decision.backend is None


def test_a_volume_of_a_group_is_taken_over_on_the_backend_of_the_group_only() -> None:
    made = storage_machine()
    do(made, s.PlaceVolumeGroup(group_id=uuid_of(70), volumes=(wish(1, 10, volume_type="gold"),)))
    with pytest.raises(InvalidValue, match="node-0@lvm, not on node-1"):
        do(made, s.ManageVolume(request=wish(2, 10, group=uuid_of(70)), backend="node-1@lvm#a"))
    assert do(made, s.ManageVolume(request=wish(2, 10, group=uuid_of(70)), backend="node-0@lvm#b")).placed
    assert made.state.volumes.members(uuid_of(70)) == [uuid_of(1), uuid_of(2)]


def test_pools_keep_the_order_of_their_report_in_a_snapshot(tmp_path: Path) -> None:
    """A snapshot whose pools were in alphabetical order could not be loaded."""
    made = storage_machine()
    do(made, reports(report("new@lvm", ("ssd", 500), ("hdd", 500), ("10", 500), ("9", 500), tier="new")))
    do(made, place(1, 1))
    made.save(tmp_path)
    other = ServiceMachine()
    other.load(tmp_path)
    assert list(other.state.storage.pools.backends["new@lvm"].pools) == ["ssd", "hdd", "10", "9"]
    same = [do(each, place(2, 400, volume_type=None)).selected.backend_id for each in (made, other)]
    assert same[0] == same[1]
    other.state.fleet.pools.check()


def test_volumes_follow_their_backend_into_a_cluster_and_out_of_it() -> None:
    """Cinder's volume service includes its volumes as it starts in a cluster; they could not be changed any more."""
    made = storage_machine()
    do(made, place(1, 10, volume_type="silver"), s.CreateVolumeSnapshot(uuid=uuid_of(1), snapshot_id=uuid_of(9)))
    do(made, s.PlaceVolumeGroup(group_id=uuid_of(70), volumes=(wish(2, 5, volume_type="silver"),)))
    do(made, place(3, 7, volume_type="gold"), s.BeginVolumeMigration(uuid=uuid_of(3), target="node-0@lvm#b"))
    assert free(made, "node-1@lvm#a") == 675
    for number, (cluster, name) in enumerate((("c@lvm", "c@lvm#a"), (None, "node-1@lvm#a"))):
        now, size = NOW + 10 * (number + 1), 20 + number
        do(made, reports(report("node-1@lvm", ("a", 600), cluster=cluster, tier="silver")), now=now)
        pools = made.state.storage.pools
        assert pools.volumes[uuid_of(1)].charged == (name,)
        assert do(made, s.ExtendVolume(uuid=uuid_of(1), new_size_gb=size), now=now + 1).placed
        assert do(made, place(None, 20, source=uuid_of(9)), now=now + 1).selected.backend_id == name
        assert do(made, place(None, 1, group=uuid_of(70)), now=now + 1).selected.backend_id == name
        pools.check()
    before = free(made, "node-1@lvm#a")
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),), cascade=True), now=NOW + 30)
    assert free(made, "node-1@lvm#a") == before + 21 + 10


@pytest.mark.parametrize("confirm", [True, False])
def test_a_move_ends_though_the_backend_of_either_end_joined_a_cluster(confirm: bool) -> None:
    made = storage_machine()
    do(made, place(1, 10), s.BeginVolumeMigration(uuid=uuid_of(1), target="node-1@lvm#a"))
    do(made, reports(report("node-1@lvm", ("a", 690), cluster="c@lvm")), now=NOW + 1)
    do(made, reports(report("node-0@lvm", ("a", 890), ("b", 800), cluster="e@lvm")), now=NOW + 1)
    do(made, s.ConfirmVolumeMove(uuid=uuid_of(1)) if confirm else s.RevertVolumeMove(uuid=uuid_of(1)), now=NOW + 2)
    assert (free(made, "e@lvm#a"), free(made, "c@lvm#a")) == ((900, 690) if confirm else (890, 700))
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)), now=NOW + 3)
    assert (free(made, "e@lvm#a"), free(made, "c@lvm#a")) == (900, 700)


@pytest.mark.parametrize("away", [{"disabled": True}, {"up": False}, {"frozen": True}])
def test_what_volumes_take_outlasts_that_their_backend_is_away(away: dict[str, Any], tmp_path: Path) -> None:
    """The last report is from before the volume: read again, it would make the pool look emptier than it is."""
    made = storage_machine()
    do(made, place(1, 100, volume_type="silver"), place(2, 30, source=None, volume_type="silver"), now=NOW + 1)
    do(made, s.SetVolumeBackend(host="node-1@lvm", **away), now=NOW + 2)
    do(made, s.DeleteVolumes(uuids=(uuid_of(2),)), now=NOW + 3)
    made.save(tmp_path)
    again = ServiceMachine()
    again.load(tmp_path)
    for each in (made, again):
        do(each, s.SetVolumeBackend(host="node-1@lvm", disabled=False, up=True, frozen=False), now=NOW + 4)
        assert free(each, "node-1@lvm#a") == 600
        do(each, reports(report("node-1@lvm", ("a", 650), tier="silver")), now=NOW + 5)
        assert free(each, "node-1@lvm#a") == 650
        assert not each.state.storage.pools.absent
        each.state.storage.pools.check()


@pytest.mark.parametrize("reported_while_away", [True, False])
@pytest.mark.parametrize("away", [{"disabled": True}, {"up": False}, {"frozen": True}])
def test_what_is_given_back_after_a_report_outlasts_that_the_backend_is_away(
    away: dict[str, Any], reported_while_away: bool
) -> None:
    """What is given back has no time of its own: the last report is newer than all that the pool was charged."""
    made = storage_machine()
    do(made, place(1, 100, volume_type="silver"), place(2, 30, volume_type="silver"), now=NOW + 1)
    known = reports(report("node-1@lvm", ("a", 560), tier="silver"))
    gone = s.SetVolumeBackend(host="node-1@lvm", **away)
    for number, command in enumerate((gone, known) if reported_while_away else (known, gone)):
        do(made, command, now=NOW + 2 + number)
        if number == 0 and not reported_while_away:
            do(made, s.DeleteVolumes(uuids=(uuid_of(2),)), now=NOW + 2)
    if reported_while_away:
        do(made, s.DeleteVolumes(uuids=(uuid_of(2),)), now=NOW + 5)
    do(made, s.SetVolumeBackend(host="node-1@lvm", disabled=False, up=True, frozen=False), now=NOW + 6)
    assert free(made, "node-1@lvm#a") == 590
    do(made, s.DeleteVolumes(uuids=(uuid_of(1),)), now=NOW + 7)
    assert free(made, "node-1@lvm#a") == 690
    made.state.storage.pools.check()


def test_a_pool_that_a_report_leaves_out_while_the_backend_is_away_is_gone() -> None:
    made = storage_machine()
    do(made, s.SetVolumeBackend(host="node-0@lvm", disabled=True), now=NOW + 1)
    do(made, reports(report("node-0@lvm", ("b", 70), tier="gold")), now=NOW + 2)
    assert set(made.state.storage.pools.absent) == {"node-0@lvm#b"}
    do(made, s.SetVolumeBackend(host="node-0@lvm", disabled=False), now=NOW + 3)
    assert free(made, "node-0@lvm#b") == 70
    assert "node-0@lvm#a" not in made.state.storage.pools.row_of


def test_under_older_rules_the_last_report_counts_again_and_growth_stays_taken() -> None:
    made = storage_machine()
    for rules, left in ((3, [700, 650]), (4, [600, 650])):
        wanted = place(rules, 100, volume_type="silver")
        away: list[Any] = [s.SetVolumeBackend(host="node-1@lvm", disabled=each) for each in (True, False)]
        for command in (wanted, *away):
            made.apply(msgspec.structs.replace(order(command, now=NOW + rules), rules=rules))
        assert free(made, "node-1@lvm#a") == left[0]
        made.apply(order(reports(report("node-1@lvm", ("a", 700), tier="silver")), now=NOW + rules))


def test_a_volume_that_was_taken_over_gives_back_its_growth() -> None:
    made = storage_machine()
    do(
        made,
        s.ManageVolume(request=wish(1, 100), backend="node-1@lvm#a"),
        s.ExtendVolume(uuid=uuid_of(1), new_size_gb=150),
    )
    assert free(made, "node-1@lvm#a") == 650
    do(made, s.BeginVolumeMigration(uuid=uuid_of(1), target="node-2@lvm"))
    assert (free(made, "node-1@lvm#a"), free(made, "node-2@lvm#a")) == (650, 450)
    do(made, s.RevertVolumeMove(uuid=uuid_of(1)), s.DeleteVolumes(uuids=(uuid_of(1),)))
    assert (free(made, "node-1@lvm#a"), free(made, "node-2@lvm#a")) == (700, 600)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"disabled": True}, "the volume service node-1@lvm is disabled"),
        ({"up": False}, "the volume service node-1@lvm is not up"),
        ({"frozen": True}, "the volume service node-1@lvm is frozen"),
    ],
)
def test_a_refusal_says_what_is_wrong_with_the_backend_of_a_source_or_group(change: dict[str, Any], words: str) -> None:
    made = storage_machine()
    do(made, place(1, 10, volume_type="silver"), s.PlaceVolumeGroup(group_id=uuid_of(70), volumes=(wish(2, 5),)))
    group = made.state.volumes.groups[uuid_of(70)].backend
    do(made, s.SetVolumeBackend(host="node-1@lvm", **change), s.SetVolumeBackend(host=group, **change))
    for refused in (
        do(made, place(None, 10, source=uuid_of(1))),
        do(made, s.ExtendVolume(uuid=uuid_of(1), new_size_gb=20)),
        do(made, s.CreateVolumeSnapshot(uuid=uuid_of(1))).decision,
        do(made, s.ManageVolume(request=wish(9, 1), backend="node-1@lvm#a")),
    ):
        assert words in refused.refusal.sentence
    assert words.replace("node-1@lvm", group) in do(made, place(None, 10, group=uuid_of(70))).refusal.sentence


def test_a_refusal_says_that_every_backend_is_away() -> None:
    made = storage_machine()
    for number, change in enumerate(({"disabled": True}, {"up": False}, {"disabled": True, "up": False})):
        settings: dict[str, Any] = dict(change)
        do(made, s.SetVolumeBackend(host=f"node-{number}@lvm", **settings))
    refusal = do(made, place(1, 1)).refusal
    assert refusal.sentence == "No valid backend was found: of 3 volume services, 2 not up, 1 disabled"


def test_a_refusal_says_that_a_backend_or_pool_is_not_known() -> None:
    made = storage_machine()
    do(made, place(1, 10))
    for target, words in (
        ("node-9@lvm", "the volume service node-9@lvm is not known"),
        ("node-1@lvm#z", "has no such pool"),
    ):
        assert words in do(made, s.BeginVolumeMigration(uuid=uuid_of(1), target=target)).refusal.sentence
        assert words in do(made, s.ManageVolume(request=wish(2, 1), backend=target)).refusal.sentence
