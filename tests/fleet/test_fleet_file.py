"""A fleet that was saved and loaded is the same fleet: it passes its check and decides alike, bit for bit."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

from hostler import (
    Aggregate,
    Engine,
    Flavor,
    Fleet,
    Host,
    Inventory,
    MemoryPages,
    NumaCell,
    NumaTopology,
    PciPool,
    PciRequest,
    Policy,
    Request,
    RequestSpec,
    SnapshotError,
    add_hosts,
)
from hostler.placement.numa.derive import derive as numa_derive
from hostler.placement.persist import container as snapshot
from hostler.placement.persist import file as fleet_file

GROUP = str(uuid.UUID(int=77))
ZONE = Aggregate(uuid=str(uuid.UUID(int=1)), name="az1", metadata={"availability_zone": "az1"})


def cells() -> NumaTopology:
    def cell(index: int) -> NumaCell:
        cpus = frozenset(range(index * 8, index * 8 + 8))
        siblings = tuple(frozenset({cpu, cpu + 4}) for cpu in sorted(cpus)[:4])
        pages = (MemoryPages(size_kb=4, total=8192 * 256), MemoryPages(size_kb=2048, total=0))
        return NumaCell(id=index, cpuset=cpus, pcpuset=cpus, memory=8192, siblings=siblings, mempages=pages)

    return NumaTopology(cells=(cell(0), cell(1)))


def fleet() -> Fleet:
    made = Fleet(seed=5)
    pool = PciPool(count=3, numa_node=0, tags={"vendor_id": "8086", "product_id": "1520", "dev_type": "type-PCI"})
    hosts = [
        Host(
            host=f"h{i}",
            vcpus_total=16,
            total_usable_ram_mb=16384,
            total_usable_disk_gb=100 + i,
            aggregates=(ZONE,) if i % 2 else (),
            numa_topology=cells() if i % 3 else None,
            pci_pools=(pool,) if i % 3 == 1 else (),
            stats={"rack": f"r{i % 2}"},
            metrics={"cpu.percent": float(i)},
            instances={str(uuid.UUID(int=1000 + i)): {"os_distro": "debian"}},
        )
        for i in range(9)
    ]
    add_hosts(made, hosts)
    made.add_provider("storage", traits=["MISC_SHARES_VIA_AGGREGATE"], aggregates=[ZONE])
    made.set_inventory("storage", {"DISK_GB": Inventory(total=5000)})
    made.add_server_group(str(uuid.UUID(int=12345)), "affinity")
    made.add_server_group(GROUP, "anti-affinity")
    made.remove_server_group(str(uuid.UUID(int=12345)))
    return made


def specs() -> list[RequestSpec]:
    plain = Flavor(name="m", vcpus=2, memory_mb=1024, root_gb=5)
    pinned = Flavor(name="p", vcpus=2, memory_mb=1024, root_gb=5, extra_specs={"hw:numa_nodes": "1"})
    wish = PciRequest(count=1, spec=({"vendor_id": "8086", "product_id": "1520"},))
    return [
        RequestSpec(flavor=plain),
        RequestSpec(flavor=plain, availability_zone="az1"),
        RequestSpec(flavor=pinned, numa_topology=numa_derive(pinned, None)),
        RequestSpec(flavor=plain, pci_requests=(wish,)),
    ]


def policy() -> Policy:
    filters = ["ComputeFilter", "ServerGroupAntiAffinityFilter", "NUMATopologyFilter", "PciPassthroughFilter"]
    return Policy.from_mapping({"filter_scheduler": {"enabled_filters": filters}})


def placements(engine: Engine, first: int, count: int) -> list[tuple[str | None, float]]:
    kinds = specs()
    answers: list[tuple[str | None, float]] = []
    for number in range(first, first + count):
        request = Request(
            spec=kinds[number % len(kinds)],
            instance_uuids=(str(uuid.UUID(int=5000 + number)),),
            server_group=GROUP if number % 5 == 0 else None,
            project_id=f"p{number % 3}",
        )
        decision = engine.place(request)
        answers.append((decision.selected.node, decision.selected.weight) if decision.placed else (None, 0.0))
    return answers


def test_a_loaded_fleet_decides_as_the_saved_one(tmp_path: Path) -> None:
    saved = Engine(fleet(), policy())
    placements(saved, 0, 24)
    saved.release([str(uuid.UUID(int=5000 + number)) for number in (1, 4, 9)])
    fleet_file.save(saved.fleet, tmp_path / "fleet")
    loaded = Engine(fleet_file.load(tmp_path / "fleet"), policy())
    loaded.fleet.check()
    assert placements(loaded, 24, 24) == placements(saved, 24, 24)
    released = [str(uuid.UUID(int=5000 + number)) for number in (0, 2, 3)]
    assert loaded.release(released) == saved.release(released)
    loaded.fleet.check()
    for name in ("free_ram_mb", "free_vcpus", "free_disk_mb", "num_io_ops", "pci_weight"):
        assert np.array_equal(loaded.fleet.column(name), saved.fleet.column(name))


def test_freed_rows_and_names_are_taken_again_in_the_same_order(tmp_path: Path) -> None:
    saved = Fleet()
    add_hosts(saved, [Host(host=f"h{i}", vcpus_total=4, total_usable_ram_mb=4096) for i in range(5)])
    for name in ("h1", "h3"):
        saved.remove_provider(name)
    fleet_file.save(saved, tmp_path / "fleet")
    loaded = fleet_file.load(tmp_path / "fleet")
    for each in (saved, loaded):
        for name in ("a", "b", "c"):
            add_hosts(each, [Host(host=name, vcpus_total=4, total_usable_ram_mb=4096)])
    assert [loaded.row(name) for name in "abc"] == [saved.row(name) for name in "abc"]
    assert [loaded.uuid(loaded.row(name)) for name in "abc"] == [saved.uuid(saved.row(name)) for name in "abc"]


def test_removed_aggregates_are_not_in_the_file(tmp_path: Path) -> None:
    saved = fleet()
    racks = [Aggregate(uuid=str(uuid.UUID(int=70 + number)), name=f"r{number}") for number in range(4)]
    for number, rack in enumerate(racks):
        saved.set_aggregates(f"h{number}", [ZONE, rack])
    trial = saved.fork()
    for number in (0, 2):
        trial.set_aggregates(f"h{number}", [ZONE])
        trial.remove_aggregate(racks[number].uuid)
    for each, known in ((trial, racks[1::2]), (saved, racks)):
        fleet_file.save(each, tmp_path / "fleet")
        loaded = fleet_file.load(tmp_path / "fleet")
        loaded.check()
        assert list(loaded.aggregates) == [ZONE, *known]
        for row in range(loaded.rows):
            mine = [[it.aggregates[index] for index in it._host_class(row).aggregates] for it in (loaded, each)]
            assert mine[0] == mine[1]


def test_the_time_and_its_verdicts_are_kept(tmp_path: Path) -> None:
    saved = fleet()
    saved.advance(1000.0)
    saved.heartbeat("h0", 990.0)
    saved.advance(1100.0)
    fleet_file.save(saved, tmp_path / "fleet")
    loaded = fleet_file.load(tmp_path / "fleet")
    assert loaded.now == 1100.0
    assert np.array_equal(loaded.column("service_up"), saved.column("service_up"))


def test_a_container_of_something_else_is_refused(tmp_path: Path) -> None:
    snapshot.write(tmp_path / "other", {"kind": "else"}, {})
    with pytest.raises(SnapshotError, match="not of a fleet"):
        fleet_file.load(tmp_path / "other")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    snapshot.write(tmp_path / "newer", {"kind": "hostler fleet", "format": fleet_file.FORMAT + 1}, {})
    with pytest.raises(SnapshotError, match="format"):
        fleet_file.load(tmp_path / "newer")


def test_a_fleet_that_cannot_be_is_refused(tmp_path: Path) -> None:
    fleet_file.save(fleet(), tmp_path / "fleet")
    meta, arrays = snapshot.read(tmp_path / "fleet")
    del arrays["row/class_of"]
    snapshot.write(tmp_path / "broken", meta, arrays)
    with pytest.raises(SnapshotError, match="inconsistent fleet"):
        fleet_file.load(tmp_path / "broken")


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fleet"
    fleet_file.save(fleet(), path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(SnapshotError):
        fleet_file.load(path)
