"""Requests for many instances are placed in steps: with the outcome and the state that they have at once, whatever
others ask between two steps, and who then looks sees the state before the request."""

from __future__ import annotations

import functools
import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine import offered_candidates
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import SelectDestinations
from hostler.core.tenancy import commands as c
from hostler.ext.tables import format_uuid
from hostler.placement.decide import in_steps, offered, scan_placement
from hostler.placement.storage import groups
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec
from hostler.placement.types.decision import PackedDecision
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec
from tests.core.orders import NOW, order, uuid_of
from tests.seeds import seeds
from tests.volumes.values import storage_machine
from tests.volumes.values import wish as volume

HOSTS, COMMANDS = 24, 12
GROUPS = {
    policy: f"00000000-0000-4000-8000-0000000000{at:02}"
    for at, policy in enumerate(("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"))
}


def world(chance: random.Random) -> ServiceMachine:
    """Hosts of few or many sizes, server groups, and a project with a limit."""
    sizes = chance.choice([1, 3, 100])
    hosts = tuple(
        Host(
            host=f"n{number}",
            vcpus_total=16 + chance.randrange(sizes),
            total_usable_ram_mb=65_536 + 64 * chance.randrange(sizes),
            total_usable_disk_gb=900,
            hypervisor_version=chance.randrange(2),
        )
        for number in range(HOSTS)
    )
    made = ServiceMachine()
    setup: list[Any] = [p.AddHosts(hosts=hosts), c.CreateDomain(id="d"), c.CreateProject(id="limited", domain="d")]
    setup += [c.SetLimits(scope="project:limited", limits={"instances": 70})]
    setup += [p.AddServerGroup(uuid=uuid, policy=policy) for policy, uuid in GROUPS.items()]
    for command in setup:
        made.apply(order(command))
    return made


def wish(chance: random.Random, most: int = 20) -> p.Asked:
    """A request for some instances."""
    vcpus, memory_mb = chance.choice([1, 1, 2, 30]), chance.choice([64, 512, 9_000])
    spec = {"flavor": {"name": "f", "vcpus": vcpus, "memory_mb": memory_mb}}
    if chance.random() < 0.2:
        spec["ignore_hosts"] = [f"n{chance.randrange(HOSTS)}"]  # type: ignore[assignment]  # of another type
    uuids = tuple(format_uuid(chance.getrandbits(64), chance.getrandbits(64)) for _ in range(chance.randint(1, most)))
    if chance.random() < 0.1:
        uuids = (*uuids, uuids[0])
    return p.Asked(
        spec=msgspec.Raw(msgspec.msgpack.encode(spec)),
        instance_uuids=uuids,
        project_id=chance.choice(["", "limited", "q"]),
        server_group=chance.choice([None, None, *GROUPS.values()]),
        alternates=chance.choice([0, 0, 3]),
    )


@functools.cache
def providers() -> tuple[str, ...]:
    """Uuids of the hosts, which are made from their names."""
    fleet = world(random.Random(0)).state.fleet
    return tuple(map(fleet.uuid, range(HOSTS)))


def among(chance: random.Random) -> p.PlaceCandidates:
    """A request with some candidates of some hosts, not all of which fit."""

    def candidate(provider: str) -> p.AllocationCandidate:
        resources = {"VCPU": chance.choice([1, 3, 60, 300]), "MEMORY_MB": 64}
        return p.AllocationCandidate(allocations={provider: p.ProviderResources(resources)})

    some = chance.sample(providers(), chance.randrange(HOSTS))
    offers = {each: tuple(candidate(each) for _ in range(chance.randrange(6))) for each in some}
    return p.PlaceCandidates(request=wish(chance, 6), candidates=offers)


def command_of(chance: random.Random) -> Any:
    match chance.randrange(6):
        case 0:
            return p.Hold(request=wish(chance), expires_in=1e6)
        case 1:
            return p.PlaceMany(requests=tuple(wish(chance) for _ in range(4)))
        case 2:
            return SelectDestinations(request=wish(chance))
        case 3:
            return among(chance)
    return p.Place(request=wish(chance))


