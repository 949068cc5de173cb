"""What a parent does where an answer of a region is lost, or says less than it seems to: no guest is in two regions for
good, none of another is released, and what was begun ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from hostler.core.errors import (
    DeadlineExceeded,
    KeyReused,
    LeadershipLost,
    NotLeader,
    Overloaded,
    RegionsUnavailable,
    StorageFailed,
)
from hostler.core.regions.recording import may_be_done
from hostler.core.rpc.client import ConnectionLost
from hostler.core.tenancy.errors import NotAuthenticated, QuotaExceeded
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue, NoValidHost, UnknownName

from .in_process import World, call, world
from .region_processes import uuid_of, wish


def lost(error: HostlerError) -> HostlerError:
    """An error that follows an attempt without an answer."""
    error.maybe_done = True
    return error


def test_only_errors_of_the_only_attempt_prove_that_nothing_was_done() -> None:
    refusals: list[HostlerError] = [NoValidHost("x"), InvalidValue("x"), UnknownName("x"), DuplicateName("x")]
    not_begun: list[HostlerError] = [NotLeader("x"), Overloaded("x"), NotAuthenticated("x"), ConnectionLost("x")]
    for error in (*refusals, QuotaExceeded("x"), *not_begun):
        assert not may_be_done(error)
        assert may_be_done(lost(error))
    newer = HostlerError("x")
    newer.code = "of_a_later_version"
    in_doubt: list[HostlerError] = [
        LeadershipLost("x"),
        StorageFailed("x"),
        DeadlineExceeded("x"),
        KeyReused("x"),
        newer,
    ]
    for error in in_doubt:
        assert may_be_done(error)


@pytest.mark.parametrize(
    "error", [NotLeader("another leads"), StorageFailed("disk full"), LeadershipLost("deposed"), Overloaded("busy")]
)
async def test_a_guest_whose_claim_was_carried_out_in_spite_of_an_error_is_released_again(
    error: HostlerError, autojump_clock: trio.testing.MockClock
) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        made.links["eu"].faults = [("place", "after", error)]
        assert (await made.call("place", {"request": wish(1)})).placed
        await made.at_rest()
        assert made.claims.guests[uuid_of(1)].region == "us"
        assert made.guests_in("eu") == []
        assert made.guests_in("us") == [uuid_of(1)]


@pytest.mark.parametrize(
    "error",
    [NotLeader("x"), StorageFailed("x"), Overloaded("x"), NotAuthenticated("x"), lost(QuotaExceeded("x"))],
)
async def test_a_leftover_is_kept_until_the_region_says_what_became_of_it(
    error: HostlerError, autojump_clock: trio.testing.MockClock
) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        made.links["eu"].faults = [("place", "after", ConnectionLost("cut")), ("place", "before", error)]
        await made.call("place", {"request": wish(1)})
        await made.at_rest()
        assert made.links["eu"].faults == []
        assert made.guests_in("eu") == []


async def test_a_guest_of_the_region_itself_is_not_released_with_a_leftover(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 2, "us": 1}) as made:
        await call(made.links["eu"].service, "place", {"request": wish(1)})
        made.links["eu"].faults = [("place", "before", lost(ConnectionLost("cut")))]
        assert (await made.call("place", {"request": wish(1)})).placed
        await made.at_rest()
        assert made.guests_in("eu") == [uuid_of(1)], "its own guest, of the same uuid"
        assert made.claims.guests[uuid_of(1)].region == "us"


async def test_the_uuid_of_an_open_leftover_is_not_placed_again(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 1}) as made:
        made.links["eu"].faults = [("place", "after", ConnectionLost("cut")), ("place", "before", NotLeader("x"))]
        with pytest.raises(RegionsUnavailable):
            await made.call("place", {"request": wish(1)})
        with pytest.raises(DuplicateName, match="may still hold"):
            await made.call("place", {"request": wish(1)})
        await made.at_rest()
        assert made.guests_in("eu") == []
        assert (await made.call("place", {"request": wish(1)})).placed
        await trio.sleep(60)
        assert made.guests_in("eu") == [uuid_of(1)]


async def test_a_region_that_has_forgotten_the_key_answers_with_the_claims_own_guests(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        decision = await made.call("place", {"request": wish(1)})
        _, params, _ = next(each for each in made.links["eu"].calls if each[0] == "place")
        again = await call(made.links["eu"].service, "place", params, key="another")
        assert (again.host, again.selected.allocations) == (decision.host, decision.selected.allocations)
        assert made.guests_in("eu") == [uuid_of(1)]
        stranger = {"request": wish(1)}
        with pytest.raises(DuplicateName):
            await call(made.links["eu"].service, "place", stranger)


async def test_a_claim_that_cannot_be_recorded_any_further_is_gone_on_with(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 1}) as made:
        submit, refuse = made.service.writer.submit, [True]

        async def failing(order: Any, **options: Any) -> Any:
            if type(order.command).__name__ == "SettleRegionClaim" and refuse and refuse.pop():
                raise NotLeader("deposed")
            return await submit(order, **options)

        monkeypatch.setattr(made.service.writer, "submit", failing)
        with pytest.raises(LeadershipLost) as caught:
            await made.call("place", {"request": wish(1)}, key="k")
        assert caught.value.maybe_done
        assert (await made.call("place", {"request": wish(1)}, key="k")).placed
        await made.at_rest()
        assert list(made.claims.guests) == made.guests_in("eu") == [uuid_of(1)]


# releases


async def test_a_release_is_repeated_with_its_key_and_ends_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        for number, region in ((1, "eu"), (2, "us")):
            await made.call("place", {"request": wish(number, hints={"region": (region,)})})
        made.links["us"].up = False
        both = {"uuids": [uuid_of(1), uuid_of(2)]}
        with pytest.raises(RegionsUnavailable, match="1 instances"):
            await made.call("release", both, key="k" * 255)
        assert made.guests_in("eu") == []
        with pytest.raises(RegionsUnavailable):
            await made.call("release", both, key="k" * 255)
        made.links["us"].up = True
        await made.at_rest()
        assert made.guests_in("us") == []
        assert await made.call("release", both, key="k" * 255) == 2
        with pytest.raises(KeyReused):
            await made.call("release", {"uuids": [uuid_of(1)]}, key="k" * 255)
        with pytest.raises(UnknownName):
            await made.call("release", both)
        assert made.claims.guests == {}


async def test_a_release_whose_answer_was_lost_in_the_region_counts_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1}) as made:
        await made.call("place", {"request": wish(1)})
        made.links["eu"].faults = [("release", "after", ConnectionLost("cut"))]
        with pytest.raises(RegionsUnavailable):
            await made.call("release", {"uuids": [uuid_of(1)]}, key="k")
        await made.at_rest()
        assert await made.call("release", {"uuids": [uuid_of(1)]}, key="k") == 1


async def test_a_call_on_a_guest_takes_the_longest_key(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 2}) as made:
        await made.call("place", {"request": wish(1)})
        moved = await made.call("move", {"uuid": uuid_of(1)}, key="k" * 255)
        assert await made.call("move", {"uuid": uuid_of(1)}, key="k" * 255) == moved


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("place", {"request": wish(2)}),
        ("place_many", {"requests": [wish(2), wish(3)]}),
        ("place_across", {"requests": [wish(2)]}),
        ("move", {"uuid": uuid_of(1)}),
        ("begin_move", {"uuid": uuid_of(1)}),
        ("spawned", {"uuids": [uuid_of(1)]}),
        ("release", {"uuids": [uuid_of(1)]}),
    ],
)
async def test_the_key_of_a_call_that_was_answered_is_not_another_calls(
    method: str, params: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    async with world({"eu": 2, "us": 2}) as made:
        await made.call("place", {"request": wish(1)})
        answer = await made.call(method, params, key="k")
        asked = len(made.links["eu"].calls)
        assert await made.call(method, params, key="k") == answer
        assert len(made.links["eu"].calls) == asked, "no region is asked again"
        for other, given in (("place", {"request": wish(9)}), ("place_many", {"requests": [wish(9)]})):
            with pytest.raises(KeyReused):
                await made.call(other, given, key="k")
        with pytest.raises(KeyReused):
            await made.call("create_domain", {"id": "d"}, key="k")
        assert uuid_of(9) not in made.guests_in("eu")


async def test_the_key_of_many_requests_of_which_some_were_placed_is_not_another_calls(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 2}) as made:
        many = {"requests": [wish(1), wish(2)]}
        with monkeypatch.context() as unrecorded:

            async def lose(call: object, command: object) -> None:
                raise StorageFailed("no")

            unrecorded.setattr(made.cascade, "_recorded", lose)
            with pytest.raises(StorageFailed):
                await made.call("place_many", many, key="k")
        with pytest.raises(KeyReused):
            await made.call("place_many", {"requests": [wish(3), wish(4)]}, key="k")
        assert (await made.call("place_many", many, key="k")).placed == 2
        assert made.guests_in("eu") == [uuid_of(1), uuid_of(2)]


# keys


async def test_the_key_of_a_call_under_way_is_not_another_calls(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 1}) as made, trio.open_nursery() as nursery:
        nursery.start_soon(made.call, "place", {"request": wish(1)}, "k")
        await trio.sleep(0.001)
        for method, params in (("place", {"request": wish(2)}), ("create_domain", {"id": "d"})):
            with pytest.raises(KeyReused):
                await made.call(method, params, "k")
        await made.until(lambda: uuid_of(1) in made.claims.guests)
        assert (await made.call("place", {"request": wish(1)}, "k")).placed


async def test_a_claim_is_settled_though_another_command_has_taken_its_key(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 1}) as made, trio.open_nursery() as nursery:
        monkeypatch.setattr(made.cascade, "check_key", lambda key, fingerprint: None)
        nursery.start_soon(made.call, "place", {"request": wish(1)}, "k")
        await trio.sleep(0.001)
        await made.call("create_domain", {"id": "d"}, "k")
        await made.at_rest()
        assert uuid_of(1) in made.claims.guests
        assert made.claims.claims == {}


# groups


async def test_a_claim_of_a_group_that_cannot_be_recorded_is_released_with_the_group(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        submit, settled = made.service.writer.submit, list[str]()

        async def failing(order: Any, **options: Any) -> Any:
            if type(order.command).__name__ == "SettleRegionClaim":
                settled.append(order.command.id)
                if len(settled) == 2:
                    raise Overloaded("the queue is full")
            return await submit(order, **options)

        monkeypatch.setattr(made.service.writer, "submit", failing)
        outcome = await made.call("place_across", {"requests": [wish(1), wish(2)]})
        assert not outcome.placed
        assert made.claims.claims == {}
        await made.at_rest()
        assert made.guests_in("eu") == made.guests_in("us") == []
        assert made.service.state.usage.by_scope == {}


@asynccontextmanager
async def group_given_up(when: str) -> AsyncIterator[World]:
    """A parent that gives up a group of guests 1 and 2, whose first release was cut off before or after it reached the
    only region. All is at rest at the end."""
    async with world({"eu": 1}) as made:
        region = made.links["eu"]
        region.faults = [("release", when, ConnectionLost("cut"))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.call, "place_across", {"requests": [wish(1), wish(2)]})
            await made.until(lambda: region.calls[-1:] != [] and region.calls[-1][0] == "release" and not region.faults)
            yield made
        await made.at_rest()


async def test_a_group_that_is_given_up_twice_releases_no_guest_that_came_in_between(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with group_given_up("after") as made:
        region = made.links["eu"]
        await made.until(lambda: made.guests_in("eu") == [])
        await call(region.service, "place", {"request": wish(1)})  # the region's own, of the same uuid
        await made.at_rest()
        assert sum(method == "release" for method, _, _ in region.calls) >= 2
        assert made.guests_in("eu") == [uuid_of(1)]
        assert made.claims.guests == {}


async def test_a_group_that_is_given_up_leaves_what_was_placed_again_under_a_uuid_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with group_given_up("before") as made:
        assert await made.call("release", {"uuids": [uuid_of(1)]}) == 1
        assert (await made.call("place", {"request": wish(1)})).placed
        await made.at_rest()
        assert made.guests_in("eu") == [uuid_of(1)]
        assert set(made.claims.guests) == {uuid_of(1)}
        assert made.service.state.usage.of("project:p")["instances"] == 1


async def test_a_release_that_goes_on_leaves_what_was_placed_again_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1}) as made:
        assert (await made.call("place", {"request": wish(1)})).placed
        made.links["eu"].faults = [("release", "before", ConnectionLost("cut"))]
        with pytest.raises(RegionsUnavailable):
            await made.call("release", {"uuids": [uuid_of(1)]}, key="k1")
        assert await made.call("release", {"uuids": [uuid_of(1)]}) == 1
        assert (await made.call("place", {"request": wish(1)})).placed
        await made.at_rest()
        assert made.guests_in("eu") == [uuid_of(1)]
        assert set(made.claims.guests) == {uuid_of(1)}


async def test_a_region_whose_summaries_stop_is_asked_by_the_last_one_and_what_it_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        eu = made.links["eu"]
        eu.silent = True
        await trio.sleep(1)
        told = eu.summaries
        for number in range(1, 9):  # 16 vCPUs, as the last summary said
            assert (await made.call("place", {"request": wish(number)})).placed
        assert {made.claims.guests[uuid_of(number)].region for number in range(1, 9)} == {"eu"}
        refused = eu.refused
        assert (await made.call("place", {"request": wish(9)})).placed
        assert made.claims.guests[uuid_of(9)].region == "us"
        assert eu.refused == refused, "what was claimed since the summary counts: it is not asked in vain"
        for number in range(1, 9):
            await call(eu.service, "release", {"uuids": [uuid_of(number)]})  # which no summary tells
        for number in range(10, 17):
            assert (await made.call("place", {"request": wish(number)})).placed
        assert {made.claims.guests[uuid_of(number)].region for number in range(10, 17)} == {"us"}
        assert (await made.call("place", {"request": wish(17)})).placed, "doubtful regions are asked after the others"
        assert made.claims.guests[uuid_of(17)].region == "eu"
        assert eu.summaries == told
        assert eu.age is not None
        assert eu.age > 1
        eu.silent = False
        await made.until(lambda: eu.summaries > told)
        assert eu.age < 1
