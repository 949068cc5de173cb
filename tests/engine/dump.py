"""Everything of an engine's state that a user can see, as one comparable value: to show that nothing has changed.

Provider generations and the change log's version are left out: they only ever grow, also when a claim is taken back.
"""

from __future__ import annotations

import contextlib
from typing import Any

from hostler.placement.decide.engine import Engine
from hostler.placement.fleet.columns import HOST_COLUMNS
from hostler.placement.fleet.fleet import Fleet
from hostler.placement.fleet.host_view import HostView

VIEW = (
    *("host", "nodename", "uuid", "cell_uuid", "vcpus_total", "vcpus_used", "cpu_allocation_ratio"),
    *("total_usable_ram_mb", "free_ram_mb", "ram_allocation_ratio", "total_usable_disk_gb", "disk_mb_used"),
    *("free_disk_mb", "disk_allocation_ratio", "hypervisor_type", "hypervisor_version", "host_ip", "cpu_info"),
    *("supported_instances", "stats", "num_instances", "num_io_ops", "failed_builds", "metrics", "aggregates"),
    *("traits", "instances", "numa_topology", "pci_pools"),
)
"""HostState fields, ``service`` left out: a fleet folds created_at into last_seen_up."""


def dump(engine: Engine) -> dict[str, Any]:
    """The whole state, to the bit."""
    fleet = engine.fleet
    return {
        "sequence": engine.sequence,
        "now": fleet.now,
        "providers": {fleet.name(row): provider(fleet, row) for row in live_rows(fleet)},
        "order": [fleet.name(row) for row in live_rows(fleet)],
        "consumers": {uuid: consumer(fleet, uuid) for uuid in sorted(consumers(fleet))},
        "groups": {uuid: fleet._kernel.group(fleet._group_id(uuid)) for uuid in fleet._group_uuids},
        "service hosts": {host: fleet._rows_of_service_host(host) for host in sorted(service_hosts(fleet))},
    }


def live_rows(fleet: Fleet) -> list[int]:
    """Rows that are in use."""
    rows = []
    for row in range(fleet.rows):
        with contextlib.suppress(KeyError):
            fleet.name(row)
            rows.append(row)
    return rows


def provider(fleet: Fleet, row: int) -> dict[str, Any]:
    """A provider with its columns to the bit, its inventories, and as filters see it."""
    store = fleet._store
    figures: dict[str, Any] = {name: store.host[i, row].tobytes() for i, name in enumerate(HOST_COLUMNS)}
    for name, block in store.inventory.items():
        figures[name] = {fleet.resource_classes[i]: int(block[i, row]) for i in range(len(block)) if block[i, row]}
    ratios = enumerate(store.ratio[:, row].tolist())
    figures["ratios"] = {fleet.resource_classes[i]: ratio for i, ratio in ratios if ratio}
    figures["tree"] = int(store.row["parent"][row]), int(store.row["root"][row])
    return figures | {"class": fleet._host_class(row)} | host_state(fleet, row)


def host_state(fleet: Fleet, row: int) -> dict[str, Any]:
    """A host as filters and weighers see it; of other providers only the traits and aggregates."""
    view = HostView(fleet, row)
    names = VIEW if fleet._host_class(row).is_host else ("nodename", "uuid", "traits", "aggregates")
    return {name: getattr(view, name) for name in names}


def consumers(fleet: Fleet) -> list[str]:
    return [uuid for row in live_rows(fleet) for uuid in on(fleet, row)]


def on(fleet: Fleet, row: int) -> list[str]:
    """uuids of the consumers on a row."""
    words = (fleet._kernel.consumer(each)[:2] for each in fleet._kernel.consumers_on(row))
    return [f"{(high << 64) + low:032x}" for high, low in words]


def consumer(fleet: Fleet, uuid: str) -> tuple[Any, ...]:
    """A consumer as a value, and what it took besides."""
    number = fleet.consumer_id(uuid)
    return fleet.consumer(uuid), fleet._extras.get(number), fleet._image_properties.get(number)


def service_hosts(fleet: Fleet) -> set[str]:
    return {fleet._service_host(row) for row in live_rows(fleet) if fleet._host_class(row).is_host}