@contextmanager
def steps_of(instances: float) -> Iterator[None]:
    """With so many instances a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_steps, "MANY", instances)
        patch.setattr(in_steps, "ALTERNATES", instances)
        patch.setattr(scan_placement, "STEP", instances)
        patch.setattr(scan_placement, "ALTERNATES", instances)
        for module in (offered, offered_candidates):
            patch.setattr(module, "LOOKED_AT", int(min(instances, 1e6)))
        yield


def outcome_of(made: ServiceMachine, command: Any, pause: Callable[[], object] = lambda: None, now: float = NOW) -> Any:
    """What becomes of a command; ``pause`` is called between its steps."""
    steps = made.carry_out([order(command, now=now)])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            (outcome,) = end.value
            if isinstance(outcome, HostlerError):
                outcome.__traceback__ = outcome.__context__ = outcome.__cause__ = None  # as the writer does
                return type(outcome).__name__, str(outcome)
            return outcome.unpack() if isinstance(outcome, PackedDecision) else outcome
        pause()


def look(made: ServiceMachine, chance: random.Random, like: p.Asked | None = None) -> None:
    """Ask what others may ask meanwhile, such as what is asked ``like``."""
    engine = made.state.engine
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=chance.choice([1, 2, 30]), memory_mb=chance.choice([64, 512])))
    request = Request(spec=spec, now=engine.fleet.now)
    if like is not None:
        fresh = (format_uuid(chance.getrandbits(64), chance.getrandbits(64)),)
        request = made.state.request(msgspec.structs.replace(like, instance_uuids=fresh), engine.fleet.now)
    match chance.randrange(5):
        case 0:
            engine.rank(request)
        case 1:
            engine.what_if().place(request)
        case 2:
            fork = engine.fork()
            one, other, *_ = (fork.fleet.name(row) for row in range(2))
            fork.fleet.set_service(one, disabled=True)
            fork.fleet.set_traits(other, ["HW_CPU_X86_AVX"])
            fork.place(request)
        case 3:
            engine.fits(request)


@pytest.mark.parametrize("seed", seeds(6, "several in steps"))
def test_steps_end_as_one_does_and_show_nothing_before_they_end(seed: int) -> None:
    chance, meanwhile = random.Random(seed), random.Random(f"meanwhile {seed}")
    made, at_once = world(random.Random(seed)), world(random.Random(seed))
    placed = paused = 0
    for _ in range(COMMANDS):
        command, before = command_of(chance), state_digest(made.state)
        seen, states = list[bytes](), {before}
        asked = command.requests[-1] if isinstance(command, p.PlaceMany) else command.request

        def pause(seen: list[bytes] = seen, asked: p.Asked = asked) -> None:
            if meanwhile.random() < 0.5:
                look(made, meanwhile, meanwhile.choice([None, asked]))
                seen.append(state_digest(made.state))

        def note(states: set[bytes] = states) -> None:
            states.add(state_digest(at_once.state))

        with steps_of(3):
            found = outcome_of(made, command, pause)
        with steps_of(1e9):
            expected = outcome_of(at_once, command, note)
        assert found == expected, command
        assert state_digest(made.state) == state_digest(at_once.state)
        if isinstance(command, p.PlaceMany):
            assert set(seen) <= states
        else:
            assert set(seen) <= {before}
        placed += bool(getattr(found, "placed", False))
        paused += len(seen)
    made.state.fleet.check()
    assert placed
    assert paused


def group_of(chance: random.Random) -> s.PlaceVolumeGroup:
    """A volume group that may be too large."""
    largest = chance.choice([5, 60, 400])
    kinds = chance.choice([("gold",), ("silver",), (None,), ("gold", "silver"), (None, "silver")])
    wanted = []
    for _ in range(chance.randint(0, 8)):
        kind: dict[str, Any] = {} if (name := chance.choice(kinds)) is None else {"volume_type": name}
        wanted.append(volume(size_gb=chance.randint(1, largest), **kind))
    return s.PlaceVolumeGroup(volumes=tuple(wanted), project_id=chance.choice(["", "", "x"]))


@pytest.mark.parametrize("seed", seeds(4, "groups in steps"))
def test_volume_groups_end_as_at_once_and_show_nothing_before_they_end(seed: int) -> None:
    chance, meanwhile = random.Random(seed), random.Random(seed)
    made, at_once = storage_machine(), storage_machine()
    paused = 0

    def pause(before: bytes, free: list[float]) -> None:
        nonlocal paused
        paused += 1
        if meanwhile.random() < 0.5:
            storage = made.state.storage
            assert [float(each) for each in storage.pools.columns["free"]] == free
            storage.what_if().place(VolumeRequest(spec=VolumeSpec(size_gb=1), now=NOW))
            look(made, meanwhile)
            assert state_digest(made.state) == before

    for _ in range(20):
        command = group_of(chance)
        before = state_digest(made.state), [float(each) for each in made.state.storage.pools.columns["free"]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(groups, "STEP", 1)
            patch.setattr(groups, "BACKENDS", 1)
            found = outcome_of(made, command, partial(pause, *before))
        assert found == outcome_of(at_once, command)
        assert state_digest(made.state) == state_digest(at_once.state)
    assert paused


def test_what_was_tried_on_a_fork_leaves_no_trace_in_the_digest() -> None:
    made = world(random.Random(1))
    made.apply(order(p.Place(request=wish(random.Random(2)))))
    before, fork = state_digest(made.state), made.state.engine.fork()
    for memory_mb in (64, 128, 256):
        fork.place(Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=memory_mb)), project_id="new"))
    del fork
    assert state_digest(made.state) == before


def test_commands_in_steps_leave_no_cycles() -> None:
    made, stored, chance = world(random.Random(1)), storage_machine(), random.Random(3)

    def some() -> None:
        request = msgspec.structs.replace(wish(chance), instance_uuids=tuple(map(uuid_of, range(1, 31))))
        for group in (None, *GROUPS.values()):
            outcome_of(made, p.Place(request=msgspec.structs.replace(request, server_group=group)))
            outcome_of(made, p.Release(uuids=request.instance_uuids))
        outcome_of(stored, s.PlaceVolumeGroup(volumes=tuple(volume(size_gb=1) for _ in range(20)), project_id=""))

    gc.disable()
    try:
        some()
        gc.collect()
        some()
        assert gc.collect() == 0
    finally:
        gc.enable()
