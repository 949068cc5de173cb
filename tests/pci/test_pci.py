"""Which pools serve a PCI request, in what order devices are drawn, and giving them back."""

from __future__ import annotations

from typing import Any

import pytest

from hostler.placement.devices import pci
from hostler.placement.types.errors import CapacityExceeded
from hostler.placement.types.host import PciPool

from .values import pool, sockets, wish

NIC: dict[str, Any] = {"vendor_id": "8086", "product_id": "1572"}


# attributes


@pytest.mark.parametrize(
    ("spec", "serves"),
    [
        ({}, True),
        ({"vendor_id": "8086"}, True),
        ({"vendor_id": "15b3"}, False),
        ({"physical_network": "Physnet1"}, True),
        ({"missing": "x"}, False),
        ({"resource_class": "x", "traits": "y"}, True),
        ({"caps": ["tx"]}, True),
        ({"caps": ["tx", "gso"]}, False),
        ({"numa_node": 1}, True),
        ({"numa_node": "1"}, False),
    ],
    ids=str,
)
def test_a_pool_serves_a_wish_that_it_equals_in_every_attribute(spec: dict[str, Any], serves: bool) -> None:
    pools = [pool(1, 1, vendor_id="8086", physical_network="PHYSNET1", caps=["rx", "tx"])]
    assert pci.supports(pools, [wish(1, spec)]) is serves


def test_any_of_several_specs_will_do() -> None:
    assert pci.supports([pool(**NIC)], [wish(1, {"vendor_id": "15b3"}, {"vendor_id": "8086"})])


def test_devices_of_several_pools_add_up() -> None:
    pools = [pool(1, 0, vendor_id="8086"), pool(2, 1, vendor_id="8086")]
    assert pci.supports(pools, [wish(3, {"vendor_id": "8086"})])
    assert not pci.supports(pools, [wish(4, {"vendor_id": "8086"})])


def test_wishes_are_served_one_after_the_other() -> None:
    pools = [pool(1, **NIC), pool(1, vendor_id="8086", product_id="b")]
    any_8086, only_b = wish(1, {"vendor_id": "8086"}), wish(1, {"product_id": "b"})
    assert pci.supports(pools, [any_8086, only_b])
    assert not pci.supports(pools, [any_8086, any_8086, only_b])
    assert not pci.supports(list(reversed(pools)), [any_8086, only_b])


def test_a_host_without_pools_serves_nothing_but_no_wishes() -> None:
    assert pci.supports([], [])
    assert not pci.supports([], [wish()])


# NUMA policies


@pytest.mark.parametrize(
    ("policy", "on_cell_0"),
    [("required", {0}), (None, {0, None}), ("legacy", {0, None}), ("socket", {0, 1}), ("preferred", {0, 1, 2, None})],
)
def test_a_policy_says_which_nodes_a_guest_on_cell_0_may_draw_from(policy: str | None, on_cell_0: set[Any]) -> None:
    host = sockets(0, 0, 1)
    nodes = {
        node for node in (0, 1, 2, None) if pci.supports([pool(1, node)], [wish(policy=policy)], [0], topology=host)
    }
    assert nodes == on_cell_0


@pytest.mark.parametrize("policy", [None, "required", "socket", "legacy", "preferred"])
def test_without_cells_numa_does_not_matter(policy: str | None) -> None:
    assert pci.supports([pool(1, 3)], [wish(policy=policy)])
    assert pci.supports([pool(1, 3)], [wish(policy=policy)], [])


def test_the_socket_policy_needs_every_cell_s_socket() -> None:
    assert not pci.supports([pool(1, 1)], [wish(policy="socket")], [0], topology=sockets(0, 0, None))
    assert pci.supports([pool(1, 0)], [wish(policy="socket")], [0], topology=sockets(0, 0, None))


def test_near_devices_come_first_if_there_are_enough() -> None:
    pools = [pool(2, None, name="far"), pool(2, 0, name="near")]
    assert pci.consume(pools, [wish(2)], [0]) == (pools[0],)
    assert pci.consume(pools, [wish(3)], [0]) == (pool(1, 0, name="near"),)


def test_preferred_devices_come_first_even_if_there_are_too_few() -> None:
    pools = [pool(2, 1, name="far"), pool(1, 0, name="near"), pool(1, None, name="nowhere")]
    assert pci.consume(pools, [wish(3, policy="preferred")], [0]) == (pool(1, 1, name="far"),)


# devices that must be asked for


@pytest.mark.parametrize("dev_type", ["type-PF", "vdpa"])
def test_physical_functions_and_vdpa_devices_must_be_asked_for(dev_type: str) -> None:
    pools = [pool(dev_type=dev_type, vendor_id="8086")]
    assert not pci.supports(pools, [wish(1, {"vendor_id": "8086"})])
    assert pci.supports(pools, [wish(1, {"vendor_id": "8086", "dev_type": dev_type})])


def test_near_physical_functions_hide_devices_without_a_node_from_the_legacy_policy() -> None:
    """Nova looks at the node before it leaves physical functions out, and so do we."""
    pools = [pool(1, 0, dev_type="type-PF"), pool(1, None, dev_type="type-PCI")]
    assert not pci.supports(pools, [wish()], [0])


@pytest.mark.parametrize("managed", ["true", "True", "1", "yes"])
def test_remotely_managed_devices_must_be_asked_for(managed: str) -> None:
    pools = [pool(remote_managed=managed)]
    assert not pci.supports(pools, [wish()])
    assert pci.supports(pools, [wish(1, {"remote_managed": managed})])
    assert pci.supports([pool(remote_managed="false")], [wish()])


