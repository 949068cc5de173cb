"""Claims and releases: what they take, what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hostler.placement.fleet.fleet import GROUP_POLICIES, Consumer, Extras, Fleet, Inventory
from hostler.placement.load.bulk import add_hosts
from hostler.placement.numa.fit import fit
from hostler.placement.types.errors import CapacityExceeded, DuplicateName, HostlerError, InvalidValue, UnknownName

from .commands import WANTED
from .dump import dump
from .values import POOLS, host, uuid_of


@pytest.fixture
def fleet() -> Fleet:
    """Rows 0 plain, 1 with NUMA cells, 2 with PCI devices, 3 a provider that is no host."""
    fleet = Fleet(seed=1)
    add_hosts(fleet, [host(f"n{number}", number) for number in range(3)])
    fleet.add_provider("gpu")
    fleet.set_inventory("gpu", {"VGPU": Inventory(total=4)})
    return fleet


def claim(fleet: Fleet, number: int, row: int = 0, **named: Any) -> int:
    return fleet.claim(uuid_of(number), row, fleet._shape({0: 1, 1: 512}, 1, 512, 1024), **named)


def refused(fleet: Fleet, error: type[HostlerError], act: Any) -> None:
    before = dump(fleet)
    with pytest.raises(error):
        act()
    assert dump(fleet) == before
    fleet.check()


def test_a_consumer_is_there_as_it_was_claimed(fleet: Fleet) -> None:
    fleet.add_server_group(uuid_of(77), "affinity")
    vgpu = fleet.resource_class("VGPU")
    group = fleet._group_id(uuid_of(77))
    extras = Extras(((3, vgpu, 2),))
    claim(fleet, 1, 0, project_id="p", user_id="u", group=group, building=True, extras=extras)
    assert fleet.consumer(uuid_of(1)) == Consumer(
        uuid=uuid_of(1),
        provider="n0",
        resources={"VCPU": 1, "MEMORY_MB": 512},
        project_id="p",
        user_id="u",
        server_group=uuid_of(77),
        building=True,
        generation=1,
        elsewhere={"gpu": {"VGPU": 2}},
    )
    assert fleet.inventory("gpu")["VGPU"][1] == 2
    assert fleet._kernel.group(group)[2] == {0: 1}


def test_a_claim_and_its_release_leave_every_figure_as_it_was(fleet: Fleet) -> None:
    figures, inventories = fleet._store.host[:, :4].copy(), fleet.inventory("n0")
    claim(fleet, 1, building=True, image_properties={"os_distro": "ubuntu"})
    view = {name: fleet.column(name)[0] for name in ("vcpus_used", "num_instances", "num_io_ops", "free_ram_mb")}
    assert view == {
        "vcpus_used": 1,
        "num_instances": 1,
        "num_io_ops": 1,
        "free_ram_mb": figures[0, 0] - 512,
    }
    assert fleet._release_uuids([uuid_of(1)]) == 1
    assert np.array_equal(fleet._store.host[:, :4], figures, equal_nan=True)
    assert fleet.inventory("n0") == inventories
    assert fleet._image_properties == {}


def test_a_spawned_guest_is_no_io_operation_any_more(fleet: Fleet) -> None:
    consumer = claim(fleet, 1, building=True)
    for _ in range(2):
        fleet._set_building(consumer, False)
        assert fleet.column("num_io_ops")[0] == 0
    fleet._set_building(consumer, True)
    assert fleet.column("num_io_ops")[0] == 1


def test_numa_cells_and_devices_are_taken_and_given_back(fleet: Fleet) -> None:
    before = fleet._numa.get_row(1)
    assert before is not None
    claim(fleet, 1, 1, extras=Extras(numa=fit(before, WANTED)))
    taken = fleet._numa.get_row(1)
    assert taken is not None
    assert [len(cell.pinned_cpus) for cell in taken.cells] == [1, 1]
    claim(fleet, 2, 2, extras=Extras(pci=POOLS[:1]))
    assert fleet.pci_pools(2) == POOLS[1:]
    assert fleet.column("pci_weight")[2] == 99
    fleet.check()
    fleet._release_uuids([uuid_of(1), uuid_of(2)])
    assert fleet._numa.get_row(1) == before
    assert sorted(pool.count for pool in fleet.pci_pools(2)) == [1, 2]
    fleet.check()


def test_a_uuid_is_claimed_once(fleet: Fleet) -> None:
    claim(fleet, 1)
    refused(fleet, DuplicateName, lambda: claim(fleet, 1, 1))
    fitted = fit(fleet._numa.get_row(1), WANTED)  # type: ignore[arg-type]
    refused(fleet, DuplicateName, lambda: claim(fleet, 1, 1, extras=Extras(numa=fitted)))
    refused(fleet, DuplicateName, lambda: claim(fleet, 1, 2, extras=Extras(pci=POOLS)))


def test_cells_and_devices_that_are_taken_refuse_the_claim_whole(fleet: Fleet) -> None:
    fitted = fit(fleet._numa.get_row(1), WANTED)  # type: ignore[arg-type]
    claim(fleet, 1, 1, extras=Extras(numa=fitted))
    refused(fleet, InvalidValue, lambda: claim(fleet, 2, 1, extras=Extras(numa=fitted)))
    refused(fleet, InvalidValue, lambda: claim(fleet, 2, 0, extras=Extras(numa=fitted)))
    refused(fleet, CapacityExceeded, lambda: claim(fleet, 2, 0, extras=Extras(pci=POOLS)))
    refused(fleet, CapacityExceeded, lambda: claim(fleet, 2, 2, extras=Extras(pci=POOLS + POOLS)))


@pytest.mark.parametrize("uuid", ["x", 7, None, uuid_of(1)[:-1]])
def test_a_consumer_is_named_by_a_uuid(fleet: Fleet, uuid: Any) -> None:
    shape = fleet._shape({0: 1}, 1, 0, 0)
    refused(fleet, InvalidValue, lambda: fleet.claim(uuid, 0, shape))
    refused(fleet, InvalidValue, lambda: fleet.consumer_id(uuid))
    refused(fleet, InvalidValue, lambda: fleet._release_uuids([uuid]))


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize(
    ("numbers", "error"), [([1, 9], UnknownName), ([1, 1], InvalidValue), ([9], UnknownName), ([2, 1, 2], InvalidValue)]
)
def test_consumers_are_released_all_or_none(
    fleet: Fleet, recording: bool, numbers: list[int], error: type[HostlerError]
) -> None:
    claim(fleet, 1)
    claim(fleet, 2)
    held = fleet._history.hold() if recording else None
    refused(fleet, error, lambda: fleet._release_uuids([uuid_of(number) for number in numbers]))
    assert fleet._release_uuids([uuid_of(2), uuid_of(1)]) == 2
    del held


def test_ids_are_given_out_again_the_last_freed_first(fleet: Fleet) -> None:
    ids = [claim(fleet, number) for number in range(4)]
    fleet.release([ids[1], ids[2]])
    assert [claim(fleet, number) for number in (11, 12, 13)] == [ids[2], ids[1], 4]
    fleet.check()


def test_an_id_that_is_not_taken_cannot_be_released(fleet: Fleet) -> None:
    before = dump(fleet)
    with pytest.raises(IndexError):
        fleet.release([claim(fleet, 1), 99])
    fleet._release_uuids([uuid_of(1)])
    assert dump(fleet)["inventories"] == before["inventories"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("x", "affinity"), InvalidValue, "uuid"),
        ((uuid_of(1), "near"), UnknownName, "near"),
        ((uuid_of(1), 7), InvalidValue, "policy"),
        ((uuid_of(1), "affinity", 0), InvalidValue, "max_server_per_host"),
        ((uuid_of(7), "affinity"), DuplicateName, "exists"),
    ],
)
def test_server_groups_that_cannot_be_are_refused(fleet: Fleet, arguments: Any, error: Any, words: str) -> None:
    fleet.add_server_group(uuid_of(7), "affinity")
    uuid, policy, *most = arguments
    named = {"max_server_per_host": most[0]} if most else {}
    with pytest.raises(error, match=words):
        fleet.add_server_group(uuid, policy, **named)
    assert fleet._groups == {uuid_of(7): 0}
    with pytest.raises(UnknownName):
        fleet._group_id(uuid_of(1))


def test_a_removed_group_is_unknown_and_its_members_stay_in_no_group(fleet: Fleet) -> None:
    fleet.add_server_group(uuid_of(7), "anti-affinity")
    fleet.claim(uuid_of(1), 0, fleet._shape({0: 1}, 1, 0, 0), group=fleet._group_id(uuid_of(7)))
    fleet.remove_server_group(uuid_of(7))
    with pytest.raises(UnknownName):
        fleet._group_id(uuid_of(7))
    with pytest.raises(UnknownName):
        fleet.remove_server_group(uuid_of(7))
    assert fleet.consumer(uuid_of(1)).server_group is None
    fleet.add_server_group(uuid_of(7), "affinity")
    assert fleet.consumer(uuid_of(1)).server_group is None
    fleet.check()


def test_the_id_of_a_removed_group_is_used_again_once_it_is_empty(fleet: Fleet) -> None:
    for number in (7, 8):
        fleet.add_server_group(uuid_of(number), "anti-affinity")
    consumer = fleet.claim(uuid_of(1), 0, fleet._shape({0: 1}, 1, 0, 0), group=0)
    fleet.remove_server_group(uuid_of(7))
    fleet.add_server_group(uuid_of(9), "affinity")
    fleet.release([consumer])
    fleet.add_server_group(uuid_of(10), "soft-affinity", max_server_per_host=2)
    assert fleet._groups == {uuid_of(8): 1, uuid_of(9): 2, uuid_of(10): 0}
    assert fleet._kernel.group(0) == (GROUP_POLICIES["soft-affinity"], 2, {})
    fleet.check()
