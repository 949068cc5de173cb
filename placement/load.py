"""Loading compute hosts in bulk: from an iterator of Host values, or from arrays beside a few templates. No object per host stays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .columns import COLUMN, MAX_AMOUNT
from .errors import DuplicateName, InvalidValue, UnknownName
from .fleet import REPORTED, Fleet, check_name, check_trait, finite, ratio, uuid_words, whole_number
from .host import Host
from .host_classes import HostClass

CHUNK: Final = 8192

_LEAST: Final = {
    "vcpus_total": 0,
    "vcpus_used": 0,
    "total_usable_ram_mb": 0,
    "total_usable_disk_gb": 0,
    "reserved_vcpus": 0,
    "reserved_ram_mb": 0,
    "reserved_disk_gb": 0,
    "disk_mb_used": 0,
    "num_instances": 0,
    "num_io_ops": 0,
    "failed_builds": 0,
    "free_ram_mb": -MAX_AMOUNT,
    "free_disk_mb": -MAX_AMOUNT * 1024,
}
_MOST: Final = {"disk_mb_used": MAX_AMOUNT * 1024, "free_disk_mb": MAX_AMOUNT * 1024}
ARRAYS: Final = frozenset(_LEAST)
"""Host fields that ``load_hosts`` takes as arrays."""


def add_hosts(fleet: Fleet, hosts: Iterable[Host]) -> int:
    """Add compute hosts; returns how many. All or nothing: bad input leaves the fleet as it was.

    Raises InvalidValue, UnknownName or DuplicateName naming the host and field. About 10 µs a host.
    """
    start, added = fleet.history.hold(), 0
    iterator = iter(hosts)
    try:
        while chunk := list(itertools.islice(iterator, CHUNK)):
            _add_chunk(fleet, chunk)
            added += len(chunk)
    except BaseException:
        fleet.history.go(start)
        raise
    return added


def _add_chunk(fleet: Fleet, hosts: Sequence[Host]) -> None:
    for host in hosts:
        check_host(host)
    names = [host.nodename or host.host for host in hosts]
    uuids = _uuids(fleet, hosts)
    known: dict[tuple[Any, ...], int] = {}
    class_of = np.array([_class_id(fleet, host, known) for host in hosts], np.int32)
    figures = {name: np.array([getattr(host, name) for host in hosts], np.int64) for name in ARRAYS}
    ratios = np.array(
        [[h.cpu_allocation_ratio, h.ram_allocation_ratio, h.disk_allocation_ratio] for h in hosts], np.float64
    ).reshape(-1, 3)
    seen = np.array([_last_seen(host) for host in hosts], np.float64)
    versions = np.array([host.hypervisor_version or 0 for host in hosts], np.float64)
    services = [fleet.service_hosts.intern(host.host) for host in hosts]
    if len(fleet.names) != fleet.rows:
        # Freed rows are taken again one by one.
        for i in range(len(hosts)):
            one = slice(i, i + 1)
            first = fleet.add_rows(names[one], None if uuids is None else uuids[one])
            _fill(
                fleet,
                first,
                class_of[one],
                {k: v[one] for k, v in figures.items()},
                ratios[one],
                seen[one],
                versions[one],
            )
            _attach(fleet, first, hosts[one], services[one])
        return
    first = fleet.add_rows(names, uuids)
    _fill(fleet, first, class_of, figures, ratios, seen, versions)
    _attach(fleet, first, hosts, services)


def _uuids(fleet: Fleet, hosts: Sequence[Host]) -> NDArray[np.uint64] | None:
    if not any(host.uuid for host in hosts):
        return None
    from ..ext.tables import make_many

    words = make_many(fleet.seed, fleet.rows, len(hosts))
    for i, host in enumerate(hosts):
        if host.uuid:
            words[i] = uuid_words(host.uuid, f"host {host.host}: uuid")
    return words


def _last_seen(host: Host) -> float:
    seen = host.service.last_seen_up if host.service.last_seen_up is not None else host.service.created_at
    return math.nan if seen is None else seen


def host_class(fleet: Fleet, host: Host) -> HostClass:
    """The static part of a host."""
    return HostClass(
        is_host=True,
        cell_uuid=host.cell_uuid,
        hypervisor_type=host.hypervisor_type,
        hypervisor_version=host.hypervisor_version,
        cpu_info=host.cpu_info,
        supported_instances=tuple(tuple(row) for row in host.supported_instances),
        cpu_allocation_ratio=float(host.cpu_allocation_ratio),
        ram_allocation_ratio=float(host.ram_allocation_ratio),
        disk_allocation_ratio=float(host.disk_allocation_ratio),
        disabled=host.service.disabled,
        disabled_reason=host.service.disabled_reason,
        forced_down=host.service.forced_down,
        aggregates=fleet.aggregate_ids(host.aggregates),
        traits=frozenset(check_trait(trait) for trait in host.traits),
    )


def _class_id(fleet: Fleet, host: Host, known: dict[tuple[Any, ...], int]) -> int:
    key = (
        host.cell_uuid,
        host.hypervisor_type,
        host.hypervisor_version,
        host.cpu_info,
        host.supported_instances,
        host.cpu_allocation_ratio,
        host.ram_allocation_ratio,
        host.disk_allocation_ratio,
        host.service.disabled,
        host.service.disabled_reason,
        host.service.forced_down,
        tuple(id(aggregate) for aggregate in host.aggregates),
        host.traits,
    )
    found = known.get(key)
    if found is None:
        found = known[key] = fleet.class_id(host_class(fleet, host))
    return found


def check_host(host: Host) -> None:
    """Raise InvalidValue if a field of ``host`` is of the wrong type or out of range."""
    check_name(host.host, "host.host")
    where = f"host {host.host}: "
    if host.nodename:
        check_name(host.nodename, f"{where}nodename")
    for name, least in _LEAST.items():
        value = getattr(host, name)
        if name in ("free_ram_mb", "free_disk_mb") and value == -1:
            continue
        whole_number(value, where + name, least=least, most=_MOST.get(name, MAX_AMOUNT))
    for name in ("cpu_allocation_ratio", "ram_allocation_ratio", "disk_allocation_ratio"):
        ratio(getattr(host, name), where + name)
    for name in ("last_seen_up", "created_at"):
        value = getattr(host.service, name)
        if value is not None:
            finite(value, f"{where}service.{name}")
    if host.hypervisor_version is not None:
        whole_number(host.hypervisor_version, f"{where}hypervisor_version")
    for name, value in host.metrics.items():
        finite(value, f"{where}metrics.{name}")


def load_hosts(
    fleet: Fleet,
    names: Sequence[str] | NDArray[Any],
    templates: Sequence[Host],
    template_of: NDArray[np.integer[Any]] | None = None,
    *,
    uuids: NDArray[np.uint64] | None = None,
    last_seen_up: NDArray[np.float64] | None = None,
    **arrays: NDArray[np.integer[Any]],
) -> int:
    """Add many hosts from arrays; returns the first row. A million hosts take about a second.

    ``names``: one per host, service host and node alike (list of str, or a numpy 'S' or 'U' array). Host i takes every field of
    ``templates[template_of[i]]`` (of the only template if ``template_of`` is None) but the figures given as ``arrays`` (int,
    one per host: see ARRAYS; MiB, GiB). ``uuids``: uint64 [n, 2]. Templates must not name instances, NUMA cells or PCI pools.
    All or nothing. Raises InvalidValue, UnknownName, DuplicateName.
    """
    count = len(names)
    if count == 0:
        return fleet.rows
    if len(fleet.names) != fleet.rows:
        raise InvalidValue("rows were freed: add hosts one by one with add_hosts", field="names")
    index = _template_index(templates, template_of, count)
    for name in arrays:
        if name not in ARRAYS:
            raise UnknownName.among("host array", name, ARRAYS)
    figures = {name: _figure(name, templates, index, arrays.get(name), count) for name in ARRAYS}
    if last_seen_up is not None and (len(last_seen_up) != count or not np.all(np.isfinite(last_seen_up))):
        raise InvalidValue("last_seen_up must be one finite number per host", field="last_seen_up")
    if uuids is not None and uuids.shape != (count, 2):
        raise InvalidValue(f"uuids must have the shape ({count}, 2)", field="uuids")
    by_template = np.array([fleet.class_id(host_class(fleet, host)) for host in templates], np.int32)
    ratios = np.array(
        [[h.cpu_allocation_ratio, h.ram_allocation_ratio, h.disk_allocation_ratio] for h in templates], np.float64
    )
    versions = np.array([host.hypervisor_version or 0 for host in templates], np.float64)
    seen = (
        np.array([_last_seen(host) for host in templates], np.float64)[index] if last_seen_up is None else last_seen_up
    )
    start = fleet.history.hold()
    try:
        services = _service_hosts(fleet, names)
        fleet.store.reserve(fleet.rows + count)
        first = fleet.add_rows(names, uuids)  # type: ignore[arg-type]  # add_many takes numpy text arrays too
        _fill(fleet, first, by_template[index], figures, ratios[index], seen, versions[index])
        for name, table in (("stats", fleet.stats), ("metrics", fleet.metrics)):
            ids = [table.id(tuple(sorted(getattr(host, name).items()))) for host in templates]
            fleet.store.row[name][first : first + count] = np.array(ids, np.int32)[index]
        _link(fleet, first, services, count)
    except BaseException:
        fleet.history.go(start)
        raise
    return first


def _template_index(templates: Sequence[Host], given: NDArray[np.integer[Any]] | None, count: int) -> NDArray[np.intp]:
    if not templates:
        raise InvalidValue("at least one template is needed", field="templates")
    for host in templates:
        check_host(host)
        if host.instances or host.numa_topology or host.pci_pools:
            raise InvalidValue(
                "a template names no instances, NUMA cells or PCI pools", field="templates", hint="use add_hosts"
            )
    if given is None:
        return np.zeros(count, np.intp)
    index = np.asarray(given)
    if index.shape != (count,) or index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= len(templates):
        raise InvalidValue(f"template_of must be {count} indices below {len(templates)}", field="template_of")
    return index.astype(np.intp)


def _figure(
    name: str, templates: Sequence[Host], index: NDArray[np.intp], given: NDArray[np.integer[Any]] | None, count: int
) -> NDArray[np.int64]:
    if given is None:
        values = np.array([getattr(host, name) for host in templates], np.int64)
        return values[index]
    array = np.asarray(given)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise InvalidValue(f"{name} must be {count} whole numbers", field=name)
    bad = (array < _LEAST[name]) | (array > _MOST.get(name, MAX_AMOUNT))
    if np.any(bad):
        raise InvalidValue(f"{name}[{int(np.argmax(bad))}] is out of range: {array[bad][0]}", field=name)
    return array.astype(np.int64)


def _service_hosts(fleet: Fleet, names: Sequence[str] | NDArray[Any]) -> NDArray[np.int32]:
    if len(fleet.service_hosts) == len(fleet.names):
        try:
            first = int(fleet.service_hosts.add_many(names))
        except KeyError as error:
            raise DuplicateName(f"host {error.args[0]!r} exists", field="names") from None
        return np.arange(first, first + len(names), dtype=np.int32)
    return np.array([fleet.service_hosts.intern(str(name)) for name in names], np.int32)


def _fill(
    fleet: Fleet,
    first: int,
    class_of: NDArray[np.int32],
    figures: Mapping[str, NDArray[np.int64]],
    ratios: NDArray[np.float64],
    seen: NDArray[np.float64],
    versions: NDArray[np.float64],
) -> None:
    """Write the columns and inventories of rows [first, first + n) from checked figures."""
    span = slice(first, first + len(class_of))
    host, store = fleet.store.host, fleet.store
    store.row["class_of"][span] = class_of
    for name in ("num_io_ops", "num_instances", "failed_builds", "vcpus_used", "vcpus_total", "disk_mb_used"):
        host[COLUMN[name], span] = figures[name]
    for name in ("total_usable_ram_mb", "total_usable_disk_gb"):
        host[COLUMN[name], span] = figures[name]
    for column, name in enumerate(("cpu_allocation_ratio", "ram_allocation_ratio", "disk_allocation_ratio")):
        host[COLUMN[name], span] = ratios[:, column]
    free_ram = figures["free_ram_mb"]
    free_ram = np.where(free_ram == -1, figures["total_usable_ram_mb"] - figures["reserved_ram_mb"], free_ram)
    free_disk = figures["free_disk_mb"]
    left_disk = (figures["total_usable_disk_gb"] - figures["reserved_disk_gb"]) * 1024 - figures["disk_mb_used"]
    free_disk = np.where(free_disk == -1, left_disk, free_disk)
    host[COLUMN["free_ram_mb"], span] = free_ram
    host[COLUMN["free_disk_mb"], span] = free_disk
    host[COLUMN["hypervisor_version"], span] = versions
    host[COLUMN["last_seen_up"], span] = seen
    host[COLUMN["pci_weight"], span] = 100
    fleet.refresh_free_vcpus(span)
    used = (
        figures["vcpus_used"],
        np.maximum(figures["total_usable_ram_mb"] - figures["reserved_ram_mb"] - free_ram, 0),
        np.maximum(figures["total_usable_disk_gb"] - figures["reserved_disk_gb"] - free_disk // 1024, 0),
    )
    totals = (figures["vcpus_total"], figures["total_usable_ram_mb"], figures["total_usable_disk_gb"])
    reserved = (figures["reserved_vcpus"], figures["reserved_ram_mb"], figures["reserved_disk_gb"])
    for resource in range(3):
        inventory = {
            "total": totals[resource],
            "reserved": reserved[resource],
            "used": used[resource],
            "base": used[resource],
        }
        present = totals[resource] > 0
        for name, values in inventory.items():
            store.inventory[name][resource, span] = np.where(present, values, 0)
        store.inventory["min_unit"][resource, span] = present
        store.inventory["step_size"][resource, span] = present
        store.inventory["max_unit"][resource, span] = totals[resource]
        store.ratio[resource, span] = np.where(present, ratios[:, resource], 0.0)
        store.refresh_limits(resource, span)
    down = np.fromiter((v.disabled or v.forced_down for v in fleet.classes.values), bool, len(fleet.classes))
    alive = np.isnan(seen) | (np.abs(fleet.now - seen) <= fleet.service_down_time)
    host[COLUMN["service_up"], span] = alive & ~down[class_of]
    if not np.all(np.isnan(seen)):
        fleet.watch_services(seen)
    fleet.static_epoch += 1
    fleet.changed(np.arange(span.start, span.stop, dtype=np.int32))


def _link(fleet: Fleet, first: int, services: NDArray[np.int32], count: int) -> None:
    """Tie service hosts to rows where each has one node; others one by one."""
    top = int(services.max())
    rows = np.arange(first, first + count, dtype=np.int32)
    if top >= len(fleet.row_of_service_host):
        fleet.link_service_host(first, int(services[0]))
        wider = np.full(max(top + 1, 2 * len(fleet.row_of_service_host)), -1, np.int32)
        wider[: len(fleet.row_of_service_host)] = fleet.row_of_service_host
        fleet.row_of_service_host = wider
    fresh = fleet.row_of_service_host[services] < 0
    if len(np.unique(services)) == count and np.all(fresh[1:]):
        fleet.row_of_service_host[services] = rows
        fleet.store.row["service_host"][rows] = services
        return
    for row, service in zip(rows, services, strict=True):
        fleet.link_service_host(int(row), int(service))


def _attach(fleet: Fleet, first: int, hosts: Sequence[Host], services: Sequence[int]) -> None:
    """What arrays do not hold: service hosts, stats, metrics, NUMA cells, PCI pools, instances."""
    columns = fleet.store.row
    for row, (host, service) in enumerate(zip(hosts, services, strict=True), first):
        fleet.link_service_host(row, service)
        columns["stats"][row] = fleet.stats.id(tuple(sorted(host.stats.items())))
        columns["metrics"][row] = fleet.metrics.id(tuple(sorted(host.metrics.items())))
        columns["host_ip"][row] = fleet.host_ips.intern(host.host_ip or "")
        if host.numa_topology is not None:
            fleet._set_numa(row, host.numa_topology)
        if host.pci_pools:
            fleet.set_pci_pools(row, host.pci_pools)
        _report_instances(fleet, row, host)
    fleet.changed(np.arange(first, first + len(hosts), dtype=np.int32))


def _report_instances(fleet: Fleet, row: int, host: Host) -> None:
    """Instances that a host reports become consumers that hold no allocation of ours; their usage is in the host's figures."""
    siblings = fleet.instances(row)
    details = []
    for uuid, properties in host.instances.items():
        if uuid in siblings:
            continue  # another node of the same service host reported it
        words = uuid_words(uuid, f"host {host.host}: instance")
        details.append(
            (words, row, -1, fleet.projects.id(""), fleet.users.id(""), -1, REPORTED, None, dict(properties or {}))
        )
    added = []
    for detail in details:
        added.append(fleet.add_consumer_row(*detail))
    fleet.placed(added)
