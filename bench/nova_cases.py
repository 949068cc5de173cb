"""Reads the recorded answers of the real Nova 33 scheduler: a case's hosts and request become Hostler's plain values.

Not an engine and not a comparison: it knows the form of the cases (parity/nova/README.md) and what Nova derives while
reading a compute node, nothing of how Hostler answers.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..placement.types.errors import InvalidValue
from ..placement.types.host import Aggregate, Host, MemoryPages, NumaCell, NumaTopology, PciPool, Service
from ..placement.types.request import (
    Destination,
    Flavor,
    Image,
    InstanceNumaCell,
    InstanceNumaTopology,
    PciRequest,
    Request,
    RequestSpec,
    ServerGroup,
)

Case = dict[str, Any]

KINDS = ("sorted", "schedule", "query")
_KEYS = frozenset({"id", "kind", "config", "hosts", "aggregates", "now", "request", "expected"})
_DEFAULT_MAX_ATTEMPTS = 3  # Nova's [scheduler] max_attempts


def read_cases(path: str | Path) -> Iterator[Case]:
    """The cases of ``path``: a folder of ``[0-9]*.json``, one ``.json``, a ``.jsonl`` or ``.jsonl.gz`` with one case a
    line. Lazy. InvalidValue, naming file and line, for what cannot be read or is no case, and if there is none."""
    path, count = Path(path), 0
    for place, text in _texts(path):
        count += 1
        yield _case(place, text)
    if count == 0:
        raise InvalidValue(f"{path} holds no cases", field="paths", hint="folders of [0-9]*.json, .json, .jsonl(.gz)")


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Each case's place, for messages, and its text."""
    try:
        if path.is_dir():
            for file in sorted(path.glob("[0-9]*.json")):
                yield str(file), file.read_text(encoding="utf-8")
        elif path.suffix == ".json":
            yield str(path), path.read_text(encoding="utf-8")
        else:
            with (
                gzip.open(path, "rt", encoding="utf-8")
                if path.suffix == ".gz"
                else path.open(encoding="utf-8") as lines
            ):
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield f"{path}:{number}", line
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InvalidValue(f"{path} cannot be read: {error}", field="paths") from error


def _case(place: str, text: str) -> Case:
    try:
        case = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"{place} is not JSON: {error}", field="paths") from error
    missing = sorted(_KEYS - case.keys()) if isinstance(case, dict) else sorted(_KEYS)
    if missing:
        raise InvalidValue(f"{place} is not a recorded case: it has no {', '.join(missing)}", field="paths")
    if case["kind"] not in KINDS:
        raise InvalidValue(f"{place} is a case of no known kind: {case['kind']!r:.200}", field="paths")
    return dict(case)


def hosts(case: Case) -> list[Host]:
    """The hosts of ``case`` in the order in which Nova saw them. O(hosts + members of aggregates)."""
    joined = _aggregates_by_host(case["aggregates"])
    return [_host(item, tuple(joined.get(item["name"], ()))) for item in case["hosts"]]


def aggregates(case: Case) -> list[Aggregate]:
    """All aggregates of ``case``, also those without hosts."""
    return [Aggregate(uuid=item["uuid"], name=item["name"], metadata=item["metadata"]) for item in case["aggregates"]]


def request(case: Case) -> Request:
    """The request of ``case``, with its time, its server group as a value and as many alternates as Nova would name."""
    asked = case["request"]
    return Request(
        spec=_spec(asked),
        instance_uuids=tuple(case.get("instance_uuids") or (asked["instance_uuid"],)),
        project_id=asked["project_id"],
        user_id=asked["user_id"],
        server_group=_server_group(asked["instance_group"]),
        now=_epoch(case["now"]),
        alternates=_alternates(case),
        request_id=case["id"],
    )


def option_values(case: Case) -> dict[str, dict[str, Any]]:
    """What ``case`` sets in nova.conf: group name (``DEFAULT`` as Nova writes it) -> option -> value."""
    return {group: dict(values) for group, values in case["config"].items()}


# Hosts


def _aggregates_by_host(aggregates: Sequence[Mapping[str, Any]]) -> dict[str, list[Aggregate]]:
    joined: dict[str, list[Aggregate]] = {}
    for item in aggregates:
        aggregate = Aggregate(uuid=item["uuid"], name=item["name"], metadata=item["metadata"])
        for name in item["hosts"]:
            joined.setdefault(name, []).append(aggregate)
    return joined


def _host(item: Mapping[str, Any], aggregates: tuple[Aggregate, ...]) -> Host:
    stats = item["stats"]
    return Host(
        host=item["name"],
        nodename=item["node"],
        uuid=item["uuid"],
        cell_uuid=item["cell_uuid"],
        vcpus_total=item["vcpus"],
        vcpus_used=item["vcpus_used"],
        cpu_allocation_ratio=item["cpu_allocation_ratio"],
        total_usable_ram_mb=item["memory_mb"],
        free_ram_mb=item["free_ram_mb"],
        ram_allocation_ratio=item["ram_allocation_ratio"],
        total_usable_disk_gb=item["local_gb"],
        disk_mb_used=item["local_gb_used"] * 1024,
        free_disk_mb=_free_disk_mb(item),
        disk_allocation_ratio=item["disk_allocation_ratio"],
        hypervisor_type=item["hypervisor_type"],
        hypervisor_version=item["hypervisor_version"],
        host_ip=item["host_ip"],
        cpu_info=_cpu_info(item["cpu_info"]),
        supported_instances=tuple(tuple(row) for row in item["supported_instances"]),
        stats=stats,
        num_instances=int(stats.get("num_instances", 0)),
        num_io_ops=int(stats.get("io_workload", 0)),
        failed_builds=int(stats.get("failed_builds", 0)),
        metrics={metric["name"]: _metric(metric["name"], metric["value"]) for metric in item["metrics"]},
        aggregates=aggregates,
        instances={instance["uuid"]: instance.get("image_properties", {}) for instance in item["instances"]},
        service=_service(item["service"]),
        numa_topology=_numa_topology(item["numa_topology"]),
        pci_pools=tuple(_pci_pool(pool) for pool in item["pci_pools"] or ()),
    )


