"""The digest by which members compare their states."""

from __future__ import annotations

import random
import tempfile
from array import array
from pathlib import Path
from uuid import UUID

from hostler.core import engine_commands as commands
from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine.instance_queries import Instances
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, Order
from hostler.core.machine.queries import answer
from hostler.core.tenancy.tenants import LOCAL
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec
from hostler.placement.types.validation import uuid_words


def reloaded(machine: ServiceMachine) -> ServiceMachine:
    again = ServiceMachine()
    with tempfile.TemporaryDirectory() as folder:
        machine.save(Path(folder))
        again.load(Path(folder))
    return again


def some_commands(seed: int, count: int) -> list[AnyCommand]:
    chance, live, made = random.Random(seed), list[str](), list[AnyCommand]()
    for number in range(count):
        kind = chance.random()
        if number % 50 == 0:
            hosts = [Host(host=f"h{number}-{each}", vcpus_total=16, total_usable_ram_mb=32_768) for each in range(10)]
            made.append(commands.AddHosts(hosts=tuple(hosts)))
        elif kind < 0.6 or not live:
            live.append(str(UUID(int=chance.getrandbits(128))))
            flavor = Flavor(name="f", vcpus=chance.choice([1, 2, 4]), memory_mb=1_024 * chance.choice([1, 2]))
            request = Request(
                spec=RequestSpec(flavor=flavor), instance_uuids=(live[-1],), project_id=f"p{chance.randrange(5)}"
            )
            made.append(commands.Place(request=commands.asked(request)))
        elif kind < 0.9:
            made.append(commands.Release(uuids=(live.pop(chance.randrange(len(live))),)))
        else:
            made.append(commands.RemoveHost(name=f"h0-{chance.randrange(10)}", force=True))
    return made


def test_a_member_that_loaded_a_snapshot_has_the_digest_of_one_that_did_not() -> None:
    whole, part = ServiceMachine(), ServiceMachine()
    digests = set()
    for number, command in enumerate(some_commands(1, 500)):
        for machine in (whole, part):
            machine.apply_batch([Order(1_000.0 + number, LOCAL, command)])
        if number % 100 == 37:
            part = reloaded(part)
        if number % 50 == 49:
            assert state_digest(whole.state) == state_digest(part.state)
            digests.add(state_digest(whole.state))
    assert len(digests) == 10


def test_guests_that_are_gone_are_in_no_digest_and_in_no_snapshot() -> None:
    machine = ServiceMachine()
    for number, command in enumerate(some_commands(3, 100)):
        machine.apply_batch([Order(1_000.0 + number, LOCAL, command)])
    gone = [line.uuid for line in answer(machine.state, LOCAL, Instances())]
    machine.apply_batch([Order(2_000.0, LOCAL, commands.Release(uuids=tuple(gone)))])
    again = reloaded(machine)
    assert state_digest(machine.state) == state_digest(again.state)
    with tempfile.TemporaryDirectory() as folder:
        machine.save(Path(folder))
        written = b"".join(path.read_bytes() for path in Path(folder).iterdir())
    for uuid in gone:
        words = uuid_words(uuid, "uuid")
        assert array("Q", words).tobytes() not in written


def test_one_command_more_is_another_digest() -> None:
    one, other = ServiceMachine(), ServiceMachine()
    made = some_commands(2, 120)
    for number, command in enumerate(made):
        one.apply_batch([Order(1_000.0 + number, LOCAL, command)])
        if number < len(made) - 1:
            other.apply_batch([Order(1_000.0 + number, LOCAL, command)])
    assert state_digest(one.state) != state_digest(other.state)
