"""What a parent of regions answers, and to whom: every method has its place, and limits, rates, rights, spellings and
records are those of any other service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import msgspec
import pytest
import trio
from hypothesis import given, settings

from hostler.core.engine_commands import Asked, asked
from hostler.core.errors import DeadlineExceeded, InternalError, NotLeader, Overloaded, RegionsUnavailable, TooStale
from hostler.core.machine.region_claims import amounts_of
from hostler.core.machine.region_summary import SHAPE_CLASSES, AreaSummary, RegionSummary
from hostler.core.machine.request_limits import RequestLimits
from hostler.core.machine.state import ServiceState
from hostler.core.process.audit import Line, line_of
from hostler.core.rates import RateLimits
from hostler.core.region_commands import ClaimInRegion
from hostler.core.regions.calls import is_handed, is_refused
from hostler.core.regions.jobs import Pauses
from hostler.core.regions.options import RegionOptions
from hostler.core.rpc.addresses import Address
from hostler.core.rpc.client import Client, ConnectionLost, open_client
from hostler.core.rpc.methods import METHODS
from hostler.core.rpc.server import RpcServer
from hostler.core.service import Identity
from hostler.core.tenancy.errors import NotAllowed, QuotaExceeded
from hostler.placement.types.errors import DuplicateName, HostlerError, InvalidValue
from hostler.placement.types.request import Flavor, Request, RequestSpec

from ..query.test_query import extra_specs_given, properties_given
from ..query.values import request
from .in_process import World, world
from .region_processes import hosts, uuid_of, wish

OF_TENANTS = """create_domain set_identity_suffixes delete_domain create_project delete_project create_user delete_user
grant revoke revoke_token set_limits usage domains projects users tokens"""
OF_POOLS = "create_pool delete_pool set_pool_hosts grant_pool ungrant_pool pools"
OF_WHAT_IS_OFFERED = """create_flavor delete_flavor create_image delete_image create_volume_type delete_volume_type
flavors flavor images image volume_types volume_type policy"""
OWN = set(" ".join((OF_TENANTS, OF_POOLS, OF_WHAT_IS_OFFERED, "region_of region_guests")).split())


async def member(made: World, project: str = "own", **limits: int) -> Identity:
    """A user who is a member of a project with limits, and no more."""
    await made.call("create_domain", {"id": "d"})
    await made.call("create_project", {"id": project, "domain": "d"})
    await made.call("create_user", {"id": "anna", "domain": "d"})
    await made.call("grant", {"user": "anna", "role": "member", "scope": f"project:{project}"})
    if limits:
        await made.call("set_limits", {"scope": f"project:{project}", "limits": limits})
    return Identity("anna", serial=made.service.state.tenants.serial_of("anna"))


def large(number: int, size: int) -> Asked:
    """A request whose spec is longer than so many bytes."""
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1), scheduler_hints={"x": ("y" * size,)})
    return asked(Request(spec=spec, instance_uuids=(uuid_of(number),), project_id="own"))


# which methods


def test_every_method_is_the_parents_own_or_its_regions_or_refused() -> None:
    own = set[str]()
    for name, method in METHODS.items():
        if method.kind in ("command", "question"):
            assert not (is_handed(method.params) and is_refused(method.params))
            if not is_handed(method.params) and not is_refused(method.params):
                own.add(name)
    assert own == OWN


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("fits_many", {"requests": [wish(1)]}),
        ("place_together", {"request": wish(1), "volumes": ()}),
        ("hold", {"request": wish(1), "expires_in": 60.0}),
        ("explain", {"request": wish(1)}),
        ("instances", {}),
        ("add_hosts", hosts("eu", 1)),
    ],
)
async def test_what_a_parent_has_no_hosts_for_is_refused_by_name(
    method: str, params: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    async with world({"eu": 1}) as made:
        with pytest.raises(InvalidValue, match=f"{method} is not for a parent of regions"):
            await made.call(method, params)


# limits, rates and rights


async def test_limits_of_the_parent_bound_what_its_regions_are_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 1}, limits=RequestLimits(spec_bytes=500)) as made:
        long = large(1, 600)
        calls: dict[str, Any] = {
            "place": {"request": long},
            "fits": {"request": long},
            "place_across": {"requests": [long]},
        }
        for method, params in (*calls.items(), ("place_many", {"requests": [long]})):
            with pytest.raises(InvalidValue, match="at most 500"):
                await made.call(method, params)
        assert [each for each, *_ in made.links["eu"].calls if each != "status"] == []


async def test_each_request_of_a_group_counts_against_the_rate(autojump_clock: trio.testing.MockClock) -> None:
    rates = RateLimits(commands_per_second=1.0, questions_per_second=1.0, burst=3.0)
    async with world({"eu": 1}, rates=rates) as made:
        anna = await member(made)
        group = {"requests": [wish(1, project="own"), wish(2, project="own")], "spread": False}
        assert (await made.call("place_across", group, identity=anna)).placed
        with pytest.raises(Overloaded):
            await made.call("place_across", group, identity=anna)
        for _ in range(3):
            await made.call("fits", {"request": wish(9, project="own")}, identity=anna)
        with pytest.raises(Overloaded):
            await made.call("fits", {"request": wish(9, project="own")}, identity=anna)


async def test_a_member_asks_what_fits_for_their_own_project_only(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 1}) as made:
        anna = await member(made)
        assert (await made.call("fits", {"request": wish(9, project="own")}, identity=anna)).count == 8
        for method, params in (("fits", {"request": wish(9, project="other")}), ("capacity", {})):
            with pytest.raises(NotAllowed):
                await made.call(method, params, identity=anna)
        claimed = msgspec.structs.replace(wish(1, project="own"), claim="c")
        with pytest.raises(NotAllowed):
            await made.call("place", {"request": claimed}, identity=anna)


# what a guest counts


async def test_a_quota_counts_what_extra_specs_ask_for(autojump_clock: trio.testing.MockClock) -> None:
    def special(number: int) -> Asked:
        specs = {"resources:VGPU": "2", "resources:CUSTOM_LICENSE": "3"}
        flavor = Flavor(name="special", vcpus=2, memory_mb=1_024, extra_specs=specs)
        return asked(Request(spec=RequestSpec(flavor=flavor), instance_uuids=(uuid_of(number),), project_id="own"))

    async with world({"eu": 1}) as made:
        await member(made, VGPU=3, CUSTOM_LICENSE=3)
        assert not (await made.call("place", {"request": special(1)})).placed, (
            "the region's hosts have no such inventory"
        )
        for name, most in (("CUSTOM_LICENSE", 2), ("VGPU", 1)):
            await made.call("set_limits", {"scope": "project:own", "limits": {name: most}})
            with pytest.raises(QuotaExceeded, match=name):
                await made.call("place", {"request": special(2)})
        assert made.service.state.usage.by_scope == {}


@pytest.mark.property
@settings(deadline=None)
@given(extra_specs_given, properties_given)
def test_a_parent_counts_what_its_regions_count(extra_specs: dict[str, str], properties: dict[str, Any]) -> None:
    made = request(extra_specs, properties)
    state = ServiceState()
    with suppress(HostlerError):
        counted = state.amounts(made)
        if counted:  # else no host of any fleet fits
            assert amounts_of(made.spec, 1, state.engine.policy.own.nova_release) == counted


# uuids


async def test_a_guest_is_one_however_its_uuid_is_spelled(autojump_clock: trio.testing.MockClock) -> None:
    dashed = str(UUID(int=0xABCDEF << 64))
    other = dashed.replace("-", "").upper()
    async with world({"eu": 2}) as made:
        first = msgspec.structs.replace(wish(1), instance_uuids=(other,))
        await made.call("place", {"request": first})
        assert list(made.claims.guests) == made.guests_in("eu") == [dashed]
        for spelled in (dashed, other, dashed.upper()):
            again = msgspec.structs.replace(first, instance_uuids=(spelled,))
            with pytest.raises(DuplicateName):
                await made.call("place", {"request": again})
            assert (await made.call("region_of", {"uuid": spelled})).uuid == dashed
            assert (await made.call("instance", {"uuid": spelled})).node
        await made.call("move", {"uuid": other})
        await made.call("spawned", {"uuids": [other]})
        twice = msgspec.structs.replace(wish(2), instance_uuids=(uuid_of(2), uuid_of(2).replace("-", "")))
        with pytest.raises(InvalidValue, match="twice"):
            await made.call("place", {"request": twice})
        assert await made.call("release", {"uuids": [other, dashed]}) == 1
        assert made.guests_in("eu") == []


# regions that are away, or not what is asked for


async def test_what_only_a_region_that_is_away_could_fulfil_is_unavailable_and_not_invalid(
    autojump_clock: trio.testing.MockClock,
) -> None:
    eu = RegionOptions(addresses=("unix:/none",), traits=("GDPR",))
    async with world({"eu": 1, "us": 1}, eu=eu) as made:
        made.links["eu"].up = False
        await made.until(lambda: not made.links["eu"].alive)
        with pytest.raises(RegionsUnavailable):
            await made.call("place", {"request": wish(1, hints={"region_traits": ("GDPR",)})})
        with pytest.raises(InvalidValue):
            await made.call("place", {"request": wish(1, hints={"region_traits": ("FAST",)})})


async def test_questions_are_answered_by_the_regions_that_do_and_refused_with_an_error_that_says_why(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1, "us": 2}) as made:
        made.links["eu"].faults = [("capacity", "before", ConnectionLost("cut"))]
        assert (await made.call("capacity", {}))["VCPU"].total == 32
        for link in made.links.values():
            link.faults = [("capacity", "before", ConnectionLost("cut"))]
        with pytest.raises(RegionsUnavailable):
            await made.call("capacity", {})
        for link in made.links.values():
            link.faults = [("fits", "before", InvalidValue("no such image", field="spec.image"))]
        with pytest.raises(InvalidValue, match="no such image"):
            await made.call("fits", {"request": wish(1)})


async def test_a_member_that_does_not_lead_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 1}) as made:
        await made.call("place", {"request": wish(1)})
        made.cascade._nursery = None  # as before it leads, and after
        questions: list[tuple[str, dict[str, Any]]]
        questions = [("capacity", {}), ("fits", {"request": wish(1)}), ("instance", {"uuid": uuid_of(1)})]
        for method, params in (*questions, ("place", {"request": wish(2)}), ("release", {"uuids": [uuid_of(1)]})):
            with pytest.raises(NotLeader):
                await made.call(method, params)
        with pytest.raises(NotLeader):
            made.service.region_summary()
        assert (await made.call("region_of", {"uuid": uuid_of(1)})).region == "eu"


class Follower:
    """As much of a cluster as a question that demands an age needs."""

    def check_age(self, stale_ms: float) -> None:
        raise TooStale(f"older than {stale_ms} ms")


@asynccontextmanager
async def asked_by_a_client(made: World) -> AsyncIterator[Client]:
    """A client of a parent, over a socket."""
    async with trio.open_nursery() as nursery:
        made.service.open_to_all = True
        (address,) = await nursery.start(RpcServer(made.service).serve, [Address.parse("tcp:127.0.0.1:0")])
        async with open_client(str(address), within=5.0) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_a_question_may_demand_an_age_of_a_parent_too() -> None:
    async with world({"eu": 1}) as made, asked_by_a_client(made) as client:
        made.service.cluster = Follower()  # type: ignore[assignment]  # only what the call asks for
        with pytest.raises(TooStale):
            await client.call("capacity", stale_ms=10.0, within=1.0)
        assert (await client.call("capacity"))["VCPU"].total == 16


async def test_a_call_ends_at_its_time_and_what_it_began_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world({"eu": 1}) as made, asked_by_a_client(made) as client:
        answers, ask = trio.Event(), made.links["eu"].call

        async def slow(*given: Any, **options: Any) -> Any:
            await answers.wait()
            return await ask(*given, **options)

        monkeypatch.setattr(made.links["eu"], "call", slow)
        with pytest.raises(DeadlineExceeded) as caught:
            await client.call("place", {"request": wish(1)}, key="k", within=1.0)
        assert caught.value.maybe_done
        answers.set()
        assert (await client.call("place", {"request": wish(1)}, key="k")).placed
        assert made.guests_in("eu") == [uuid_of(1)]


# faults beside a call


@pytest.mark.parametrize("figure", [-1, 2**60, None])
async def test_a_malformed_summary_is_ignored(figure: int | None, autojump_clock: trio.testing.MockClock) -> None:
    async with world({"eu": 1, "us": 1}) as made:
        fits = (1,) * (len(SHAPE_CLASSES) - 1) if figure is None else (figure,) * len(SHAPE_CLASSES)
        made.links["eu"].told = RegionSummary(9, (AreaSummary("nova", "", 1, 1, 1, 1, fits),))
        known = made.links["eu"].summary
        await made.until(lambda: made.links["eu"].summaries_ignored > 2)
        assert made.links["eu"].summary == known
        for number in (1, 2):
            assert (await made.call("place", {"request": wish(number)})).placed
        assert sum(line.hosts for line in made.cascade.lines()) == 2
        assert made.service.region_summary().areas


async def test_a_claim_that_a_summary_says_already_is_not_counted_again(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 1}) as made:
        eu = made.links["eu"]
        ask = eu.call

        async def told_first(*given: Any, **options: Any) -> Any:
            answer = await ask(*given, **options)
            eu._take(eu.service.region_summary())
            return answer

        with monkeypatch.context() as late:
            late.setattr(eu, "call", told_first)
            await made.call("place", {"request": wish(1)})
        assert eu.known.claimed == (0, 0)
        await made.call("place", {"request": wish(2)})
        assert eu.known.claimed == (2, 2_048)


async def test_an_unexpected_error_ends_its_own_call_only(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world({"eu": 1}) as made:
        with monkeypatch.context() as broken:
            broken.setattr(made.cascade.claiming, "_order", lambda wish: 1 // 0)
            with pytest.raises(InternalError) as caught:
                await made.call("place", {"request": wish(1)}, key="k")
            assert caught.value.maybe_done
        assert (await made.call("place", {"request": wish(1)}, key="k")).placed


async def test_what_was_asked_of_a_region_that_is_not_configured_any_more_goes_to_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1}) as made:
        await made.record(ClaimInRegion(id="c", region="gone", request=wish(1)))
        await made.at_rest()
        assert made.claims.guests[uuid_of(1)].region == "eu"
        before = made.service.writer.sequence
        await trio.sleep(120)
        assert made.service.writer.sequence == before


async def test_what_cannot_be_gone_on_with_is_tried_more_and_more_rarely(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[float]()

    async def resume(claim: object) -> None:
        tried.append(trio.current_time())
        raise RegionsUnavailable("no")

    async with world({"eu": 1}) as made:
        monkeypatch.setattr(made.cascade.claiming, "resume", resume)
        await made.record(ClaimInRegion(id="c", region="eu", request=wish(1)))
        await trio.sleep(600)
        assert 10 < len(tried) < 40
        assert tried[-1] - tried[-2] > 25


async def test_pauses_double_up_to_the_longest(autojump_clock: trio.testing.MockClock) -> None:
    pauses, waits = Pauses(1.0, 5.0), []
    for _ in range(5):
        pauses.failed("x")
        began = trio.current_time()
        while not pauses.is_due("x"):  # noqa: ASYNC110  nothing tells of it
            await trio.sleep(0.5)
        waits.append(trio.current_time() - began)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    pauses.failed("x")
    pauses.keep(set())
    assert pauses.is_due("x")


# records


async def test_the_audit_log_and_the_events_of_a_parent_name_user_and_project(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world({"eu": 1}) as made:
        anna = await member(made)
        lines, first = list[Line](), made.service.history.last
        made.service.writer.observers.append(
            lambda sequence, order, outcome: lines.append(line_of(sequence, order, outcome))
        )
        await made.call("place", {"request": wish(1, project="own")}, identity=anna)
        await made.call("release", {"uuids": [uuid_of(1)]}, identity=anna)
        assert {line.user for line in lines} == {"anna"}
        found = {line.command: line.on for line in lines}
        assert found["claim_in_region"] == [uuid_of(1), "project:own", "region:eu"]
        assert found["settle_region_claim"] == [uuid_of(1), "project:own"]
        assert found["begin_region_release"] == found["forget_region_guests"] == [uuid_of(1)]
        events = [
            each
            for sequence in range(first + 1, made.service.history.last + 1)
            for each in made.service.history.events(sequence)
        ]
        assert {each.user for each in events} == {"anna"}
        assert [each.hosts for each in events if each.kind == "decisions"] == [{uuid_of(1): "eu-0"}]
        assert {each.project for each in events if each.command != "settle_region_release"} == {"own"}


async def test_who_asks_a_parent_is_told_no_host_that_came_nearest(autojump_clock: trio.testing.MockClock) -> None:
    async with world({"east": 2}) as made:
        anna = await member(made)
        for memory_mb in (1_024, 1 << 24):  # one thing lacks, or two: then the hint names a host
            flavor = Flavor(name="large", vcpus=4_000, memory_mb=memory_mb)
            given = asked(Request(spec=RequestSpec(flavor=flavor), project_id="own"))
            told = await made.call("place", {"request": given}, identity=anna)
            assert told.refusal is not None
            assert "east-" not in repr(told)
