"""What a refusal says follows every change, whatever is kept of the refusals before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler import Engine, Flavor, Fleet, Host, Inventory, Policy, Request, RequestSpec, Service, add_hosts
from hostler.placement.filters.base import Filter

pytestmark = [pytest.mark.property, pytest.mark.kernel_twin]

HOSTS = 320
"""More than one block of rows."""
OPTIONS: dict[str, dict[str, Any]] = {
    "filter_scheduler": {"enabled_filters": ["ComputeFilter", "IoOpsFilter", "NoPairs"], "max_io_ops_per_host": 1}
}
SPECS = [
    RequestSpec(flavor=Flavor(name="large", vcpus=4, memory_mb=2_048)),
    RequestSpec(flavor=Flavor(name="huge", vcpus=64, memory_mb=64)),
    RequestSpec(flavor=Flavor(name="trait", vcpus=1, memory_mb=64, extra_specs={"trait:CUSTOM_A": "required"})),
]
changes = st.one_of(
    st.tuples(st.just("place"), st.integers(1, 4)),
    st.tuples(st.just("release"), st.integers(0, 5)),
    st.tuples(st.just("disable"), st.integers(0, HOSTS - 1)),
    st.tuples(st.just("enable"), st.integers(0, HOSTS - 1)),
    st.tuples(st.just("down"), st.integers(0, HOSTS - 1)),
    st.tuples(st.just("seen"), st.integers(0, HOSTS - 1)),
    st.tuples(st.just("later"), st.sampled_from([0, 1, 30, 61])),
    st.tuples(st.just("total"), st.integers(0, HOSTS - 1)),
    st.tuples(st.just("trait"), st.integers(0, HOSTS - 1)),
    st.tuples(st.just("add"), st.just(0)),
    st.tuples(st.just("trial"), st.integers(1, 4)),
)


class NoPairs(Filter):
    """Refuses hosts of two guests, row by row."""

    name = "NoPairs"
    spec_only = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"num_instances"})

    def key(self, request: Request) -> None:
        return None

    def host_passes(self, host: Any, request: Request) -> bool:
        return bool(host.num_instances != 2)


def host(number: int) -> Host:
    return Host(
        host=f"h{number}",
        vcpus_total=4,
        cpu_allocation_ratio=1.0,
        total_usable_ram_mb=1_024 * (1 + number % 3),
        total_usable_disk_gb=100,
        service=Service(disabled=number % 7 == 0, last_seen_up=float(1_000 + number % 50)),
    )


class World:
    """An engine that is asked again and again."""

    def __init__(self) -> None:
        fleet = Fleet()
        add_hosts(fleet, [host(number) for number in range(HOSTS)])
        self.engine = Engine(fleet, Policy.from_mapping(OPTIONS, filters=[NoPairs]))
        self.now, self.guests, self.hosts = 1_050.0, list[str](), HOSTS

    def ask(self, spec: RequestSpec) -> Request:
        return Request(spec=spec, now=self.now)

    def place(self, engine: Engine, vcpus: int) -> list[str]:
        flavor = Flavor(name=f"f{vcpus}", vcpus=vcpus, memory_mb=500)
        return [each.instance_uuid for each in engine.place(self.ask(RequestSpec(flavor=flavor))).selections]

    def change(self, kind: str, number: int) -> None:
        fleet, name = self.engine.fleet, f"h{number}"
        if kind == "place":
            self.guests += self.place(self.engine, number)
        elif kind == "release":
            self.engine.release([self.guests.pop(number % len(self.guests))] if self.guests else [])
        elif kind == "disable":
            fleet.set_service(name, disabled=True)
        elif kind == "enable":
            fleet.set_service(name, disabled=False, forced_down=False)
        elif kind == "down":
            fleet.set_service(name, forced_down=True)
        elif kind == "seen":
            fleet.heartbeat(name, self.now + number % 8)
        elif kind == "later":
            self.now += number
        elif kind == "total":
            fleet.set_inventory(name, {"VCPU": Inventory(total=3 + number % 4, max_unit=3 + number % 5)})
        elif kind == "trait":
            fleet.set_traits(name, ["CUSTOM_A"])
        elif kind == "add":
            add_hosts(fleet, [host(self.hosts)])
            self.hosts += 1
        else:
            trial = self.engine.what_if()
            self.place(trial, number)
            trial.place(self.ask(SPECS[0]))


@settings(deadline=None, max_examples=12)
@given(st.lists(changes, min_size=1, max_size=10))
def test_what_a_refusal_says_follows_every_change(steps: list[tuple[str, int]]) -> None:
    world = World()
    for step in [("later", 0), *steps]:
        world.change(*step)
        for spec in SPECS:
            found = world.engine.what_if().place(world.ask(spec)).refusal
            new = Engine(world.engine.fleet, world.engine.policy)
            assert found == new.what_if().place(world.ask(spec)).refusal
