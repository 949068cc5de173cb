"""Rules whose keys read nothing but the spec say so: requests that share one are then decided together, alike."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import pytest

from hostler import Engine, Filter, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.types.guarded import unguarded
from hostler.placement.types.host import HostState

UUID = "6e7f0000-0000-4000-8000-{:012x}"


class Thick(Filter):
    """Hosts of at least twice the vCPUs that the flavor asks for."""

    name: ClassVar[str] = "Thick"
    spec_only: ClassVar[bool] = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"vcpus_total"})

    def key(self, request: Request) -> Hashable:
        return request.flavor.vcpus

    def host_passes(self, host: HostState, request: Request) -> bool:
        return host.vcpus_total >= 2 * request.flavor.vcpus


class Careful(Thick):
    """The same rule, not said to read the spec alone."""

    spec_only: ClassVar[bool] = False


class Owned(Thick):
    """Also the project's: what it reads besides the spec is in its own key."""

    def key(self, request: Request) -> Hashable:
        return request.flavor.vcpus, request.project_id

    def host_passes(self, host: HostState, request: Request) -> bool:
        return host.vcpus_total >= (8 if request.project_id == "big" else 2) * request.flavor.vcpus


def engine(rule: type[Filter]) -> Engine:
    fleet = Fleet()
    add_hosts(
        fleet,
        [
            Host(host=f"n{n}", vcpus_total=4 * n, total_usable_ram_mb=65_536, cpu_allocation_ratio=1.0)
            for n in range(1, 7)
        ],
    )
    return Engine(fleet, Policy.from_mapping({}, filters=(rule,)))


def asked() -> list[Request]:
    specs = [RequestSpec(flavor=Flavor(name=f"f{n}", vcpus=n, memory_mb=1_024)) for n in (1, 2, 3)]
    projects = ("small", "big")
    return [
        Request(spec=specs[n % 3], instance_uuids=(UUID.format(n),), project_id=projects[n // 3 % 2], now=float(n))
        for n in range(60)
    ]


@pytest.mark.parametrize("rule", [Thick, Careful, Owned])
def test_a_batch_is_decided_as_one_by_one(rule: type[Filter]) -> None:
    single, batch = engine(rule), engine(rule)
    one_by_one = [single.place(request) for request in asked()]
    together = batch.place_many(asked())
    hosts = [decision.host if decision.placed else None for decision in one_by_one]
    assert [decision.host if decision.placed else None for decision in together] == hosts
    assert None in hosts


def test_only_a_rule_that_says_so_itself_is_taken_to_read_the_spec_alone() -> None:
    assert engine(Thick)._context.compiled.custom == []
    assert [unguarded(type(rule)) for rule in engine(Careful)._context.compiled.custom] == [Careful]
    assert [unguarded(type(rule)) for rule in engine(Owned)._context.compiled.custom] == [Owned]
