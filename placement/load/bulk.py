"""Loading compute hosts in bulk: from an iterator of Host values, or from arrays beside a few templates. No Python
object per host remains."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Final, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from ...ext.fleet_state import consumers_on_rows
from ..devices.sriov import linked
from ..fleet.change_log import Rows
from ..fleet.fleet import Fleet
from ..fleet.interned_pci import PciStates
from ..types.errors import HostlerError, InvalidValue, UnknownName
from ..types.host import Host, RunningInstance
from ..types.host_classes import Interned
from ..types.uuids import by_plain_uuid
from ..types.validation import LONGEST_NAME, check_array, check_name, finite, shown, whole_number
from .checks import LEAST, MOST, RATIOS, Fields, check_host, is_running, of_host, read_hosts, read_uuids
from .columns import HostColumns, host_class, interned, last_seen, numa_networks, write
from .instances import enter, properties_of
from .usage import guests_on, settle

CHUNK: Final = 8192
"""Hosts taken from an iterator at a time."""
BLOCK: Final = 32768
"""Rows written at a time, so that temporary arrays fit the CPU cache."""
ARRAYS: Final = frozenset(LEAST)
"""Host fields that ``load_hosts`` takes as arrays."""

_STATIC: Final = attrgetter(
    *("cell_uuid", "hypervisor_type", "hypervisor_version", "cpu_info", "supported_instances", *RATIOS),
    *("service.disabled", "service.disabled_reason", "service.forced_down", "service.version", "traits"),
)


def add_hosts(fleet: Fleet, hosts: Iterable[Host]) -> int:
    """Add compute hosts; returns how many. All or nothing: bad input leaves the fleet as it was.

    Raises InvalidValue, UnknownName or DuplicateName naming the host and field. Freed rows are taken first. O(hosts):
    about 5 µs each, 30 µs with NUMA cells.
    """
    added, iterator = 0, iter(hosts)
    with all_or_nothing(fleet):
        while chunk := list(itertools.islice(iterator, CHUNK)):
            _add_chunk(fleet, chunk)
            added += len(chunk)
    return added


@contextmanager
def all_or_nothing(fleet: Fleet) -> Iterator[None]:
    """What the body has changed is undone if it raises, also what it has made known for good, unless others have used
    other versions meanwhile: these may name it."""
    fleet._reclaim.if_due()
    tables: tuple[Interned[Any] | PciStates, ...] = (
        fleet._stats,
        fleet._metrics,
        fleet._projects,
        fleet._users,
        fleet._pci_states,
    )
    counts = [len(table) for table in tables]
    classes, aggregates, addresses = len(fleet._classes), len(fleet.aggregates), fleet._host_ips.span
    turns = fleet._heads.turns
    try:
        with fleet._history.undoing():
            try:
                yield
            finally:
                fleet._entered()  # others may have used other versions since
    except BaseException:
        if fleet._heads.turns == turns:
            for table, count in zip(tables, counts, strict=True):
                table.truncate(count)
            fleet._host_ips.truncate(addresses)
            fleet._change_log.truncate_classes(classes)
            fleet._aggregate_table.truncate(aggregates)
        raise


# from Host values


def _add_chunk(fleet: Fleet, hosts: Sequence[Host]) -> None:
    fields = read_hosts(hosts)
    uuids = read_uuids(hosts, fields["uuid"])
    columns = columns_of(fleet, hosts, fields)
    names = [node or host for node, host in zip(fields["nodename"], fields["host"], strict=True)]
    words, given = uuids if uuids is not None else (None, None)
    rows = fleet._providers.add(names, words, given, hosts=fields["host"])
    write(fleet, rows, columns)
    fleet._change_log.entered(rows)
    for name, attach in _ATTACHED.items():
        for position, value in enumerate(fields[name]):
            if value:
                with _naming(hosts[position].host):
                    attach(fleet, int(rows[position]), value)
    _settle_guests(fleet, rows, columns, fields)
    fleet._change_log.settle()


def _settle_guests(fleet: Fleet, rows: Rows, columns: HostColumns, fields: Fields) -> None:
    """Count guests that came with a size once: in the figures that their host reports."""
    sized = [
        position
        for position, instances in enumerate(fields["instances"])
        if any(isinstance(value, RunningInstance) or is_running(value) for value in instances.values())
    ]
    if sized:
        some, chosen = rows[sized], columns.taken(np.array(sized, np.intp))
        ids = consumers_on_rows(fleet._kernel, np.ascontiguousarray(some))
        guests = guests_on(fleet, some, ids[0], ids[1])
        settle(fleet, some, chosen.amounts, guests, np.ones((3, len(some)), bool))
        fleet._change_log.changed(some)


def columns_of(fleet: Fleet, hosts: Sequence[Host], fields: Fields) -> HostColumns:
    """What the columns will hold of hosts; their classes, aggregates and the like become known."""
    return HostColumns(
        class_of=_classes(fleet, hosts),
        amounts={name: np.array(fields[name], np.int64) for name in LEAST},
        ratios=np.stack([np.array(fields[name], np.float64) for name in RATIOS], axis=1),
        seen=np.array(list(map(last_seen, fields["service.last_seen_up"], fields["service.created_at"]))),
        versions=np.array([version or 0 for version in fields["hypervisor_version"]], np.float64),
        interned=_interned(fleet, hosts, fields),
    )


def _classes(fleet: Fleet, hosts: Sequence[Host]) -> NDArray[np.int32]:
    """Host class ids. Aggregates are compared by identity first: the hosts keep them alive meanwhile."""
    known: dict[Any, int] = {}
    ids = np.empty(len(hosts), np.int32)
    for position, host in enumerate(hosts):
        key: Any = (_STATIC(host), tuple(map(id, host.aggregates)), numa_networks(host.numa_topology))
        try:
            found = known.get(key)
        except TypeError:
            key, found = position, None
        if found is None:
            found = known[key] = fleet._change_log.class_id(host_class(fleet, host))
        ids[position] = found
    return ids


def _interned(fleet: Fleet, hosts: Sequence[Host], fields: Fields) -> dict[str, NDArray[np.int32]]:
    """Ids of values that few hosts have, or that many share."""
    found = {}
    ways: tuple[tuple[str, Any, Any], ...] = (
        ("stats", _stats, fleet._stats.id),
        ("metrics", _metrics, fleet._metrics.id),
        ("host_ip", str, fleet._host_ips.intern),
    )
    for name, key, identify in ways:
        if any(fields[name]):
            found[name] = interned(fields[name], key, identify)
    return found


def _stats(stats: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(stats.items()))


def _metrics(metrics: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Numbers with their type, so that equal ints and floats stay distinct."""
    numbers = {name: value.item() if isinstance(value, np.generic) else value for name, value in metrics.items()}
    return tuple(sorted(numbers.items()))


