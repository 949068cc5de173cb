"""Work is bounded: what one request or call may ask for, how often, and in which turns long questions are answered."""

from __future__ import annotations

import difflib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from hostler.core.engine_commands import (
    AddHosts,
    AllocationCandidate,
    Asked,
    Hold,
    Place,
    PlaceCandidates,
    PlaceMany,
    Release,
    SetService,
)
from hostler.core.errors import KeyReused, Overloaded
from hostler.core.forks import Children
from hostler.core.machine import queries
from hostler.core.machine.catalog_queries import Flavors, Images
from hostler.core.machine.instance_queries import Instances
from hostler.core.machine.lifecycle_queries import Guests, ListBackends, VolumeLives
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import SelectDestinations
from hostler.core.machine.queries import Fits
from hostler.core.machine.replicated import unpacked
from hostler.core.machine.request_limits import (
    LONGEST_NAME,
    NEW_SPEC_WEIGHT,
    ON_MANY,
    PART_REQUESTS,
    PART_SHAPES,
    STEP_WEIGHT,
    RequestLimits,
    checked_parts_of,
    cost_of,
    parts_of,
)
from hostler.core.machine.volume_queries import VolumeTypes
from hostler.core.machine.what_if import WhatIf
from hostler.core.rates import Rate, RateLimits
from hostler.core.region_commands import PlaceAcross
from hostler.core.rpc.methods import METHODS
from hostler.core.service import Identity, Service
from hostler.core.storage_commands import AskedVolume, PlaceTogether, PlaceVolume, PlaceVolumeGroup
from hostler.core.tenancy.errors import NotAllowed
from hostler.core.tenancy.records import User
from hostler.core.tenancy.tenants import Tenants
from hostler.core.writer.writer import open_writer
from hostler.placement.types.errors import COMPARED, HostlerError, InvalidValue, UnknownName
from hostler.placement.types.request import ServerGroup

from ..patience import HANG_SECONDS
from ..seeds import seeds
from .orders import LOCAL, NOW, asked, hosts, machine, order, uuid_of

LIMITS = RequestLimits(instances=3, requests=5, alternates=2, spec_bytes=200, group_members=2, uuids=4, candidates=3)
GROUP = ServerGroup(uuid=uuid_of(9), policy="anti-affinity", members=frozenset(map(uuid_of, range(3))))
OFFERS = {uuid_of(1): (AllocationCandidate(allocations={}),) * 3, uuid_of(2): ()}
TOO_MUCH: dict[str, Any] = {
    "request.instance_uuids": Place(request=asked(1, 2, 3, 4)),
    "requests": PlaceMany(requests=(asked(),) * 6),
    "request.alternates": Place(request=msgspec.structs.replace(asked(), alternates=3)),
    "request.spec": Fits(request=asked(scheduler_hints={"x": "y" * 200})),
    "request.server_group.members": Place(request=msgspec.structs.replace(asked(), server_group=GROUP)),
    "candidates": PlaceCandidates(request=asked(), candidates=OFFERS),
    "uuids": Release(uuids=tuple(uuid_of(each) for each in range(5))),
}


@pytest.mark.parametrize("field", TOO_MUCH)
def test_what_asks_for_too_much_is_refused_with_its_field_and_the_limit(field: str) -> None:
    with pytest.raises(InvalidValue, match="at most") as error:
        LIMITS.check(TOO_MUCH[field])
    assert error.value.field == field
    assert "[limits]" in str(error.value.hint)


TEXTS = [each.name for each in msgspec.structs.fields(Asked) if each.type in (str, str | None)]


def assessed(command: Any) -> None:
    """A placement of a spec that is known already takes a way of its own."""
    LIMITS.assess(command, {bytes(asked().spec): None}, lambda: 1)  # type: ignore[arg-type]  # only names matter


@pytest.mark.parametrize("check", [LIMITS.check, assessed])
@pytest.mark.parametrize("name", TEXTS)
def test_no_text_of_a_request_is_longer_than_a_name(name: str, check: Callable[[Any], None]) -> None:
    for size in (LONGEST_NAME, LONGEST_NAME + 1):
        request = msgspec.structs.replace(asked(), **{name: "x" * size})
        volume = AskedVolume(spec=request.spec, project_id="x" * size)
        for command in (Place(request=request), PlaceMany(requests=(asked(), request)), PlaceVolume(request=volume)):
            if size <= LONGEST_NAME:
                check(command)
            else:
                with pytest.raises(InvalidValue, match="has 256 characters, at most 255"):
                    check(command)


