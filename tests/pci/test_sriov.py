"""A physical function and the virtual functions of its card are never both given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostler import Engine, Flavor, Fleet, Host, PciPool, PciRequest, Policy, Request, RequestSpec, add_hosts
from hostler.placement.devices.pci import give_back, supports, take, taken
from hostler.placement.devices.sriov import available, linked
from hostler.placement.load.reports import report_hosts
from hostler.placement.types.host_report import HostReport

PCI = '[filter_scheduler]\nenabled_filters = ["ComputeFilter", "PciPassthroughFilter"]\n'
PF = {"vendor_id": "8086", "product_id": "1528", "dev_type": "type-PF"}
VF = {"vendor_id": "8086", "product_id": "1515", "dev_type": "type-VF"}


def pool(kind: dict[str, str], count: int, card: str | None = None, numa_node: int | None = 0, **tags: str) -> PciPool:
    return PciPool(count=count, numa_node=numa_node, tags={**kind, **tags}, card=card)


def wants(kind: dict[str, str], count: int = 1) -> tuple[PciRequest, ...]:
    return (PciRequest(count=count, spec=(kind,)),)


def engine_with(*pools: PciPool) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, [Host(host="a", vcpus_total=64, total_usable_ram_mb=65_536, pci_pools=pools)])
    return Engine(fleet, Policy.from_toml(PCI))


def places(engine: Engine, number: int, kind: dict[str, str], count: int = 1) -> bool:
    spec = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=64), pci_requests=wants(kind, count), prepare=False)
    uuid = f"00000000-0000-4000-8000-{number:012}"
    return engine.place(Request(spec=spec, instance_uuids=(uuid,))).placed


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def test_a_taken_physical_function_makes_its_virtual_ones_unavailable_until_it_is_given_back() -> None:
    engine = engine_with(pool(PF, 1), pool(VF, 2, parent_ifname="ens1"))
    assert places(engine, 1, PF)
    assert not places(engine, 2, VF)
    assert engine.fleet.pci_pools(0) == ()
    engine.release([uuid(1)])
    assert places(engine, 2, VF, 2)
    engine.fleet.check()


def test_a_taken_virtual_function_makes_its_physical_one_unavailable_until_all_are_given_back() -> None:
    engine = engine_with(pool(PF, 1), pool(VF, 2, parent_ifname="ens1"))
    assert places(engine, 1, VF)
    assert places(engine, 2, VF)
    assert not places(engine, 3, PF)
    engine.release([uuid(1)])
    assert not places(engine, 3, PF)
    engine.release([uuid(2)])
    assert places(engine, 3, PF)
    engine.fleet.check()


def test_a_vdpa_device_is_a_virtual_function() -> None:
    engine = engine_with(pool(PF, 1), pool({**VF, "dev_type": "vdpa"}, 2))
    assert places(engine, 1, {**VF, "dev_type": "vdpa"})
    assert not places(engine, 2, PF)


def test_another_card_is_left_alone() -> None:
    engine = engine_with(
        pool(PF, 2), pool(VF, 2, parent_ifname="ens1"), pool(VF, 2, parent_ifname="ens2"), pool(VF, 4, numa_node=1)
    )
    assert places(engine, 1, PF)
    assert places(engine, 2, VF, 6)
    assert not places(engine, 3, VF)
    assert not places(engine, 3, PF)


def test_cards_that_are_named_belong_together_wherever_they_are() -> None:
    engine = engine_with(
        pool(PF, 1, "x", port="left"), pool(PF, 1, "y", port="right"), pool(VF, 2, "y", numa_node=1), pool(VF, 2, "x")
    )
    assert places(engine, 1, {**PF, "port": "left"})
    assert places(engine, 2, VF, 2)
    assert not places(engine, 3, VF)
    assert not places(engine, 3, {**PF, "port": "right"})


def test_functions_of_different_physical_networks_are_of_different_cards() -> None:
    engine = engine_with(pool(PF, 1, physical_network="red"), pool(VF, 2, physical_network="blue"))
    assert places(engine, 1, PF)
    assert places(engine, 2, VF, 2)


def test_one_guest_does_not_get_both() -> None:
    pools = linked((pool(PF, 1), pool(VF, 2)))
    assert not supports(pools, wants(PF) + wants(VF))
    assert supports(linked((pool(PF, 2), pool(VF, 2, parent_ifname="a"))), wants(PF, 2))


def test_a_claim_on_top_of_a_report_counts_for_its_whole_card() -> None:
    engine = engine_with(pool(PF, 1), pool(VF, 2))
    assert places(engine, 1, PF)
    host = Host(host="a", vcpus_total=64, total_usable_ram_mb=65_536, pci_pools=(pool(PF, 1), pool(VF, 2)))
    report_hosts(engine.fleet, [HostReport(host=host, at=1.0, includes=frozenset())])
    assert not places(engine, 2, VF)
    gone = Host(host="a", vcpus_total=64, total_usable_ram_mb=65_536, pci_pools=())
    report_hosts(engine.fleet, [HostReport(host=gone, at=2.0, includes=frozenset({uuid(1)}))])
    assert engine.fleet.pci_pools(0) == ()
    engine.fleet.check()


def test_a_total_says_what_of_a_card_is_in_use_already() -> None:
    used = PciPool(count=1, numa_node=0, tags=VF, total=2)
    assert available((pool(PF, 1), used)) == (pool(PF, 1), PciPool(count=1, numa_node=0, tags=VF))
    assert [each.tags["dev_type"] for each in available(linked((pool(PF, 1), used)))] == ["type-VF"]


@given(
    cards=st.integers(1, 4),
    functions=st.integers(1, 3),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(1, 2)), max_size=25),
)
def test_there_is_always_a_card_for_each_function_that_was_given(
    cards: int, functions: int, steps: list[tuple[bool, int, int]]
) -> None:
    first = pools = linked((pool(PF, cards), *(pool(VF, functions, parent_ifname=f"p{n}") for n in range(cards))))
    held: list[tuple[PciPool, ...]] = []
    for physical, which, count in steps:
        kind = PF if physical else VF
        if which % 3 == 0 and held:
            pools = give_back(pools, held.pop(which % len(held)))
        elif supports(pools, wants(kind, count)):
            devices = taken(pools, wants(kind, count))
            pools = take(pools, devices)
            held.append(devices)
        assert available(available(pools)) == available(pools)
        out = [device for devices in held for device in devices]
        whole = sum(device.count for device in out if device.tags["dev_type"] == "type-PF")
        parts = {device.tags["parent_ifname"] for device in out if device.tags["dev_type"] == "type-VF"}
        assert whole + len(parts) <= cards
    for devices in held:
        pools = give_back(pools, devices)
    assert sorted(pools, key=str) == sorted(first, key=str)