def _attach_cells(fleet: Fleet, row: int, topology: Any) -> None:
    static = fleet._host_class(row)
    try:
        fleet._numa.set_row(row, topology, static.cpu_allocation_ratio, static.ram_allocation_ratio)
    except (AttributeError, TypeError):
        raise InvalidValue(f"numa_topology is malformed: {shown(topology)}", field="numa_topology") from None


def _attach_pools(fleet: Fleet, row: int, pools: Any) -> None:
    fleet._pci_states.set(row, fleet._pci_states.id(linked(pools)))


def _attach_guests(fleet: Fleet, row: int, instances: Mapping[str, Any]) -> None:
    """Instances that a host reports become consumers; one that another node of the same service host has reported is
    left out, one that another host has stands on both."""
    known = fleet.instances(row)
    new: list[tuple[str, Any]] = []
    both: dict[str, Mapping[str, Any]] = {}
    for uuid, value in by_plain_uuid(instances).items():
        if uuid in known:
            continue
        if fleet._kernel.consumers.get(uuid) >= 0:
            both[uuid] = dict(properties_of(value))
        else:
            new.append((uuid, value))
    enter(fleet, row, new)
    if both:
        fleet._consumers.stand_on(row, both)


_ATTACHED: Final = {"numa_topology": _attach_cells, "pci_pools": _attach_pools, "instances": _attach_guests}
"""Store what the columns do not hold: NUMA cells, PCI pools and instances."""


# from arrays


class HostArrays(TypedDict, total=False):
    """Host fields as arrays, int[hosts] each; units as ``Host`` has them (MiB, GiB)."""

    vcpus_total: NDArray[np.integer[Any]]
    vcpus_used: NDArray[np.integer[Any]]
    total_usable_ram_mb: NDArray[np.integer[Any]]
    total_usable_disk_gb: NDArray[np.integer[Any]]
    reserved_vcpus: NDArray[np.integer[Any]]
    reserved_ram_mb: NDArray[np.integer[Any]]
    reserved_disk_gb: NDArray[np.integer[Any]]
    disk_mb_used: NDArray[np.integer[Any]]
    num_instances: NDArray[np.integer[Any]]
    num_io_ops: NDArray[np.integer[Any]]
    failed_builds: NDArray[np.integer[Any]]
    free_ram_mb: NDArray[np.integer[Any]]
    free_disk_mb: NDArray[np.integer[Any]]