def test_a_request_selects_so_many_hosts_and_volumes_at_most() -> None:
    limits, volume = RequestLimits(selections=400), AskedVolume(spec=asked().spec)
    limits.check(Place(request=msgspec.structs.replace(asked(*range(100)), alternates=3)))
    with pytest.raises(InvalidValue, match="500 hosts in all, at most 400 are selected") as error:
        limits.check(Place(request=msgspec.structs.replace(asked(*range(100)), alternates=4)))
    assert error.value.field == "request.alternates"
    limits.check(PlaceVolumeGroup(volumes=(volume,) * 100))
    for command in (PlaceVolumeGroup(volumes=(volume,) * 101), PlaceTogether(request=asked(), volumes=(volume,) * 101)):
        with pytest.raises(InvalidValue, match="101 volumes, at most 100"):
            limits.check(command)


def test_no_other_text_of_a_command_or_question_is_long() -> None:
    for command in (SetService(name="n", disabled_reason="x" * 4_097), Instances(project="x" * 4_097)):
        with pytest.raises(InvalidValue, match="at most 4096"):
            LIMITS.check(command)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
@pytest.mark.parametrize("depth", [28, 40, 900, 983])
def test_no_nesting_of_a_spec_exceeds_the_limit_of_the_interpreter(depth: int, opening: bytes) -> None:
    """RecursionError says nothing of a command alone, so that it would end the process."""
    made = ServiceMachine()
    made.apply(order(AddHosts(hosts=hosts(1))))
    deep = b"\x81\xa5query" + opening * depth + b"\xa1x"
    flavor = b"\xa6flavor\x83\xa4name\xa1f\xa5vcpus\x01\xa9memory_mb\x01"
    guest = Asked(spec=msgspec.Raw(b"\x82" + flavor + b"\xafscheduler_hints" + deep))
    volume = AskedVolume(spec=msgspec.Raw(b"\x82\xa7size_gb\x01\xafscheduler_hints" + deep))
    for command in (Place(request=guest), PlaceVolume(request=volume)):
        (outcome,) = made.apply_batch([order(command)])
        assert not isinstance(outcome, HostlerError) or outcome.code == "invalid_value"
        assert depth < 32 or isinstance(outcome, InvalidValue)


@pytest.mark.parametrize("name", [name for name, kind in Asked.__annotations__.items() if "str" in str(kind)])
def test_a_long_text_among_many_requests_is_refused_with_its_name(name: str) -> None:
    value: Any = "x" * (LONGEST_NAME + 1)
    if name == "instance_uuids":
        value = (uuid_of(1),) * 4
    requests = (asked(), msgspec.structs.replace(asked(), **{name: value}))
    with pytest.raises(InvalidValue) as error:
        LIMITS.check(PlaceMany(requests=requests))
    assert error.value.field == f"request.{name}"


@pytest.mark.parametrize("name", ["server_group", "claim", "project_id", "user_id", "request_id"])
def test_a_long_text_is_refused_beside_a_spec_that_is_known(name: str) -> None:
    specs = machine().state.specs
    specs.of(asked().spec)
    request = msgspec.structs.replace(asked(), **{name: "x" * (LONGEST_NAME + 1)})
    with pytest.raises(InvalidValue, match="characters"):
        LIMITS.assess(Place(request=request), specs, lambda: 10)


def test_what_keeps_to_the_limits_is_let_through() -> None:
    LIMITS.check(Place(request=asked(1, 2, 3)))
    LIMITS.check(PlaceMany(requests=(asked(),) * 5))
    LIMITS.check(Release(uuids=(uuid_of(1),) * 4))


def shapes(count: int, each: int = 1) -> tuple[Asked, ...]:
    return tuple(asked(memory_mb=64 + number) for number in range(count) for _ in range(each))


@pytest.mark.parametrize("requests", [shapes(1, 2_500), shapes(30), shapes(9, 200), shapes(3, 5), shapes(1)])
def test_a_long_call_is_cut_into_bounded_parts_that_are_the_call_together(requests: tuple[Asked, ...]) -> None:
    parts = list(parts_of(PlaceMany(requests=requests)))
    assert tuple(each for part in parts for each in part.requests) == requests
    for part in parts:
        assert 0 < len(part.requests) <= PART_REQUESTS
        assert len({bytes(each.spec) for each in part.requests}) <= PART_SHAPES


