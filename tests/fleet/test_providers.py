"""Providers: names, uuids, trees, inventories, traits, aggregates; what is refused, and that it changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import os_traits
import pytest

from hostler.placement.fleet.fleet import Extras, Fleet, Inventory
from hostler.placement.load.bulk import add_hosts
from hostler.placement.types import validation as checks
from hostler.placement.types.errors import DuplicateName, HostlerError, InUse, InvalidValue, UnknownName
from hostler.placement.types.host import Aggregate

from .dump import dump
from .values import aggregate, host, uuid_of

SHARES = "MISC_SHARES_VIA_AGGREGATE"


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet(seed=1)
    add_hosts(fleet, [host(f"n{number}", 4) for number in range(3)])
    return fleet


def refused(fleet: Fleet, error: type[HostlerError], words: str, method: str, *arguments: Any, **named: Any) -> None:
    """The call raises such an error, names the field at fault, and changes nothing."""
    before = dump(fleet)
    with pytest.raises(error, match=words) as caught:
        getattr(fleet, method)(*arguments, **named)
    assert caught.value.field
    assert dump(fleet) == before
    fleet.check()


# names


def test_a_provider_is_found_by_its_name_and_its_uuid(fleet: Fleet) -> None:
    row = fleet.add_provider("pool", uuid=uuid_of(1).upper().replace("-", ""))
    assert fleet.row("pool") == fleet.row_of_uuid(uuid_of(1)) == row
    assert (fleet.name(row), fleet.uuid(row), len(fleet)) == ("pool", uuid_of(1), 4)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\n", "\x7f", None, 7, b"a"])
def test_a_name_is_1_to_200_printable_characters(fleet: Fleet, name: Any) -> None:
    refused(fleet, InvalidValue, "1 to 200 printable characters", "add_provider", name)
    assert fleet.add_provider("x" * 200) == 3


@pytest.mark.parametrize(
    ("error", "words", "named"),
    [
        (DuplicateName, "'n0' exists", {"name": "n0"}),
        (DuplicateName, "has the uuid", {"uuid": uuid_of(5)}),
        (InvalidValue, "must be a uuid", {"uuid": "5"}),
        (UnknownName, "no provider is named 'gone'", {"parent": "gone"}),
        (UnknownName, "CUSTOM_a", {"traits": ["CUSTOM_a"]}),
        (InvalidValue, "several strings", {"traits": "CUSTOM_A"}),
        (InvalidValue, "several strings", {"traits": 7}),
        (InvalidValue, "another name or metadata", {"aggregates": [aggregate(2), aggregate(1, 1)]}),
        (InvalidValue, "aggregate", {"aggregates": [aggregate(2), "x"]}),
    ],
)
def test_a_provider_that_cannot_be_is_refused(fleet: Fleet, error: Any, words: str, named: dict[str, Any]) -> None:
    fleet.add_provider("taken", uuid=uuid_of(5), aggregates=[aggregate(1)])
    refused(fleet, error, words, "add_provider", **{"name": "p", **named})


@pytest.mark.parametrize("method", ["remove_provider", "set_parent", "set_traits", "set_inventory", "set_aggregates"])
def test_what_is_done_to_no_provider_is_refused(fleet: Fleet, method: str) -> None:
    arguments: tuple[Any, ...] = () if method == "remove_provider" else (None,) if method == "set_parent" else ({},)
    for name in ("gone", None, 7):
        refused(fleet, UnknownName, "no provider is named", method, name, *arguments)


# going


def test_a_provider_with_consumers_usage_or_children_stays(fleet: Fleet) -> None:
    shape = fleet._shape({0: 1}, 1, 0, 0)
    fleet.add_provider("shared")
    fleet.set_inventory("shared", {"VGPU": Inventory(total=2)})
    fleet.add_provider("child", parent="n1")
    elsewhere = ((fleet.row("shared"), fleet.resource_class("VGPU"), 1),)
    fleet.claim(uuid_of(1), 0, shape, extras=Extras(elsewhere))
    for name, words in (("n0", "1 consumers"), ("shared", "has allocations"), ("n1", "1 child providers")):
        refused(fleet, InUse, words, "remove_provider", name)
    fleet._release_uuids([uuid_of(1)])
    for name in ("child", "n1", "shared", "n0"):
        fleet.remove_provider(name)
    assert len(fleet) == 1
    fleet.check()


def test_usage_that_a_host_reported_does_not_keep_it() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host("a", 4, vcpus_used=3)])
    fleet.remove_provider("a")
    assert len(fleet) == 0


def test_freed_rows_are_nobodys_children(fleet: Fleet) -> None:
    fleet.remove_provider("n2")
    fleet.remove_provider("n0")
    assert fleet.tree(1) == [1]
    fleet.remove_provider("n1")
    assert len(fleet) == 0
    fleet.check()


# trees


def test_a_tree_is_its_root_and_all_below_in_row_order(fleet: Fleet) -> None:
    for name, parent in (("cell1", "n1"), ("cell0", "n1"), ("device", "cell0")):
        fleet.add_provider(name, parent=parent)
    assert [fleet.name(row) for row in fleet.tree(1)] == ["n1", "cell1", "cell0", "device"]
    fleet.set_parent("cell0", "n2")
    assert [fleet.name(row) for row in fleet.tree(2)] == ["n2", "cell0", "device"]
    fleet.set_parent("cell0", None)
    assert [fleet.name(row) for row in fleet.tree(fleet.row("cell0"))] == ["cell0", "device"]
    fleet.check()


@pytest.mark.parametrize("parent", ["a", "b", "c"])
def test_a_provider_is_put_neither_below_itself_nor_below_what_is_below_it(fleet: Fleet, parent: str) -> None:
    for name, above in (("a", None), ("b", "a"), ("c", "b")):
        fleet.add_provider(name, parent=above)
    refused(fleet, InvalidValue, "a provider tree has no cycles", "set_parent", "a", parent)


def test_a_root_is_told_of_the_child_that_leaves_it(fleet: Fleet) -> None:
    fleet.add_provider("child", parent="n1")
    version = fleet.version
    fleet.set_parent("child", "n2")
    assert set(fleet._kernel.changed(version)) >= {1, 3}  # type: ignore[arg-type]
    fleet.set_parent("child", "n1")
    version = fleet.version
    fleet.remove_provider("child")
    assert set(fleet._kernel.changed(version)) >= {1, 3}  # type: ignore[arg-type]


def test_sharing_providers_are_those_with_the_trait(fleet: Fleet) -> None:
    row = fleet.add_provider("nfs", traits=[SHARES])
    assert fleet.sharing_providers() == [row]
    version = fleet.version
    fleet.set_traits("nfs", [])
    assert fleet.sharing_providers() == []
    assert fleet._kernel.changed(version) is None, "what has judged a tree must look again"


# traits and aggregates


def test_all_standard_traits_are_known_and_custom_ones_by_their_form(fleet: Fleet) -> None:
    traits = {*os_traits.get_traits(), "CUSTOM_A", "CUSTOM__A_1", "CUSTOM_" + "A" * 248}
    fleet.set_traits("n0", traits)
    assert fleet._host_class(0).traits == traits
    for trait in ("CUSTOM_", "CUSTOM_a", "custom_A", "HW_CPU", "CUSTOM_A\n", "CUSTOM_" + "A" * 249, "", None, 7):
        with pytest.raises(UnknownName):
            checks.check_trait(trait)


def test_a_trait_that_is_nearly_one_is_told(fleet: Fleet) -> None:
    with pytest.raises(UnknownName, match="HW_CPU_X86_AVX2"):
        fleet.set_traits("n0", ["HW_CPU_X86_AVX_2"])


def test_hosts_read_the_metadata_that_their_aggregates_have_now(fleet: Fleet) -> None:
    fleet.set_aggregates("n0", [aggregate(1), aggregate(2)])
    epoch = fleet._static_epoch
    fleet.update_aggregate(aggregate(2, 1))
    assert fleet._static_epoch > epoch
    assert fleet.aggregate(aggregate(2).uuid).metadata == {"availability_zone": "az1"}


@pytest.mark.parametrize(
    "value",
    [
        Aggregate(uuid="x", name="n"),
        Aggregate(uuid=7, name="n"),  # type: ignore[arg-type]
        Aggregate(uuid=uuid_of(1), name=None),  # type: ignore[arg-type]
        Aggregate(uuid=uuid_of(1), name="n", metadata={"a": 1}),  # type: ignore[dict-item]
        Aggregate(uuid=uuid_of(1), name="n", metadata=["a"]),  # type: ignore[arg-type]
        "aggregate",
    ],
)
def test_an_aggregate_that_cannot_be_is_refused(fleet: Fleet, value: Any) -> None:
    refused(fleet, InvalidValue, "aggregate", "set_aggregates", "n0", [aggregate(1), value])
    with pytest.raises(HostlerError):
        fleet.update_aggregate(value)


def test_an_aggregate_without_members_can_be_removed_and_made_again_otherwise(fleet: Fleet) -> None:
    fleet.set_aggregates("n0", [aggregate(1, 1), aggregate(2)])
    refused(fleet, InUse, "1 hosts or other providers", "remove_aggregate", aggregate(1).uuid)
    fleet.set_aggregates("n0", [aggregate(2)])
    epoch = fleet._static_epoch
    fleet.remove_aggregate(aggregate(1).uuid.upper())
    assert fleet._static_epoch > epoch
    refused(fleet, UnknownName, "no aggregate", "remove_aggregate", aggregate(1).uuid)
    fleet.set_aggregates("n1", [aggregate(1, 2)])
    assert fleet.aggregate(aggregate(1).uuid) == aggregate(1, 2)
    fleet.check()


@pytest.mark.parametrize("uuid", ["x", "", None, 7, uuid_of(9)])
def test_an_aggregate_that_is_not_there_is_not_removed(fleet: Fleet, uuid: Any) -> None:
    refused(fleet, UnknownName, "no aggregate", "remove_aggregate", uuid)


def test_an_aggregate_that_storage_stands_in_is_not_removed(fleet: Fleet) -> None:
    fleet.set_aggregates("n0", [aggregate(1)])
    fleet.set_aggregates("n0", [])
    fleet.pools.set_aggregates("storage-1", [aggregate(1).uuid])
    refused(fleet, InUse, "storage-1", "remove_aggregate", aggregate(1).uuid)
    fleet.pools.set_aggregates("storage-1", [])
    assert fleet.pools.aggregates == {}
    fleet.remove_aggregate(aggregate(1).uuid)
    fleet.check()


def test_other_versions_keep_an_aggregate_that_one_removes(fleet: Fleet) -> None:
    fleet.set_aggregates("n0", [aggregate(1)])
    trial = fleet.fork()
    trial.set_aggregates("n0", [])
    trial.remove_aggregate(aggregate(1).uuid)
    trial.set_aggregates("n0", [aggregate(3)])
    trial.check()
    assert fleet.aggregate(aggregate(1).uuid) == aggregate(1)
    fleet.check()
    with pytest.raises(UnknownName):
        trial.aggregate(aggregate(1).uuid)
    trial.check()


@pytest.mark.parametrize("given_back", [False, True])
def test_a_uuid_that_placement_no_longer_uses_may_get_a_name(fleet: Fleet, given_back: bool) -> None:
    bare = Aggregate(uuid=aggregate(1).uuid, name=aggregate(1).uuid)
    fleet.set_aggregates("n0", [bare])
    refused(fleet, InvalidValue, "another name", "set_aggregates", "n1", [aggregate(1)])
    fleet.set_aggregates("n0", [])
    if given_back:
        fleet._reclaim.all()
    fleet.set_aggregates("n1", [aggregate(1), aggregate(1)])
    assert fleet.aggregate(bare.uuid) == aggregate(1)
    fleet.check()


# inventories


def test_an_inventory_is_there_as_it_was_set(fleet: Fleet) -> None:
    inventories = {
        "VCPU": Inventory(total=8, reserved=1, min_unit=2, max_unit=6, step_size=2, allocation_ratio=1.5),
        "CUSTOM_FPGA": Inventory(total=3),
    }
    fleet.set_inventory("n0", inventories)
    assert fleet.inventory("n0") == {name: (value, 0) for name, value in inventories.items()}
    vcpu = fleet.resource_class("VCPU")
    assert [amount for amount in range(1, 12) if fleet._fits_row(0, {vcpu: amount})] == [2, 4, 6]
    assert not fleet._fits_row(0, {fleet.resource_class("MEMORY_MB"): 1})


def test_columns_are_copied_seldom_however_many_resource_classes_come(fleet: Fleet) -> None:
    """A copy for each new class makes a thousand of them take minutes on a large fleet."""
    store = fleet._store
    copies, last = 0, store.ratio.base
    inventories = {f"CUSTOM_CLASS_{number}": Inventory(total=number) for number in range(1, 501)}
    for name in inventories:
        index = fleet.resource_class(name, create=True)
        assert index + 1 == store.classes == len(store.ratio) == len(store.inventory["total"])
        copies, last = copies + (store.ratio.base is not last), store.ratio.base
    assert copies < 10
    fleet.set_inventory("n1", inventories)
    expected = {name: (value, 0) for name, value in inventories.items()}
    assert fleet.inventory("n1") == expected
    add_hosts(fleet, [host(f"m{number}", 4) for number in range(100)])  # more rows: all columns move
    assert fleet.inventory("n1") == expected
    assert not fleet.inventory("m1").keys() & expected
    fleet.check()


def test_an_inventory_may_be_set_below_what_is_used_but_not_removed() -> None:
    fleet = Fleet()
    add_hosts(fleet, [host("a", vcpus_used=0)])
    vcpu = fleet.resource_class("VCPU")
    fleet.claim(uuid_of(1), 0, fleet._shape({vcpu: 4}, 4, 0, 0))
    fleet.set_inventory("a", {"VCPU": Inventory(total=2), "MEMORY_MB": Inventory(total=10)})
    assert fleet.inventory("a")["VCPU"] == (Inventory(total=2), 4)
    assert not fleet._fits_row(0, {vcpu: 1})
    refused(fleet, InUse, "4 VCPU in use", "set_inventory", "a", {"MEMORY_MB": Inventory(total=10)})
    fleet._release_uuids([uuid_of(1)])
    assert fleet._fits_row(0, {vcpu: 2})
    fleet.set_inventory("a", {})
    assert fleet.inventory("a") == {}
    fleet.check()


@pytest.mark.parametrize(
    ("inventories", "error", "words"),
    [
        ({"CUSTOM_NEW": Inventory(total=1), "VCPU": Inventory(total=0)}, InvalidValue, "VCPU.total"),
        ({"VCPU": Inventory(total=2**31)}, InvalidValue, "VCPU.total"),
        ({"VCPU": Inventory(total=True)}, InvalidValue, "VCPU.total"),
        ({"VCPU": Inventory(total=1.0)}, InvalidValue, "VCPU.total"),  # type: ignore[arg-type]
        ({"VCPU": Inventory(total=1, reserved=-1)}, InvalidValue, "VCPU.reserved"),
        ({"VCPU": Inventory(total=1, min_unit=0)}, InvalidValue, "VCPU.min_unit"),
        ({"VCPU": Inventory(total=1, step_size=0)}, InvalidValue, "VCPU.step_size"),
        ({"VCPU": Inventory(total=1, allocation_ratio=-1)}, InvalidValue, "VCPU.allocation_ratio"),
        ({"VCPU": Inventory(total=1, allocation_ratio=float("nan"))}, InvalidValue, "VCPU.allocation_ratio"),
        ({"VCPU": Inventory(total=1, allocation_ratio=10**400)}, InvalidValue, "VCPU.allocation_ratio"),
        ({"CUSTOM_NEW": Inventory(total=1), "NO_CLASS": Inventory(total=1)}, UnknownName, "NO_CLASS"),
        ({"custom_x": Inventory(total=1)}, UnknownName, "custom_x"),
        ({7: Inventory(total=1)}, UnknownName, "7"),
        ({"VCPU": 5}, InvalidValue, "VCPU must be an Inventory"),
        ([("VCPU", Inventory(total=1))], InvalidValue, "mapping"),
        (None, InvalidValue, "mapping"),
    ],
)
def test_inventories_that_cannot_be_are_refused(fleet: Fleet, inventories: Any, error: Any, words: str) -> None:
    classes = list(fleet.resource_classes)
    refused(fleet, error, words, "set_inventory", "n0", inventories)
    assert fleet.resource_classes == classes


def test_a_total_beyond_what_doubles_tell_apart_is_no_overflow(fleet: Fleet) -> None:
    fleet.set_inventory("n0", {"VCPU": Inventory(total=2**31 - 1, allocation_ratio=3e38)})
    assert fleet._fits_row(0, {0: 2**31 - 1})
    fleet.check()


def test_signatures_are_made_anew_when_what_they_take_as_constant_changes_and_not_otherwise(fleet: Fleet) -> None:
    def moves(act: Any) -> bool:
        epoch = fleet._static_epoch
        act()
        return fleet._static_epoch > epoch

    fleet.add_provider("child", parent="n0")
    assert not moves(lambda: fleet.set_traits("n1", ["CUSTOM_A"]))
    assert not moves(lambda: fleet.set_service("n1", disabled=True))
    assert not moves(lambda: fleet.report("n1", num_io_ops=3))
    assert not moves(lambda: fleet.set_inventory("n1", {"VCPU": Inventory(total=9)}))
    assert moves(lambda: fleet.report("n1", failed_builds=3))
    assert moves(lambda: fleet.report("n1", failed_builds=4)), "rankings take the column as unchanging"
    assert moves(lambda: fleet.set_inventory("child", {"VGPU": Inventory(total=1)}))
    assert not moves(lambda: fleet.set_inventory("child", {"VGPU": Inventory(total=2)}))
    assert moves(lambda: fleet.set_inventory("child", {}))
    assert moves(lambda: fleet.set_inventory("n1", {"VCPU": Inventory(total=9, step_size=3)}))
    assert moves(lambda: fleet.set_aggregates("n1", [aggregate(1)]))
    assert not moves(lambda: fleet.set_aggregates("n2", [aggregate(1)]))
    assert moves(lambda: fleet.remove_provider("n2")), "a request may have named it"


def test_hosts_whose_figures_are_not_what_their_allocations_say_are_found(fleet: Fleet) -> None:
    assert fleet.drift().tolist() == []
    fleet.report("n1", free_ram_mb=17)
    assert fleet.drift().tolist() == [1]


@pytest.mark.parametrize(
    ("figures", "error"),
    [
        ({"num_io_ops": 0.5}, InvalidValue),
        ({"num_io_ops": float("nan")}, InvalidValue),
        ({"free_ram_mb": 2.0**60}, InvalidValue),
        ({"free_ram_mb": "1"}, InvalidValue),
    ],
)
def test_reports_that_cannot_be_are_refused(fleet: Fleet, figures: Any, error: Any) -> None:
    refused(fleet, error, next(reversed(figures)), "report", "n0", **figures)


def test_a_reported_field_that_does_not_exist_is_a_wrong_keyword(fleet: Fleet) -> None:
    with pytest.raises(TypeError, match="speed"):
        fleet.report("n0", free_ram_mb=1, speed=2)  # type: ignore[call-arg]  # the point of the test


def test_the_bytes_of_a_fleet_count_its_columns_and_names(fleet: Fleet) -> None:
    assert fleet.nbytes() > fleet._store.nbytes > 64 * 500
    assert np.count_nonzero(fleet.is_host) == 3
