"""A parent with three regions as processes: which of them claims, and what happens where one is dead, slow, full, or
says what is not so."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from hostler.core.errors import RegionsUnavailable
from hostler.core.tenancy.errors import NotAllowed, QuotaExceeded
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue, UnknownName

from ..cluster.members import until
from .region_processes import PATIENT, Parent, cascade, fill, guests_in, region, uuid_of, wish


def test_the_cheapest_region_with_room_claims_and_is_remembered(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 1, "us": 1, "ap": 1}) as (parent, regions), parent.client() as client:
        for number in range(1, 4):
            decision = client.call("place", {"request": wish(number, vcpus=8)})
            assert decision.placed
        assert [parent.region_of(number) for number in (1, 2, 3)] == ["eu", "eu", "us"]
        assert guests_in(regions["eu"]) == [uuid_of(1), uuid_of(2)]
        detail = client.call("instance", {"uuid": uuid_of(3)})
        assert detail.node == "us-0"
        assert client.call("capacity")["VCPU"].used == 24
        assert client.call("fits", {"request": wish(9, vcpus=8)}).count == 3
        assert client.call("release", {"uuids": [uuid_of(1), uuid_of(3)]}) == 2
        assert guests_in(regions["eu"]) == [uuid_of(2)]
        assert guests_in(regions["us"]) == []
        with pytest.raises(UnknownName):
            client.call("region_of", {"uuid": uuid_of(1)})


def test_a_repetition_with_the_same_key_places_once_even_after_the_parent_was_killed(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 2, "us": 2}) as (parent, regions):
        with parent.client() as client:
            first = client.call("place", {"request": wish(1)}, key="k1")
            assert client.call("place", {"request": wish(1)}, key="k1") == first
            with pytest.raises(DuplicateName):
                client.call("place", {"request": wish(1)}, key="k2")
        parent.restart()
        with parent.client() as client:
            assert client.call("place", {"request": wish(1)}, key="k1") == first
        assert [guests_in(each) for each in regions.values()] == [[uuid_of(1)], []]


def test_a_claim_that_a_killed_parent_had_begun_ends_in_one_region(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 2, "us": 2}, rest="[cascade]\nask_seconds = 30.0") as (parent, regions):
        regions["eu"].process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]  # it runs
        asking = threading.Thread(target=_place, args=(parent, 1))
        asking.start()
        until(lambda: _claims(parent))
        parent.kill()
        asking.join()
        regions["eu"].process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]  # it runs
        parent.start()
        until(lambda: _is_placed(parent, 1))
        assert parent.region_of(1) == "eu"
        assert [guests_in(each) for each in regions.values()] == [[uuid_of(1)], []]


def test_what_a_killed_parent_had_begun_to_release_or_to_place_together_ends(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 2, "us": 2}, rest="") as (parent, regions):
        both = {"uuids": [uuid_of(1), uuid_of(2)]}
        with parent.client() as client:
            for number, name in ((1, "eu"), (2, "us")):
                client.call("place", {"request": wish(number, hints={"region": (name,)})})
            regions["us"].kill()
            with pytest.raises(RegionsUnavailable):
                client.call("release", both, key="both")
            parent.settle(without=("us",))
        asking = threading.Thread(target=_place_across, args=(parent,))
        regions["eu"].process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]  # it runs
        asking.start()
        until(lambda: parent.lines()["eu"].asked >= 2)
        parent.kill()
        asking.join()
        regions["eu"].process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]  # it runs
        regions["us"].start()
        parent.start()
        until(lambda: all(guests_in(each) == [] for each in regions.values()))
        with parent.client() as client:
            assert client.call("release", both, key="both") == 2
            assert not client.call("place_across", {"requests": [wish(3), wish(4)]}, key="group").placed
            assert client.call("region_guests") == []


def _place_across(parent: Parent) -> None:
    try:
        with parent.client(within=5.0) as client:
            client.call("place_across", {"requests": [wish(3), wish(4)]}, key="group")
    except HostlerError:
        pass


def _place(parent: Parent, number: int) -> None:
    try:
        with parent.client(within=5.0) as client:
            client.call("place", {"request": wish(number)}, key="begun")
    except HostlerError:
        pass


def _claims(parent: Parent) -> bool:
    with parent.client() as client:
        return bool(client.call("regions")[0].asked)


def _is_placed(parent: Parent, number: int) -> bool:
    try:
        return bool(parent.region_of(number))
    except UnknownName:
        return False


def test_a_dead_region_is_passed_over_and_serves_again_when_it_is_back(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 1, "us": 1}, rest="") as (parent, regions), parent.client() as client:
        regions["eu"].kill()
        assert client.call("place", {"request": wish(1)}).placed
        assert parent.region_of(1) == "us"
        parent.settle(without=("eu",))
        regions["eu"].start()
        parent.settle()
        assert client.call("place", {"request": wish(2)}).placed
        assert parent.region_of(2) == "eu"


def test_what_a_slow_region_claims_too_late_is_released_there(tmp_path: Path) -> None:
    rest = "[cascade]\nask_seconds = 0.5"
    with cascade(tmp_path, {"eu": 1, "us": 1}, rest=rest) as (parent, regions), parent.client() as client:
        regions["eu"].process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]  # it runs
        assert client.call("place", {"request": wish(1)}).placed
        assert parent.region_of(1) == "us"
        regions["eu"].process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]  # it runs
        parent.settle()
        until(lambda: _last_sequence(regions["eu"]) >= 3)  # the claim and its release
        until(lambda: guests_in(regions["eu"]) == [])
        assert guests_in(regions["us"]) == [uuid_of(1)]
        assert client.call("release", {"uuids": [uuid_of(1)]}) == 1


def _last_sequence(daemon: object) -> int:
    with daemon.client() as client:  # type: ignore[attr-defined]  # a Daemon
        return int(client.call("status").sequence)


def test_a_region_that_promises_what_it_refuses_costs_one_question_and_then_comes_last(tmp_path: Path) -> None:
    with cascade(tmp_path, {"liar": 4, "us": 1}) as (parent, regions), parent.client() as client:
        policy = {"filter_scheduler": {"enabled_filters": ["ComputeFilter", "AggregateInstanceExtraSpecsFilter"]}}
        with regions["liar"].client() as own:  # its hosts have room, and are closed to this project by a pool's limit
            own.call("set_policy", {"policy": policy})
            own.call("create_domain", {"id": "d"})
            own.call("create_project", {"id": "p", "domain": "d"})
            own.call("set_limits", {"scope": "project:p", "limits": {"VCPU": 0}})
        for number in range(1, 5):
            assert client.call("place", {"request": wish(number)}).placed
        assert {parent.region_of(number) for number in range(1, 5)} == {"us"}
        lines = parent.lines()
        assert lines["liar"].refused >= 1
        assert lines["liar"].refused < 4


def test_a_full_region_is_not_asked_and_a_full_cloud_refuses(tmp_path: Path) -> None:
    with (
        cascade(tmp_path, {"full": 0, "us": 1}, rest=f"{PATIENT}doubtful = 0") as (parent, _),
        parent.client() as client,
    ):
        assert client.call("place", {"request": wish(1, vcpus=16)}).placed
        assert parent.region_of(1) == "us"
        assert parent.lines()["full"].asked == 0
        until(lambda: parent.lines()["us"].free_vcpus == 0)
        with pytest.raises(HostlerError) as caught:
            client.call("place", {"request": wish(2)})
        assert caught.value.code == "regions_unavailable"


def test_the_last_region_is_asked_when_the_others_are_full(tmp_path: Path) -> None:
    more = {"public": "last = true"}
    with cascade(tmp_path, {"public": 2, "own": 1}, more) as (parent, _), parent.client() as client:
        for number in (1, 2):
            assert client.call("place", {"request": wish(number, vcpus=16)}).placed
        assert [parent.region_of(number) for number in (1, 2)] == ["own", "public"]


def test_requests_name_regions_traits_and_places(tmp_path: Path) -> None:
    more = {
        "eu": 'traits = ["GDPR"]\nlatency = {berlin = 5, tokyo = 200}',
        "ap": 'traits = ["FAST"]\nlatency = {berlin = 180, tokyo = 8}',
    }
    with cascade(tmp_path, {"eu": 2, "ap": 2}, more, f'{PATIENT}policy = "nearest"') as (parent, _):
        hints = [{"near": ("tokyo",)}, {"near": ("berlin",)}, {"region": ("ap",)}, {"region_traits": ("GDPR",)}]
        with parent.client() as client:
            for number, each in enumerate(hints, 1):
                assert client.call("place", {"request": wish(number, hints=each)}).placed
            assert [parent.region_of(number) for number in range(1, 5)] == ["ap", "eu", "ap", "eu"]
            with pytest.raises(UnknownName, match="mars"):
                client.call("place", {"request": wish(9, hints={"region": ("mars",)})})
            with pytest.raises(InvalidValue, match="no region"):
                client.call("place", {"request": wish(9, hints={"region_traits": ("GDPR", "FAST")})})


def test_a_group_is_placed_in_regions_of_its_own_or_not_at_all(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 1, "us": 1}) as (parent, regions), parent.client() as client:
        outcome = client.call("place_across", {"requests": [wish(1), wish(2)]})
        assert [(each.uuid, each.region) for each in outcome.guests] == [(uuid_of(1), "eu"), (uuid_of(2), "us")]
        outcome = client.call("place_across", {"requests": [wish(3), wish(4), wish(5)]}, key="three")
        assert not outcome.placed
        assert outcome.guests == []
        assert client.call("place_across", {"requests": [wish(3), wish(4), wish(5)]}, key="three") == outcome
        assert guests_in(regions["eu"]) == [uuid_of(1)]
        assert guests_in(regions["us"]) == [uuid_of(2)]
        together = client.call("place_across", {"requests": [wish(6), wish(7)], "spread": False})
        assert {each.region for each in together.guests} == {"eu"}


def test_many_requests_are_placed_one_by_one(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 1, "us": 1}) as (parent, _), parent.client() as client:
        placed = client.call("place_many", {"requests": [wish(number, vcpus=4) for number in range(1, 11)]})
        assert placed.placed == 8
        assert sorted(parent.region_of(n) for n in range(1, 11) if placed.hosts[n - 1]) == ["eu"] * 4 + ["us"] * 4


def test_the_parent_judges_rights_and_quotas_of_its_own_tenants(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 2}) as (parent, regions), parent.client() as admin:
        admin.call("create_domain", {"id": "d"})
        for project in ("own", "other"):
            admin.call("create_project", {"id": project, "domain": "d"})
        admin.call("create_user", {"id": "anna", "domain": "d"})
        admin.call("grant", {"user": "anna", "role": "member", "scope": "project:own"})
        admin.call("set_limits", {"scope": "project:own", "limits": {"VCPU": 4}})
        token = admin.call("create_token", {"user": "anna"}).token
        admin.call("place", {"request": wish(9, project="other")})
        with parent.client() as anna:
            anna.call("hello", {"token": token})
            assert anna.call("place", {"request": wish(1, project="own")}).placed
            with pytest.raises(NotAllowed):
                anna.call("place", {"request": wish(2, project="other")})
            with pytest.raises(QuotaExceeded):
                anna.call("place", {"request": wish(3, vcpus=4, project="own")})
            for method in ("region_of", "instance"):
                with pytest.raises(NotAllowed):
                    anna.call(method, {"uuid": uuid_of(9)})
            with pytest.raises(NotAllowed):
                anna.call("release", {"uuids": [uuid_of(9)]})
            assert anna.call("usage", {"scope": "project:own"}).used["VCPU"] == 2
            assert anna.call("release", {"uuids": [uuid_of(1)]}) == 1
            assert anna.call("usage", {"scope": "project:own"}).used == {}
        assert guests_in(regions["eu"]) == [uuid_of(9)]


def test_a_guest_is_moved_within_its_region(tmp_path: Path) -> None:
    with cascade(tmp_path, {"eu": 2}) as (parent, _), parent.client() as client:
        before = client.call("place", {"request": wish(1)}).selections[0].node
        assert client.call("move", {"uuid": uuid_of(1)}).selections[0].node != before
        client.call("begin_move", {"uuid": uuid_of(1)})
        client.call("confirm_move", {"uuid": uuid_of(1)})
        assert client.call("instance", {"uuid": uuid_of(1)}).node == before
        for method, params in (
            ("resize", {"uuid": uuid_of(1), "request": wish(1, vcpus=4)}),
            ("add_hosts", {"hosts": [{"host": "h", "vcpus_total": 1, "total_usable_ram_mb": 1}]}),
        ):
            with pytest.raises(InvalidValue, match="parent of regions"):
                client.call(method, params)


def test_a_parent_is_a_region_of_its_own_parent(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    with cascade(tmp_path / "lower", {"fra": 1, "ham": 1}) as (lower, regions):
        over = region(tmp_path, "us", 1)
        with over:
            fill(over, "us", 1)
            tables = {
                "eu": f'addresses = ["{lower.address}"]\nprice = 1',
                "us": f'addresses = ["{over.address}"]\nprice = 2',
            }
            world = Parent(tmp_path / "world", tables, PATIENT)
            with world, world.client() as client:
                until(lambda: world.lines()["eu"].hosts == 2)
                world.settle()
                assert client.call("place", {"request": wish(1, hints={"region": ("eu/ham",)})}).placed
                assert (world.region_of(1), lower.region_of(1)) == ("eu", "ham")
                assert guests_in(regions["ham"]) == [uuid_of(1)]
                for number in range(2, 5):
                    assert client.call("place", {"request": wish(number, vcpus=14)}).placed
                assert sorted(world.region_of(number) for number in range(2, 5)) == ["eu", "eu", "us"]
                assert client.call("release", {"uuids": [uuid_of(1)]}) == 1
                assert uuid_of(1) not in guests_in(regions["ham"])