def _free_disk_mb(item: Mapping[str, Any]) -> int:
    """Nova takes the smaller of what is free and what is left once images have grown; the latter may be unknown."""
    free: int = item["free_disk_gb"]
    least: int | None = item["disk_available_least"]
    return (free if least is None else min(least, free)) * 1024


def _cpu_info(info: Any) -> str | None:
    """Nova's HostState holds the JSON text, not the object."""
    return info if info is None or isinstance(info, str) else json.dumps(info)


def _metric(name: str, value: float) -> int:
    """Nova stores CPU percentages as hundredths and every metric as an int."""
    percentage = name.startswith("cpu.") and name.endswith("percent")
    return int(value * 100) if percentage else int(value)


def _service(item: Mapping[str, Any]) -> Service:
    return Service(
        disabled=item["disabled"],
        disabled_reason=item["disabled_reason"],
        forced_down=item["forced_down"],
        last_seen_up=_epoch(item["last_seen_up"]),
        created_at=_epoch(item["created_at"]),
    )


def _epoch(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _numa_topology(item: Mapping[str, Any] | None) -> NumaTopology | None:
    return None if item is None else NumaTopology(cells=tuple(_numa_cell(cell) for cell in item["cells"]))


def _numa_cell(cell: Mapping[str, Any]) -> NumaCell:
    return NumaCell(
        id=cell["id"],
        cpuset=frozenset(cell["cpuset"]),
        pcpuset=frozenset(cell["pcpuset"]),
        memory=cell["memory"],
        cpu_usage=cell["cpu_usage"],
        memory_usage=cell["memory_usage"],
        pinned_cpus=frozenset(cell["pinned_cpus"]),
        siblings=tuple(frozenset(core) for core in cell["siblings"]),
        mempages=tuple(
            MemoryPages(size_kb=page["size_kb"], total=page["total"], used=page["used"], reserved=page["reserved"])
            for page in cell["mempages"]
        ),
        socket=cell["socket"],
    )


def _pci_pool(pool: Mapping[str, Any]) -> PciPool:
    tags = {key: value for key, value in pool.items() if key not in ("count", "numa_node")}
    return PciPool(count=pool["count"], numa_node=pool["numa_node"], tags=tags)


# Requests


def _spec(asked: Mapping[str, Any]) -> RequestSpec:
    return RequestSpec(
        flavor=Flavor(**asked["flavor"]),
        image=None if asked["image"] is None else Image(**asked["image"]),
        availability_zone=asked["availability_zone"],
        scheduler_hints={hint: tuple(values) for hint, values in asked["scheduler_hints"].items()},
        ignore_hosts=tuple(asked["ignore_hosts"] or ()),
        force_hosts=tuple(asked["force_hosts"] or ()),
        force_nodes=tuple(asked["force_nodes"] or ()),
        requested_destination=_destination(asked["requested_destination"]),
        pci_requests=tuple(_pci_request(item) for item in asked["pci_requests"] or ()),
        numa_topology=_instance_numa_topology(asked["numa_topology"]),
        is_bfv=asked["is_bfv"],
    )


def _destination(item: Mapping[str, Any] | None) -> Destination | None:
    if item is None:
        return None
    return Destination(
        host=item.get("host"),
        node=item.get("node"),
        cell_uuid=item.get("cell_uuid"),
        allow_cross_cell_move=item.get("allow_cross_cell_move") or False,
        aggregates=tuple(item.get("aggregates") or ()),
        forbidden_aggregates=frozenset(item.get("forbidden_aggregates") or ()),
    )


def _pci_request(item: Mapping[str, Any]) -> PciRequest:
    return PciRequest(
        count=item["count"],
        spec=tuple(item["spec"]),
        alias_name=item["alias_name"],
        request_id=item["request_id"],
        numa_policy=item["numa_policy"],
    )


def _instance_numa_topology(item: Mapping[str, Any] | None) -> InstanceNumaTopology | None:
    if item is None:
        return None
    cells = tuple(_instance_numa_cell(cell) for cell in item["cells"])
    return InstanceNumaTopology(cells=cells, emulator_threads_policy=item["emulator_threads_policy"])


def _instance_numa_cell(cell: Mapping[str, Any]) -> InstanceNumaCell:
    return InstanceNumaCell(
        id=cell["id"],
        cpuset=frozenset(cell["cpuset"]),
        pcpuset=frozenset(cell["pcpuset"]),
        memory=cell["memory"],
        pagesize=cell["pagesize"],
        cpu_policy=cell["cpu_policy"],
        cpu_thread_policy=cell["cpu_thread_policy"],
    )


def _server_group(item: Mapping[str, Any] | None) -> ServerGroup | None:
    if item is None:
        return None
    return ServerGroup(
        uuid=item["uuid"],
        policy=item["policy"],
        max_server_per_host=int(item["rules"].get("max_server_per_host", 1)),
        members=frozenset(item["members"]),
        hosts=frozenset(item["hosts"]),
    )


def _alternates(case: Case) -> int:
    if not case.get("return_alternates"):
        return 0
    attempts: int = case["config"].get("scheduler", {}).get("max_attempts", _DEFAULT_MAX_ATTEMPTS)
    return attempts - 1