def load_hosts(
    fleet: Fleet,
    names: Sequence[str] | NDArray[Any],
    templates: Sequence[Host],
    template_of: NDArray[np.integer[Any]] | None = None,
    *,
    uuids: NDArray[np.uint64] | None = None,
    last_seen_up: NDArray[np.floating[Any]] | None = None,
    **arrays: Unpack[HostArrays],
) -> int:
    """Add many hosts from arrays; returns the first of their rows, which are consecutive. A million hosts take about a
    second.

    ``names``: one per host, service host and node alike (texts, or a numpy 'S' or 'U' array). Host i takes every field
    of ``templates[template_of[i]]`` (of the only template if ``template_of`` is None) except the amounts given as
    ``arrays`` (int, one per host: see ARRAYS; MiB, GiB). ``uuids``: uint64 [n, 2]. Templates must not name instances,
    NUMA cells or PCI pools. All or nothing. Raises InvalidValue, UnknownName or DuplicateName naming the host and
    field.
    """
    count = len(names)
    _check_names(names)
    index = _template_index(templates, template_of, count)
    if count == 0:
        return fleet.rows
    amounts = _amounts(names, cast("Mapping[str, NDArray[np.integer[Any]]]", arrays))
    seen = None if last_seen_up is None else _seen(names, last_seen_up)
    if uuids is not None and (
        not isinstance(uuids, np.ndarray) or uuids.dtype != np.uint64 or uuids.shape != (count, 2)
    ):
        raise InvalidValue(f"uuids must be uint64 of the shape ({count}, 2), got {shown(uuids)}", field="uuids")
    with all_or_nothing(fleet):
        by_template = columns_of(fleet, templates, read_hosts(templates))
        rows = fleet._providers.add(names, uuids, hosts=names, reuse=False)
        for first in range(0, count, BLOCK):
            block = slice(first, first + BLOCK)
            columns = by_template.taken(index[block])
            columns.amounts.update((name, values[block].astype(np.int64)) for name, values in amounts.items())
            if seen is not None:
                columns.seen = seen[block].astype(np.float64)
            write(fleet, rows[block], columns)
        fleet._change_log.entered(rows)
    return int(rows[0])


def _check_names(names: Sequence[str] | NDArray[Any]) -> None:
    """InvalidValue for invalid provider names. O(names)."""
    if isinstance(names, np.ndarray):
        if names.ndim != 1 or names.dtype.kind not in "SUO":
            raise InvalidValue(f"names must be one string per host, got {shown(names)}", field="names")
        if names.dtype.kind == "S" and _is_plain_ascii(names):
            return
        try:
            listed = [name.decode() if isinstance(name, bytes) else name for name in names.tolist()]
        except UnicodeDecodeError as error:
            raise InvalidValue(f"names must be UTF-8: {error}", field="names") from None
    else:
        listed = list(names)
    plain = set(map(type, listed)) <= {str} and all(listed) and all(map(str.isprintable, listed))
    if not plain or max(map(len, listed), default=0) > LONGEST_NAME:
        for position, name in enumerate(listed):
            check_name(name, f"names[{position}]")


def _is_plain_ascii(names: NDArray[np.bytes_]) -> bool:
    """True if all names are printable ASCII of valid length, determined from their bytes."""
    size = names.dtype.itemsize
    raw = np.ascontiguousarray(names).view(np.uint8).reshape(len(names), size)
    if size > LONGEST_NAME or not len(names) or not raw[:, 0].all():
        return False
    within = raw != 0
    if size > 1 and np.any(within[:, 1:] & ~within[:, :-1]):
        return False
    return not np.any((raw < 32) & within) and not np.any(raw >= 127)


def _template_index(templates: Sequence[Host], given: NDArray[np.integer[Any]] | None, count: int) -> NDArray[np.intp]:
    if isinstance(templates, Host) or not len(templates):
        raise InvalidValue("templates must be at least one Host", field="templates")
    for host in templates:
        check_host(host)
        if host.instances or host.numa_topology or host.pci_pools:
            problem = f"template {host.host} may not name instances, NUMA cells or PCI pools"
            raise InvalidValue(problem, field="templates", hint="use add_hosts")
    if given is None:
        return np.zeros(count, np.intp)
    index = check_array(given, "template_of", (count,), "iu", "one index per host")
    if count and (index.min() < 0 or index.max() >= len(templates)):
        raise InvalidValue(f"template_of must be below {len(templates)}, got {shown(given)}", field="template_of")
    return index.astype(np.intp)


def _amounts(
    names: Sequence[str] | NDArray[Any], arrays: Mapping[str, NDArray[np.integer[Any]]]
) -> dict[str, NDArray[np.integer[Any]]]:
    """The arrays, checked."""
    amounts = {}
    for name, given in arrays.items():
        if name not in ARRAYS:
            raise UnknownName.among("host array", name, ARRAYS)
        array = check_array(given, name, (len(names),), "iu", "one whole number per host")
        if array.min() < LEAST[name] or array.max() > MOST[name]:
            bad = int(np.argmax((array < LEAST[name]) | (array > MOST[name])))
            with _naming(names[bad]):
                whole_number(array[bad], name, least=LEAST[name], most=MOST[name])
        amounts[name] = array
    return amounts


def _seen(names: Sequence[str] | NDArray[Any], given: NDArray[np.floating[Any]]) -> NDArray[Any]:
    seen = check_array(given, "last_seen_up", (len(names),), "iuf", "one time per host")
    if not np.all(np.isfinite(seen)):
        bad = int(np.argmin(np.isfinite(seen)))
        with _naming(names[bad]):
            finite(seen[bad], "last_seen_up")
    return seen


@contextmanager
def _naming(host: Any) -> Iterator[None]:
    """Add the host to the message of an error that the body raises."""
    try:
        yield
    except HostlerError as error:
        raise of_host(error, host.decode() if isinstance(host, bytes) else str(host)) from None


__all__ = ["ARRAYS", "HostArrays", "add_hosts", "load_hosts"]
