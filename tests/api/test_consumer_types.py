"""Consumers that came by the Placement API know what they are: a migration or a volume is no instance of its host."""

from __future__ import annotations

import pytest

from hostler import Engine, Flavor, Fleet, Host, Request, RequestSpec, add_hosts
from hostler.placement.api import commands as c
from hostler.placement.api.placement_model import PlacementModel

UUID = "00000000-0000-4000-8000-000000000001"
ZERO = "00000000-0000-0000-0000-000000000000"


def fleet() -> Fleet:
    made = Fleet()
    add_hosts(made, [Host(host="a", vcpus_total=8, total_usable_ram_mb=8192)])
    return made


@pytest.mark.parametrize(
    ("consumer_type", "instances", "free_ram_mb"),
    [("INSTANCE", 1, 7168), (None, 1, 7168), ("MIGRATION", 0, 7168), ("VOLUME", 0, 8192)],
)
def test_a_consumer_counts_as_what_it_is(consumer_type: str | None, instances: int, free_ram_mb: int) -> None:
    f = fleet()
    held = {f.uuid(0): {"VCPU": 1, "MEMORY_MB": 1024}}
    consumer = c.ConsumerAllocations(allocations=held, project_id="p", user_id="u", consumer_type=consumer_type)
    PlacementModel(f).apply(c.SetAllocations(consumers={UUID: consumer}, now=1.0))
    assert len(f.instances(0)) == instances
    assert f.column("num_instances")[0] == instances
    assert f.column("free_ram_mb")[0] == free_ram_mb
    assert f.inventory("a")["MEMORY_MB"][1] == 1024
    f.check()
    PlacementModel(f).apply(c.DeleteAllocations(consumer=UUID, now=2.0))
    assert f.column("free_ram_mb")[0] == 8192
    f.check()


def test_a_guest_without_a_project_is_shown_with_the_incomplete_one() -> None:
    f = fleet()
    Engine(f).place(Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1)), instance_uuids=(UUID,)))
    shown = PlacementModel(f).allocations(UUID)
    assert shown is not None
    assert (shown.project_id, shown.user_id) == (ZERO, ZERO)