def cut_by_hand(requests: tuple[Asked, ...]) -> Iterator[list[Asked]]:
    """The same, request by request."""
    part: list[Asked] = []
    for each in requests:
        seen = {bytes(other.spec) for other in part}
        if len(part) == PART_REQUESTS or len(seen | {bytes(each.spec)}) > PART_SHAPES:
            yield part
            part = []
        part.append(each)
    yield part


def checked_by_hand(requests: tuple[Asked, ...], known: bytes) -> Iterator[list[Asked]]:
    """Pieces that are checked at a time, request by request; one spec is known."""
    part: list[Asked] = []
    weight, before = 0, b""
    for each in requests:
        spec = bytes(each.spec)
        weight += 1 if spec in (before, known) else NEW_SPEC_WEIGHT
        before = spec
        part.append(each)
        if weight >= STEP_WEIGHT:
            yield part
            part, weight = [], 0
    if part:
        yield part


@pytest.mark.parametrize("seed", seeds(20, "parts of batches"))
def test_parts_are_those_found_request_by_request(seed: int) -> None:
    chance = random.Random(seed)
    kinds, requests = shapes(12), list[Asked]()
    while len(requests) < chance.choice([1, 40, 700, 1_600]):
        longest = chance.choice([1, 1, 3, 600])
        few = [chance.choice(kinds)] * chance.randint(1, longest)
        requests += [asked_again(each, position) for position, each in enumerate(few)] if chance.random() < 0.3 else few
    call = PlaceMany(requests=tuple(requests))
    assert [list(part.requests) for part in parts_of(call)] == list(cut_by_hand(call.requests))
    specs = machine().state.specs
    specs.of(kinds[0].spec)
    checked = [list(part.requests) for part in checked_parts_of(call, specs)]
    assert checked == list(checked_by_hand(call.requests, bytes(kinds[0].spec)))


def asked_again(request: Asked, number: int) -> Asked:
    """Another request of the spec."""
    return msgspec.structs.replace(request, request_id=f"req-{number}")


def test_every_command_on_many_is_bounded_and_costs_more_the_more_it_names() -> None:
    kinds = [kind for each in METHODS.values() if "uuids" in (kind := each.params).__struct_fields__]
    assert set(ON_MANY) == set(kinds)
    specs = ServiceMachine().state.specs
    for kind in kinds:
        few, many = (kind(uuids=tuple(map(uuid_of, range(1, 1 + count)))) for count in (10, 1_000))
        assert cost_of(many, specs, 1) > 30 * cost_of(few, specs, 1), kind
        RequestLimits(uuids=1_000).check(many)
        with pytest.raises(InvalidValue, match="1000 uuids, at most 999 are taken"):
            RequestLimits(uuids=999).check(many)


def test_a_request_for_many_instances_costs_the_same_by_whatever_command() -> None:
    specs, request = ServiceMachine().state.specs, asked(*range(1, 101))
    for command in (
        Hold(request=request, expires_in=1.0),
        SelectDestinations(request=request),
        PlaceMany(requests=(request,)),
        PlaceAcross(requests=(request,)),
    ):
        assert cost_of(command, specs, 1) == cost_of(Place(request=request), specs, 1), command


def test_what_is_new_or_asks_for_several_costs_more_the_more_hosts_there_are() -> None:
    machine = ServiceMachine()
    specs = machine.state.specs
    new = cost_of(Place(request=asked()), specs, 10_000)
    specs.of(asked().spec)
    known = cost_of(Place(request=asked()), specs, 10_000)
    assert new > 100 * known
    assert cost_of(Place(request=asked(*range(100))), specs, 10_000) > 50 * known
    assert cost_of(Place(request=asked(*range(100))), specs, 10) < 10_000


async def call(service: Service, command: Any, *, user: str = LOCAL, key: str | None = None, kind: bytes = b"") -> Any:
    answered = trio.Event()
    pending = service.order(Identity(user), command, lambda _: answered.set(), key=key, fingerprint=kind)
    with trio.fail_after(HANG_SECONDS):
        if pending.state != "done":
            await answered.wait()
    if pending.error is not None:
        raise pending.error
    return unpacked(pending.result)


