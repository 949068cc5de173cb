"""What callers of a parent are told of its regions, and how much a parent takes on: no addresses and leaders of
regions, no more calls than there are places for, and no region whose trouble is the others'."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hostler.core.errors import NotLeader, Overloaded, RegionsUnavailable
from hostler.core.machine.region_summary import RegionSummary, merged, problem_of
from hostler.core.regions import cascade, jobs
from hostler.core.regions.link import IN_CIRCLE
from hostler.core.rpc.client import ConnectionLost
from hostler.core.service import Identity
from hostler.core.tenancy.errors import NotAuthenticated
from hostler.placement.types.errors import HostlerError, UnknownName

from .in_process import World, world
from .region_processes import uuid_of, wish

ADDRESS = "tls:10.1.0.1:7777"


def troubles() -> list[HostlerError]:
    """Errors between a parent and its region."""
    return [
        NotLeader.naming("fra-1", (ADDRESS,), ""),
        NotAuthenticated(f"the token of the parent has expired at {ADDRESS}", field="token"),
        ConnectionLost(f"no connection to {ADDRESS}: refused"),
    ]


def check_told(error: RegionsUnavailable) -> None:
    text = f"{error} {error.hint} {error.field}"
    assert ADDRESS not in text
    assert "token" not in text
    assert not getattr(error, "leader", ())


@pytest.mark.parametrize("trouble", range(len(troubles())))
async def test_callers_are_told_that_a_region_has_not_answered_and_not_how_it_is_reached(
    trouble: int, autojump_clock: trio.testing.MockClock
) -> None:
    calls: dict[str, dict[str, Any]] = {
        "instance": {"uuid": uuid_of(1)},
        "spawned": {"uuids": [uuid_of(1)]},
        "begin_move": {"uuid": uuid_of(1)},
        "release": {"uuids": [uuid_of(1)]},
        "capacity": {},
        "place": {"request": wish(2)},
    }
    async with world({"eu": 2}) as made:
        await made.call("place", {"request": wish(1)})
        for method, params in calls.items():
            made.links["eu"].faults = [(method, "before", troubles()[trouble])] * 2
            with pytest.raises(RegionsUnavailable) as caught:
                await made.call(method, params)
            check_told(caught.value)
            made.links["eu"].faults = []
        await made.at_rest()


async def test_what_a_region_refuses_a_guest_is_told_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 2}) as made:
        await made.call("place", {"request": wish(1)})
        made.links["eu"].faults = [("begin_move", "before", UnknownName("no host eu-7", field="target"))]
        with pytest.raises(UnknownName, match="no host eu-7"):
            await made.call("begin_move", {"uuid": uuid_of(1), "target": "eu-7"})


async def test_the_trouble_of_one_connection_is_not_the_others(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        failures = made.service.writer.failures
        nursery = made.cascade._nursery
        monkeypatch.setattr(made.links["eu"], "_take", lambda summary: 1 // 0)
        await made.until(lambda: failures.counts["region eu"] > 2)
        assert made.cascade._nursery is nursery, "the others were not interrupted"
        assert (await made.call("place", {"request": wish(1)})).placed
        monkeypatch.undo()
        before = made.links["eu"].summaries
        await made.until(lambda: made.links["eu"].summaries > before)


async def test_an_unexpected_error_of_a_call_is_counted(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 1}) as made:
        with monkeypatch.context() as broken:
            broken.setattr(made.cascade.claiming, "_order", lambda wish: 1 // 0)
            with pytest.raises(HostlerError):
                await made.call("place", {"request": wish(1)})
        assert made.service.writer.failures.counts["regions"] == 1


async def place_all(made: World, numbers: range, identity: Identity, errors: list[HostlerError]) -> None:
    """Place guests at once."""

    async def place(number: int) -> None:
        try:
            await made.call("place", {"request": wish(number, vcpus=1)}, identity=identity)
        except HostlerError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(place, number)


async def test_calls_that_wait_for_regions_are_bounded_and_one_user_has_a_part_of_the_places(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "JOBS_OF_A_USER", 3)
    async with world({"eu": 4}) as made:
        await made.call("create_domain", {"id": "d"})
        for user in ("u1", "u2"):
            await made.call("create_user", {"id": user, "domain": "d"})
            await made.call("grant", {"user": user, "role": "cloud_admin", "scope": "cloud"})
        errors: dict[str, list[HostlerError]] = {"u1": [], "u2": []}
        async with trio.open_nursery() as nursery:
            for at, (user, found) in enumerate(errors.items()):
                numbers = range(10 * at + 1, 10 * at + (6 if user == "u1" else 4))
                serial = made.service.state.tenants.serial_of(user)
                nursery.start_soon(place_all, made, numbers, Identity(user, serial=serial), found)
        assert [type(error) for error in errors["u1"]] == [Overloaded, Overloaded]
        assert errors["u2"] == []
        assert len(made.guests_in("eu")) == 6
        assert (await made.call("place", {"request": wish(30, vcpus=1)})).placed, "places are given back"


async def test_a_region_that_does_not_say_what_became_of_claims_is_given_no_more_of_them(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "MOST_LEFTOVERS", 3)
    monkeypatch.setattr(cascade, "RESOLVED_AT_A_TIME", 1)
    async with world({"eu": 4, "us": 4}) as made:
        eu = made.links["eu"]
        lost = ConnectionLost("cut")
        lost.maybe_done = True
        eu.faults = [("place", "before", lost)] * 200
        hints = {"region": ("eu",)}
        for number in range(1, 4):
            with pytest.raises(RegionsUnavailable):
                await made.call("place", {"request": wish(number, hints=hints)})
        await made.until(lambda: eu.suspended)
        asked = eu.asked
        with pytest.raises(RegionsUnavailable):
            await made.call("place", {"request": wish(4, hints=hints)})
        assert eu.asked == asked
        assert (await made.call("place", {"request": wish(5)})).placed
        assert made.guests_in("us") == [uuid_of(5)]
        eu.faults = []
        await made.at_rest()
        await made.until(lambda: not eu.suspended)
        assert (await made.call("place", {"request": wish(6, hints=hints)})).placed
        assert made.guests_in("eu") == [uuid_of(6)]


async def test_of_many_requests_some_are_on_their_way_at_a_time(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 4}) as made:
        most, now, ask = 0, 0, made.links["eu"].call

        async def counted(*given: Any, **options: Any) -> Any:
            nonlocal most, now
            now += 1
            most = max(most, now)
            try:
                return await ask(*given, **options)
            finally:
                now -= 1

        monkeypatch.setattr(made.links["eu"], "call", counted)
        requests = [wish(number, vcpus=1) for number in range(1, 41)]
        placed = await made.call("place_many", {"requests": requests}, key="k")
        assert placed.placed == 40
        assert placed.instance_uuids == [uuid_of(number) for number in range(1, 41)]
        assert most == cascade.AT_A_TIME


async def test_a_parent_that_is_among_its_own_regions_asks_those_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"us": 1, "eu": 1}) as made:
        assert made.cascade.summary().parents == (made.cascade.name,)
        us = made.links["us"]
        us.parent, us.told = made.cascade.name, RegionSummary(1, (), True, ("other", made.cascade.name))
        await made.until(lambda: not us.alive)
        us.told = None  # what it sends is the parent's own no more, once the parent asks it nothing
        await trio.sleep(10)
        line = made.cascade.lines()[0]
        assert (line.alive, line.problem) == (False, IN_CIRCLE)
        await made.call("place", {"request": wish(1)})
        assert made.guests_in("eu") == [uuid_of(1)]
        assert (await made.call("capacity", {}))["VCPU"].total == 16


def test_the_parents_of_a_summary_are_bounded() -> None:
    assert problem_of(RegionSummary(1, (), True, ("p",) * 10_001)) == "it is of 10001 parents"
    assert merged(1, [RegionSummary(1, (), True, ("b", "c")), RegionSummary(1)], "a").parents == ("a", "b", "c")