@pytest.mark.parametrize(("asked", "pools"), [("true", {"true"}), ("false", {"false"})])
def test_live_migration_may_be_asked_for_or_against(asked: str, pools: set[str]) -> None:
    found = {
        tag
        for tag in ("true", "false")
        if pci.supports([pool(live_migratable=tag)], [wish(1, {"live_migratable": asked})])
    }
    assert found == pools
    assert not pci.supports([pool()], [wish(1, {"live_migratable": asked})])


# providers


def test_devices_in_placement_come_from_the_providers_that_were_allocated() -> None:
    pools = [pool(2, rp_uuid="a"), pool(2, rp_uuid="b"), pool(2)]
    asked = wish(2, request_id="r")
    left = pci.consume(pools, [asked], mappings={"r-0": ["b"], "r-1": ["b"], "": ["root"]})
    assert left == (pool(2), pool(2, rp_uuid="a"))
    assert not pci.supports(pools, [asked], mappings={"r-0": ["c"], "r-1": ["c"]})
    assert not pci.supports(pools, [wish(3, request_id="r")], mappings={f"r-{index}": ["a"] for index in range(3)})


def test_without_mappings_the_spec_may_name_the_providers() -> None:
    pools = [pool(1, rp_uuid="a"), pool(1, rp_uuid="b")]
    assert pci.consume(pools, [wish(1, {"rp_uuids": "b"})]) == (pool(1, rp_uuid="a"),)
    assert pci.supports(pools, [wish(2, {"rp_uuids": "a,b"})])


def test_a_provider_with_two_pools_cannot_be_served() -> None:
    pools = [pool(1, 0, rp_uuid="a"), pool(1, 1, rp_uuid="a")]
    assert not pci.supports(pools, [wish(1, {"rp_uuids": "a"})])


def test_mappings_of_other_wishes_bind_nothing() -> None:
    assert pci.supports([pool()], [wish(request_id="r")], mappings={"": ["root"], "other-0": ["x"]})
    assert pci.supports([pool()], [wish()], mappings={"": ["root"]})


# consuming and giving back


def test_pools_with_fewest_attributes_are_drawn_from_first() -> None:
    plain, tagged = pool(1, vendor_id="8086"), pool(1, vendor_id="8086", address="0000:05:00.0")
    assert pci.consume([tagged, plain], [wish(1, {"vendor_id": "8086"})]) == (tagged,)


def test_an_empty_pool_vanishes_and_the_rest_keeps_its_order() -> None:
    pools = [pool(1, 0, name="a"), pool(3, 0, name="b"), pool(1, 0, name="c")]
    assert pci.consume(pools, [wish(2)]) == (pool(2, 0, name="b"), pools[2])


def test_what_is_taken_is_told_and_can_be_taken_and_given_back() -> None:
    pools = (pool(1, 0, name="a"), pool(3, 1, name="b"))
    devices = pci.taken(pools, [wish(2), wish(1)])
    assert devices == (pool(1, 0, name="a"), pool(1, 1, name="b"), pool(1, 1, name="b"))
    left = pci.take(pools, devices)
    assert left == pci.consume(pools, [wish(2), wish(1)])
    assert pci.give_back(left, devices) == (pool(3, 1, name="b"), pool(1, 0, name="a"))


def test_a_pool_that_vanished_comes_back_after_those_with_as_many_attributes() -> None:
    pools = (pool(1, name="a"), pool(1, name="b"), pool(1, name="c", more="x"))
    left = pci.take(pools, [pool(1, name="a")])
    assert pci.give_back(left, [pool(1, name="a")]) == (pools[1], pools[0], pools[2])


def test_more_than_there_is_can_neither_be_consumed_nor_taken() -> None:
    with pytest.raises(CapacityExceeded, match="2 PCI devices are requested, only 1 match its attributes"):
        pci.consume([pool(1)], [wish(2)])
    with pytest.raises(CapacityExceeded, match="1 of 2 PCI devices"):
        pci.take([pool(1, name="a")], [pool(2, name="a")])


def test_devices_are_counted_by_node() -> None:
    pools: list[PciPool] = [pool(1, 0), pool(2, 0, name="x"), pool(4)]
    assert pci.free_by_node(pools) == {0: 3, None: 4}


# words and keys


@pytest.mark.parametrize(
    ("pools", "reason"),
    [
        ([], "0 match its attributes"),
        ([pool(1, 1, **NIC), pool(1, 0, **NIC)], "1 are on a NUMA node that its policy allows"),
        ([pool(9, 0, **NIC, dev_type="type-PF")], "0 are not physical functions"),
        ([pool(9, 0, **NIC, remote_managed="true")], "0 are not managed remotely"),
    ],
    ids=["attributes", "node", "physical function", "remote"],
)
def test_the_step_that_left_too_few_devices_is_told(pools: list[PciPool], reason: str) -> None:
    asked = wish(2, NIC, policy="required")
    told = pci.explain(pools, [asked], [0])
    assert told == f"needs 2 PCI devices product_id 1572, vendor_id 8086, but only {reason}"


def test_an_alias_is_called_by_its_name() -> None:
    assert pci.explain([], [wish(1, NIC, alias_name="nic")]).startswith("needs 1 PCI devices nic, but only 0")
    assert pci.explain([pool()], [wish()]) == "the PCI devices are there"


def test_keys_are_equal_for_equal_wishes() -> None:
    assert pci.key([wish(1, dict(NIC))]) == pci.key([wish(1, dict(reversed(NIC.items())), alias_name="other name")])
    assert hash(pci.key([wish(1, {"caps": ["a"]})]))
    for other in (wish(2, NIC), wish(1, {}), wish(1, NIC, policy="socket"), wish(1, NIC, request_id="r")):
        assert pci.key([other]) != pci.key([wish(1, NIC)])