async def test_a_call_in_parts_is_answered_as_one_and_a_repetition_gets_the_same_answer() -> None:
    machine = ServiceMachine()
    async with open_writer(machine) as writer:
        service = Service(machine, writer, clock=lambda: NOW)
        await writer.submit(order(AddHosts(hosts=hosts(3, vcpus_total=10, cpu_allocation_ratio=1.0))))
        long = PlaceMany(requests=shapes(40))
        answer = await call(service, long, key="k", kind=b"1")
        assert len(answer.hosts) == len(answer.instance_uuids) == 40
        assert answer.placed == 30
        assert sorted(answer.refusals) == list(range(30, 40))
        assert answer.refused_by == {"VCPU": 10}
        assert writer.sequence == 1 + 5
        assert msgspec.to_builtins(await call(service, long, key="k", kind=b"1")) == msgspec.to_builtins(answer)
        assert writer.sequence == 1 + 5
        with pytest.raises(KeyReused):
            await call(service, PlaceMany(requests=shapes(60)), key="k", kind=b"2")
        assert writer.sequence == 1 + 5


async def test_the_answer_of_a_call_in_parts_is_that_of_one_command() -> None:
    answers = []
    for cut in (True, False):
        machine = ServiceMachine()
        async with open_writer(machine) as writer:
            service = Service(machine, writer, clock=lambda: NOW)
            await writer.submit(order(AddHosts(hosts=hosts(3, vcpus_total=10, cpu_allocation_ratio=1.0))))
            long = PlaceMany(requests=shapes(20, 2))
            answers.append(await call(service, long) if cut else await writer.submit(order(long)))
    assert msgspec.to_builtins(answers[0]) == msgspec.to_builtins(answers[1])


async def test_a_long_call_is_read_and_checked_in_steps_and_queued_when_all_of_it_is_checked() -> None:
    machine = ServiceMachine()
    async with open_writer(machine) as writer:
        service = Service(machine, writer, clock=lambda: NOW)
        await writer.submit(order(AddHosts(hosts=hosts(3))))
        answered = trio.Event()
        steps = service.order_in_steps(Identity(LOCAL), PlaceMany(requests=shapes(200)), lambda _: answered.set())
        known = []
        for _ in steps:
            assert writer.queued == 0
            known.append(len(machine.state.specs))
        assert max(after - before for before, after in pairwise(known)) <= STEP_WEIGHT // NEW_SPEC_WEIGHT
        with trio.fail_after(HANG_SECONDS):
            await answered.wait()


async def test_what_is_left_of_a_long_call_is_dropped_when_its_caller_goes() -> None:
    machine = ServiceMachine()
    async with open_writer(machine) as writer:
        service = Service(machine, writer, clock=lambda: NOW)
        await writer.submit(order(AddHosts(hosts=hosts(3))))
        pending = service.order(Identity(LOCAL), PlaceMany(requests=shapes(200)), lambda _: None)
        with trio.fail_after(HANG_SECONDS):
            while writer.sequence < 3:
                await trio.lowlevel.checkpoint()
        assert writer.cancel(pending)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert writer.sequence < 1 + 200 // PART_SHAPES


async def test_a_long_call_with_one_request_that_is_not_allowed_changes_nothing() -> None:
    machine = ServiceMachine()
    async with open_writer(machine) as writer:
        service = Service(machine, writer, clock=lambda: NOW)
        await writer.submit(order(AddHosts(hosts=hosts(3))))
        service.state.tenants = Tenants(users={"ann": User("d", roles=[("member", "project:p")])})
        mine = [msgspec.structs.replace(each, project_id="p") for each in shapes(200)]
        mine[-1] = msgspec.structs.replace(mine[-1], project_id="other")
        with pytest.raises(NotAllowed):
            await call(service, PlaceMany(requests=tuple(mine)), user="ann")
        assert writer.sequence == 1


async def test_who_calls_too_often_is_refused_and_others_are_not(autojump_clock: trio.testing.MockClock) -> None:
    rate = Rate("commands", 10, 2.0)
    for _ in range(20):
        rate.spend("ann")
    with pytest.raises(Overloaded, match="10 commands a second") as error:
        rate.spend("ann")
    assert "0.1 s" in str(error.value.hint)
    rate.spend("bob")
    await trio.sleep(0.1)
    rate.spend("ann")
    await trio.sleep(100)
    rate.spend("ann", 1_000)
    with pytest.raises(Overloaded):
        rate.spend("ann")
    Rate("commands", 0, 2.0).spend("ann", 10**9)


