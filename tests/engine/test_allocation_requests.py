"""Selections and alternates say what conductors and computes need: the allocation request, its mappings and limits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hostler import (
    Decision,
    Engine,
    Flavor,
    Fleet,
    Host,
    Inventory,
    NumaLimits,
    PciPool,
    PciRequest,
    Policy,
    Request,
    RequestSpec,
    add_hosts,
)
from hostler.placement.types.host import MemoryPages, NumaCell, NumaTopology
from hostler.placement.types.request import RequestGroup as Asked

GPU = PciPool(count=1, tags={"vendor_id": "10de", "product_id": "1"})
OUTSIDE = "00000000-0000-4000-8000-00000000dddd"


def cells(cpus: int = 8) -> NumaTopology:
    pages = (MemoryPages(size_kb=4, total=16_777_216),)
    return NumaTopology(cells=(NumaCell(id=0, cpuset=frozenset(range(cpus)), memory=65_536, mempages=pages),))


def fleet(**fields: Any) -> Fleet:
    made = Fleet()
    add_hosts(made, [Host(host=name, vcpus_total=8, total_usable_ram_mb=65_536, **fields) for name in "abc"])
    return made


def request(alternates: int = 0, **spec: Any) -> Request:
    specs = spec.pop("extra_specs", {})
    flavor = Flavor(name="f", vcpus=1, memory_mb=64, root_gb=spec.pop("root_gb", 0), extra_specs=specs)
    return Request(spec=RequestSpec(flavor=flavor, prepare=False, **spec), alternates=alternates)


def policy(*filters: str, more: str = "") -> Policy:
    return Policy.from_toml(f"[filter_scheduler]\nenabled_filters = {list(filters)}\n{more}")


def test_selection_and_alternates_carry_what_placement_would_have_said() -> None:
    f = fleet()
    decision = Engine(f).place(request(alternates=2))
    assert len(decision.selected.alternates) == 2
    for place in (decision.selected, *decision.selected.alternates):
        assert place.allocation_request == {
            "allocations": {place.provider_uuid: {"resources": {"VCPU": 1, "MEMORY_MB": 64}}},
            "mappings": {"": [place.provider_uuid]},
        }
        assert place.availability_zone == "nova"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(decision), type=Decision) == decision


def test_each_request_group_is_mapped_to_its_provider() -> None:
    f = fleet()
    f.add_provider("card", parent="b")
    f.set_inventory("card", {"CUSTOM_NIC": Inventory(total=2)})
    port = "7ac0bb22-7a38-4d8d-ba0d-58d9f4a0a1a2"
    group = Asked(resources={"CUSTOM_NIC": 1}, requester_id=port)
    chosen = Engine(f).place(request(requested_resources=(group,))).selected
    assert chosen.mappings == {"": (chosen.provider_uuid,), port: (f.uuid(f.row("card")),)}
    assert chosen.allocation_request["mappings"][port] == [f.uuid(f.row("card"))]


def test_guests_with_numa_cells_carry_the_hosts_ratios() -> None:
    f = fleet(numa_topology=cells(), cpu_allocation_ratio=2.0)
    engine = Engine(f, policy("NUMATopologyFilter"))
    wanted = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=64, extra_specs={"hw:numa_nodes": "1"}))
    chosen = engine.place(Request(spec=wanted, alternates=1)).selected
    assert chosen.limits == NumaLimits(cpu_allocation_ratio=2.0, ram_allocation_ratio=1.0)
    assert chosen.alternates[0].limits == chosen.limits
    assert engine.place(request()).selected.limits is None


def supplied(f: Fleet, host: str, **mappings: list[str]) -> dict[str, Any]:
    own = f.uuid(f.row(host))
    return {
        "allocations": {own: {"resources": {"VCPU": 1, "MEMORY_MB": 64}}, OUTSIDE: {"resources": {"DISK_GB": 10}}},
        "mappings": {"": [own, OUTSIDE], **mappings},
    }


def test_what_a_supplied_candidate_says_is_what_is_claimed_and_charged() -> None:
    f = fleet()
    claimed: list[Any] = []

    def claim(uuid: str, provider: str, allocations: Any) -> bool:
        claimed.append(allocations)
        return True

    b = f.uuid(f.row("b"))
    candidates = {b: [supplied(f, "b")], OUTSIDE: []}
    decision = Engine(f).place(request(root_gb=10), candidates=candidates, claim=claim)
    said = {b: {"VCPU": 1, "MEMORY_MB": 64}, OUTSIDE: {"DISK_GB": 10}}
    assert claimed == [said]
    assert decision.selected.allocations == said
    assert decision.selected.allocation_request["mappings"] == {"": [b, OUTSIDE]}
    assert dict(f.consumer(decision.selected.instance_uuid).resources) == said[b]
    f.check()


def test_of_supplied_candidates_the_first_whose_devices_fit_is_chosen() -> None:
    near = (
        PciPool(count=1, tags={**GPU.tags, "rp_uuid": "one"}),
        PciPool(count=1, tags={**GPU.tags, "rp_uuid": "two"}),
    )
    f = fleet(pci_pools=near)
    devices = (PciRequest(count=1, spec=({"vendor_id": "10de"},), request_id="r"),)
    a = f.uuid(f.row("a"))
    missing, fits = supplied(f, "a", **{"r-0": ["three"]}), supplied(f, "a", **{"r-0": ["two"]})
    engine = Engine(f, policy("PciPassthroughFilter"))
    chosen = engine.place(request(pci_requests=devices), candidates={a: [missing, fits]}).selected
    assert chosen.mappings["r-0"] == ("two",)
    assert [pool.tags["rp_uuid"] for pool in f.pci_pools(f.row("a"))] == ["one"]
    refused = engine.place(request(pci_requests=devices), candidates={a: [missing], f.uuid(f.row("b")): []})
    assert refused.removed["PciPassthroughFilter"] == 2
    f.check()


@pytest.mark.parametrize("kept", [True, False])
def test_each_of_several_instances_takes_a_supplied_candidate_of_its_own(kept: bool) -> None:
    """Nova 34 judges candidates again for each instance (its functional PCIServersTest.test_multi_create)."""
    names = ("one", "two", "three")
    f = fleet(pci_pools=tuple(PciPool(count=1, tags={**GPU.tags, "rp_uuid": name}) for name in names))
    devices = (PciRequest(count=1, spec=({"vendor_id": "10de"},), request_id="r"),)
    given = {f.uuid(f.row("a")): [supplied(f, "a", **{"r-0": [name]}) for name in names]}
    engine = Engine(f, policy("PciPassthroughFilter"))
    for count in (4, 3):
        uuids = tuple(f"00000000-0000-4000-8000-0000000001{number:02}" for number in range(count))
        asked = request(pci_requests=devices).with_changes(instance_uuids=uuids)
        decision = (engine.place if kept else engine.choose)(asked, candidates=given)
        assert decision.placed == (count == 3)
    assert [each.mappings["r-0"] for each in decision.selections] == [(name,) for name in names]
    assert len(f.pci_pools(f.row("a"))) == (0 if kept else 3)
    f.check()


def test_with_pci_in_placement_the_device_is_taken_of_the_provider_that_was_allocated() -> None:
    f = Fleet()
    cards = {name: f"00000000-0000-4000-8000-00000000000{number}" for number, name in enumerate(("one", "two"))}
    pools = tuple(
        PciPool(count=1, tags={**GPU.tags, "rp_uuid": uuid, "physical_network": name}) for name, uuid in cards.items()
    )
    add_hosts(f, [Host(host="a", vcpus_total=8, total_usable_ram_mb=65_536, pci_pools=pools)])
    for name, uuid in cards.items():
        f.add_provider(name, uuid=uuid, parent="a")
        f.set_inventory(name, {"CUSTOM_PCI": Inventory(total=1)})
    engine = Engine(f, policy("PciPassthroughFilter", more="pci_in_placement = true\n"))
    devices = (PciRequest(count=1, spec=({"vendor_id": "10de", "physical_network": "two"},), request_id="r"),)
    group = Asked(resources={"CUSTOM_PCI": 1}, requester_id="r-0")
    chosen = engine.place(request(pci_requests=devices, requested_resources=(group,))).selected
    assert chosen.mappings["r-0"] == (cards["two"],)
    assert [pool.tags["physical_network"] for pool in f.pci_pools(0)] == ["one"]
    f.check()
