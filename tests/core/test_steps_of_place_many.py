"""A ``place_many`` is decided in steps of about a millisecond, by how many of its specs have yet to be compiled."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from hostler import Host
from hostler.core.engine_commands import AddHosts, Asked, Placed, PlaceMany
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.machine.placing import place_many
from hostler.core.machine.request_limits import parts_of
from hostler.core.tenancy.tenants import LOCAL
from tests.core.orders import uuid_of


def steps(specs: int, requests: int, instances: int = 0) -> int:
    """In how many steps so many requests are decided, of so many specs in turn, each for so many instances."""
    machine = ServiceMachine()
    hosts = tuple(Host(host=f"n{i}", vcpus_total=64, total_usable_ram_mb=10**6) for i in range(50))
    machine.apply(Order(1.0, LOCAL, AddHosts(hosts=hosts)))
    encoded = [msgspec.msgpack.encode({"flavor": {"name": "f", "vcpus": 1, "memory_mb": 64 + n}}) for n in range(specs)]
    asked = []
    for n in range(requests):
        uuids = tuple(uuid_of(n * instances + each) for each in range(instances))
        asked.append(Asked(spec=msgspec.Raw(encoded[n % specs]), project_id="p", instance_uuids=uuids))
    answers: list[Placed] = []

    def placing() -> Iterator[None]:
        answers.append((yield from place_many(machine.state, asked, 2.0)))

    taken = sum(1 for _ in placing())
    assert None not in answers[0].hosts
    return taken


@pytest.mark.parametrize(
    ("specs", "requests", "least", "most"),
    [
        pytest.param(1, 512, 4, 6, id="requests of one spec, a hundred or so at a time"),
        pytest.param(5, 512, 5, 8, id="five specs in turn hardly more"),
        pytest.param(200, 200, 50, 51, id="new specs four at a time"),
        pytest.param(100, 200, 25, 40, id="known specs sixteen at a time"),
    ],
)
def test_steps_are_as_long_as_their_specs_let_them(specs: int, requests: int, least: int, most: int) -> None:
    assert least <= steps(specs, requests) <= most


@pytest.mark.parametrize(("requests", "instances", "least"), [(30, 10, 29), (60, 2, 15), (60, 1, 1)])
def test_steps_have_few_requests_for_several_instances(requests: int, instances: int, least: int) -> None:
    assert least <= steps(1, requests, instances) <= requests + 1


def test_parts_have_few_requests_for_several_instances() -> None:
    spec = msgspec.Raw(msgspec.msgpack.encode({"flavor": {"name": "f", "vcpus": 1, "memory_mb": 64}}))
    several = [Asked(spec=spec, instance_uuids=tuple(map(uuid_of, range(100)))) for _ in range(4)]
    one = [Asked(spec=spec) for _ in range(600)]
    parts = list(parts_of(PlaceMany(requests=(*one, *several, *one[:10]))))
    assert [len(part.requests) for part in parts] == [512, 88, 1, 1, 1, 1, 10]
    assert [each for part in parts for each in part.requests] == [*one, *several, *one[:10]]