async def test_a_service_limits_the_rate_of_users_but_not_its_own() -> None:
    machine = ServiceMachine()
    async with open_writer(machine) as writer:
        rates = RateLimits(commands_per_second=0.001, burst=1.0)
        service = Service(machine, writer, clock=lambda: NOW, open_to_all=True, rates=rates)
        service.state.tenants = Tenants(users={"ann": User("d", roles=[("cloud_admin", "cloud")])})
        for _ in range(3):
            await call(service, AddHosts(hosts=()))
        await call(service, PlaceMany(requests=(asked(),)), user="ann")
        with pytest.raises(Overloaded, match="commands a second"):
            await call(service, PlaceMany(requests=(asked(),)), user="ann")


async def test_long_questions_of_one_user_do_not_keep_anothers_waiting(tmp_path: Path) -> None:
    children, order_of_answers = Children(1, waiting=10), []
    gate = tmp_path / "open"

    def answered() -> bytes:
        while not gate.exists():
            time.sleep(0.005)
        return b"x"

    async def ask(lane: str) -> None:
        await children.ask(answered, lane=lane)
        order_of_answers.append(lane)

    with trio.fail_after(HANG_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask, "greedy")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, "modest")
            await trio.testing.wait_all_tasks_blocked()
            gate.touch()
    assert order_of_answers.index("modest") <= 2
    assert len(order_of_answers) == 9


async def test_only_so_many_long_questions_of_one_user_wait() -> None:
    children = Children(1, waiting=2)
    refused = []

    async def ask() -> None:
        try:
            await children.ask(lambda: b"x", lane="greedy")
        except Overloaded as error:
            refused.append(error)

    with trio.fail_after(HANG_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(ask)
    assert len(refused) == 3
    assert await children.ask(lambda: b"x", lane="greedy") == b"x"


def test_long_lists_are_made_aside() -> None:
    made = machine()
    asked_for: list[Any] = [Guests(), VolumeLives(), ListBackends(), Flavors(), Images(), VolumeTypes()]
    assert not any(queries.takes_long(made.state, question) for question in asked_for)
    lives, catalog = made.state.lives, made.state.catalog
    for kept in (lives.guests, catalog.flavors, catalog.images, catalog.volume_types):
        kept.update(dict.fromkeys(map(str, range(2_000))))  # type: ignore[arg-type]  # nothing looks at them
    assert all(queries.takes_long(made.state, question) for question in asked_for)


@pytest.mark.parametrize(("hosts", "requests", "aside"), [(1, 2, True), (1, 1, False), (50, 1, True)])
def test_shared_room_is_divided_aside(hosts: int, requests: int, aside: bool) -> None:
    state = machine(hosts).state
    assert queries.takes_long(state, queries.FitsMany(requests=[asked()] * requests)) is aside


GROUPED = msgspec.structs.replace(asked(), server_group=uuid_of(9))


@pytest.mark.parametrize(
    ("question", "hosts", "aside"),
    [
        (queries.Fits(request=asked()), 5, False),
        (queries.Fits(request=asked()), 50, True),
        (queries.Fits(request=GROUPED), 5, True),
        (queries.Fits(request=asked(), limit=5_000), 5, True),
        (WhatIf(commands=[Place(request=asked())]), 5, False),
        (WhatIf(commands=[PlaceMany(requests=(asked(),))]), 5, True),
    ],
)
def test_questions_that_may_place_many_guests_are_answered_aside(question: Any, hosts: int, aside: bool) -> None:
    assert queries.takes_long(machine(hosts).state, question) is aside


def test_a_wrong_name_is_compared_with_few_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    matches = difflib.get_close_matches

    def counting(word: str, possibilities: Sequence[str], **options: Any) -> list[str]:
        compared.append(len(possibilities))
        return matches(word, possibilities, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    names = [f"user-{number:06}" for number in range(50_000)]
    assert "user-012345" in str(UnknownName.among("user", "user-012345x", names))
    assert "user-000000" in str(UnknownName.among("user", "aaaa", names))
    assert "closest: user-0499" in str(UnknownName.among("user", "user-05", names))
    assert "closest" in str(UnknownName.among("user", "x" * 60_000, names))
    assert max(compared) <= COMPARED
