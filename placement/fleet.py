"""The fleet: resource providers, hosts, inventories, consumers and server groups as columns, with a change log and versions.

It knows what is where and what is left; it decides nothing.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import os_resource_classes
from numpy.typing import NDArray

from ..ext import batch
from ..ext.tables import NameTable, UuidTable, format_uuid, make_many, parse_many, parse_uuid
from .branches import Change, History, Operation
from .columns import COLUMN, MAX_AMOUNT, ColumnStore
from .errors import CapacityExceeded, DuplicateName, InUse, InvalidValue, UnknownName
from .host import Aggregate, Host, NumaTopology, PciPool, Service
from .host_classes import HostClass, Interned
from .numa_table import NumaTable
from .pci import give_back, take

STANDARD_CLASSES: Final = frozenset(os_resource_classes.STANDARDS)
FIRST_CLASSES: Final = ("VCPU", "MEMORY_MB", "DISK_GB", "PCPU")
GROUP_POLICIES: Final = {"affinity": 1, "anti-affinity": 2, "soft-affinity": 3, "soft-anti-affinity": 4}
BUILDING: Final = 1
REPORTED: Final = 2
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a provider has of one resource class (Placement's fields; all integers at most 2**31 - 1)."""

    total: int
    reserved: int = 0
    min_unit: int = 1
    max_unit: int = MAX_AMOUNT
    step_size: int = 1
    allocation_ratio: float = 1.0

    def validated(self, field: str) -> Inventory:
        """This inventory, or InvalidValue naming the first bad field."""
        for name, least in (("total", 1), ("reserved", 0), ("min_unit", 1), ("max_unit", 1), ("step_size", 1)):
            whole_number(getattr(self, name), f"{field}.{name}", least=least)
        ratio(self.allocation_ratio, f"{field}.allocation_ratio")
        return self


def whole_number(value: object, field: str, *, least: int = 0, most: int = MAX_AMOUNT) -> int:
    """``value`` as an int within [least, most]; InvalidValue otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidValue(f"{field} must be a whole number, got {_shown(value)}", field=field)
    if not least <= value <= most:
        raise InvalidValue(f"{field} must be between {least} and {most}, got {_shown(value)}", field=field)
    return int(value)


def ratio(value: object, field: str) -> float:
    """``value`` as a finite float >= 0; InvalidValue otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InvalidValue(f"{field} must be a number, got {_shown(value)}", field=field)
    if not math.isfinite(value) or not 0 <= value <= 3.40282e38:
        raise InvalidValue(f"{field} must be finite and not negative, got {_shown(value)}", field=field)
    return float(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def uuid_words(text: object, field: str) -> tuple[int, int]:
    """A uuid's high and low 64 bits; InvalidValue if ``text`` is none."""
    if not isinstance(text, str):
        raise InvalidValue(f"{field} must be a uuid, got {_shown(text)}", field=field)
    try:
        high, low = parse_uuid(text)
    except ValueError:
        raise InvalidValue(f"{field} must be a uuid, got {_shown(text)}", field=field) from None
    return high, low


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer as the fleet holds it: ``resources`` it takes of ``provider``, ``elsewhere`` what it takes of other providers."""

    uuid: str
    provider: str
    resources: Mapping[str, int]
    project_id: str
    user_id: str
    server_group: str | None
    building: bool
    generation: int
    elsewhere: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Extras:
    """What a claim took besides its host's plain amounts: ``elsewhere`` = (row, resource class index, amount), the fitted NUMA
    cells, and the PCI pool state ids before and after."""

    elsewhere: tuple[tuple[int, int, int], ...] = ()
    numa: Any = None
    pci: tuple[Any, ...] = ()


class Tip:
    """Which version of the fleet an engine is at; ``version`` is None while the state itself is there."""

    __slots__ = ("__weakref__", "now", "version")

    def __init__(self) -> None:
        self.version: Any = None
        self.now = 0.0


class _RowEdit:
    """A row's columns and NUMA state, before and after."""

    __slots__ = ("after", "before", "fleet", "row")

    def __init__(self, fleet: Fleet, row: int, before: Any, after: Any) -> None:
        self.fleet, self.row, self.before, self.after = fleet, row, before, after

    def redo(self) -> None:
        self.fleet.restore_row(self.row, self.after)

    def undo(self) -> None:
        self.fleet.restore_row(self.row, self.before)


class _Consumers:
    """Consumers that were added together, or dropped together, in order."""

    __slots__ = ("added", "details", "fleet", "ids")

    def __init__(self, fleet: Fleet, ids: Sequence[int], details: list[Any] | None, *, added: bool) -> None:
        self.fleet, self.ids, self.details, self.added = fleet, ids, details, added

    def _drop(self) -> None:
        self.details = [self.fleet.drop_consumer_row(consumer) for consumer in reversed(self.ids)]
        self.ids = list(reversed(self.ids))

    def _add(self) -> None:
        assert self.details is not None
        for consumer, detail in zip(reversed(self.ids), reversed(self.details), strict=True):
            again = self.fleet.add_consumer_row(*detail)
            if again != consumer:
                raise RuntimeError("a consumer came back under another id")
        self.ids = list(reversed(self.ids))

    def redo(self) -> None:
        self._add() if self.added else self._drop()

    def undo(self) -> None:
        self._drop() if self.added else self._add()


class Fleet:
    """All providers of one scheduler. Not thread-safe. Rows are stable ids in load order; freed rows are used again.

    ``seed`` makes the uuids of providers that are loaded without one.
    """

    def __init__(self, *, seed: int = 0, capacity: int = 64) -> None:
        self.seed = whole_number(seed, "seed", most=2**63 - 1)
        self.store = ColumnStore(capacity=max(64, -(-capacity // 64) * 64))
        self.kernel = self.store.kernel
        self.history = History()
        self.names = NameTable()
        self.service_hosts = NameTable()
        self.providers = UuidTable()
        self.host_ips = NameTable()
        self.host_ips.intern("")
        self.resource_classes: list[str] = list(FIRST_CLASSES)
        self._class_index = {name: index for index, name in enumerate(self.resource_classes)}
        self._memberships: set[tuple[int, ...]] = set()
        self.classes: Interned[HostClass] = Interned()
        self.classes.id(HostClass())
        self.stats: Interned[tuple[tuple[str, str], ...]] = Interned()
        self.stats.id(())
        self.metrics: Interned[tuple[tuple[str, float], ...]] = Interned()
        self.metrics.id(())
        self.pci_states: Interned[str] = Interned()
        self._pci_pools: list[tuple[PciPool, ...]] = [()]
        self.pci_states.id(_pci_key(()))
        self.numa = NumaTable()
        self.aggregates: list[Aggregate] = []
        self._aggregate_index: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        self.group_uuids: list[str] = []
        self.projects: Interned[str] = Interned()
        self.users: Interned[str] = Interned()
        self.extras: dict[int, Extras] = {}
        self.image_properties: dict[int, Mapping[str, Any]] = {}
        self._shapes: dict[tuple[Any, ...], int] = {}
        self.row_of_service_host: NDArray[np.int32] = np.full(64, -1, np.int32)
        self.shared_service_hosts: dict[int, list[int]] = {}
        self.unit_rules: set[int] = set()
        self.static_epoch = 0
        self.has_pci = False
        self.topology_epoch = 0
        self.nested_classes: set[int] = set()
        self._trees: tuple[int, dict[int, list[int]], list[int]] = (-1, {}, [])
        self.now = 0.0
        self.service_down_time = 60
        self._tip: weakref.ref[Tip] | None = None
        self._cells: tuple[int, set[str | None]] = (-1, set())
        self._next_flip = math.inf

    # size and versions

    def __len__(self) -> int:
        """Number of providers."""
        return len(self.names)

    @property
    def rows(self) -> int:
        """Row ids are below this."""
        return self.store.rows

    @property
    def version(self) -> int:
        """Number of row changes so far; the change log's position."""
        return int(self.kernel.version)

    def column(self, name: str) -> NDArray[np.float64]:
        """Live view of a host column over all rows, float64[rows]."""
        return self.store.host[COLUMN[name], : self.rows]

    @property
    def is_host(self) -> NDArray[np.bool_]:
        """True for the rows that are compute hosts, bool[rows]. O(rows)."""
        by_class = np.fromiter((value.is_host for value in self.classes.values), bool, len(self.classes))
        return by_class[self.store.row["class_of"][: self.rows]]

    # which engine's version the state is at

    def adopt(self, tip: Tip) -> Tip:
        """The tip that the state is at: ``tip`` if there is none yet, else the one that other engines on this fleet share."""
        present = self._tip() if self._tip is not None else None
        if present is None:
            self._tip = weakref.ref(tip)
            return tip
        return present

    def share(self, tip: Tip) -> None:
        """Let ``tip`` start from the state as it is now."""
        tip.version, tip.now = self.history.hold(), self.now

    def enter(self, tip: Tip) -> None:
        """Bring the state to where ``tip`` left it. O(1) if it is there, else O(changes between)."""
        present = self._tip() if self._tip is not None else None
        if present is tip:
            return
        if present is not None:
            present.version, present.now = self.history.hold(), self.now
        self.history.go(tip.version)
        tip.version = None
        self._tip = weakref.ref(tip)
        if self.now != tip.now:
            self.now = tip.now
            self.judge_services()

    def cells(self) -> set[str | None]:
        """Cells of all hosts. O(classes) after new classes came, else O(1)."""
        if self._cells[0] != len(self.classes):
            self._cells = (len(self.classes), {value.cell_uuid for value in self.classes.values if value.is_host})
        return self._cells[1]

    # names

    def row(self, name: str, *, field: str = "provider") -> int:
        """Row of the provider named ``name`` (for hosts: the node name); UnknownName otherwise. O(1)."""
        row = self.names.find(name) if isinstance(name, str) else -1
        if row < 0:
            raise UnknownName(f"no provider is named {_shown(name)}", field=field)
        return int(row)

    def row_of_uuid(self, uuid: str, *, field: str = "provider") -> int:
        """Row of the provider with this uuid; UnknownName otherwise. O(1)."""
        uuid_words(uuid, field)
        row = self.providers.get(uuid)
        if row < 0:
            raise UnknownName(f"no provider has the uuid {uuid}", field=field)
        return int(row)

    def rows_of_service_host(self, host: str) -> list[int]:
        """Rows of the nodes of a service host, in row order; empty if there is none. O(1)."""
        index = self.service_hosts.find(host)
        if index < 0:
            return []
        several = self.shared_service_hosts.get(index)
        if several is not None:
            return list(several)
        row = int(self.row_of_service_host[index])
        return [row] if row >= 0 else []

    def name(self, row: int) -> str:
        return str(self.names.get(row))

    def service_host(self, row: int) -> str:
        """Service host of a row that is a host."""
        return str(self.service_hosts.get(int(self.store.row["service_host"][row])))

    def uuid(self, row: int) -> str:
        return format_uuid(int(self.store.row["uuid_hi"][row]), int(self.store.row["uuid_lo"][row]))

    def host_class(self, row: int) -> HostClass:
        """The static fields of a row."""
        return self.classes[int(self.store.row["class_of"][row])]

    def resource_class(self, name: str, *, create: bool = False) -> int:
        """Index of a resource class; a valid name that no provider has had yet is created or refused (UnknownName)."""
        index = self._class_index.get(name)
        if index is not None:
            return index
        if not isinstance(name, str) or not (name in STANDARD_CLASSES or os_resource_classes.is_custom(name)):
            raise UnknownName.among("resource class", str(name), STANDARD_CLASSES | set(self.resource_classes))
        if not create:
            raise UnknownName.among("resource class", name, self.resource_classes)
        if os_resource_classes.is_custom(name) and (
            len(name) > 255 or name != os_resource_classes.normalize_name(name[7:])
        ):
            raise InvalidValue(
                f"custom resource classes are CUSTOM_[A-Z0-9_]+, got {_shown(name)}", field="resource class"
            )
        index = self.store.add_class()
        self.resource_classes.append(name)
        self._class_index[name] = index
        return index

    # editing rows

    def image(self, row: int) -> tuple[Any, NumaTopology | None]:
        """Everything of a row that ``restore_row`` puts back."""
        return self.store.image(row), self.numa.get_row(row)

    def restore_row(self, row: int, image: tuple[Any, NumaTopology | None]) -> None:
        columns, topology = image
        seldom = self._seldom(row)
        self.store.restore(row, columns)
        self._note_seldom(row, seldom)
        self._set_numa(row, topology)
        self.topology_epoch += 1
        self.changed([row])

    def changed(self, rows: Sequence[int] | NDArray[np.int32]) -> None:
        """Log that the caller changed these rows."""
        self.kernel.mark_changed(np.ascontiguousarray(rows, dtype=np.int32))

    @contextmanager
    def editing(self, row: int) -> Iterator[None]:
        """Change one row's columns: logged, recorded for other versions, put back if the body raises."""
        before = self.image(row)
        try:
            yield
        except BaseException:
            self.restore_row(row, before)
            raise
        self._note_seldom(
            row, (float(before[0][0][COLUMN["hypervisor_version"]]), float(before[0][0][COLUMN["failed_builds"]]))
        )
        self.store.row["generation"][row] += 1
        self.changed([row])
        if self.history.recording:
            self.history.record(_RowEdit(self, row, before, self.image(row)))

    def _seldom(self, row: int) -> tuple[float, float]:
        """Columns that a compiled signature may take as constant."""
        host = self.store.host
        return float(host[COLUMN["hypervisor_version"], row]), float(host[COLUMN["failed_builds"], row])

    def _note_seldom(self, row: int, before: tuple[float, float]) -> None:
        if self._seldom(row) != before:
            self.static_epoch += 1

    def did(self, operation: Operation) -> None:
        """Note a change that was just made, for the versions that others hold."""
        self.history.record(operation)

    def class_id(self, value: HostClass) -> int:
        """Id of a host class. A combination of aggregates that is new may bring multipliers: compiled signatures are made anew."""
        if value.aggregates and value.aggregates not in self._memberships:
            self._memberships.add(value.aggregates)
            self.static_epoch += 1
        return self.classes.id(value)

    def reclass(self, row: int, **changes: Any) -> None:
        """Change static fields of a row, within ``editing``."""
        self.store.row["class_of"][row] = self.class_id(replace(self.host_class(row), **changes))

    def _set_numa(self, row: int, topology: NumaTopology | None) -> None:
        columns = self.store.host
        self.numa.set_row(
            row,
            topology,
            float(columns[COLUMN["cpu_allocation_ratio"], row]),
            float(columns[COLUMN["ram_allocation_ratio"], row]),
        )

    # clock

    def advance(self, now: float | None, service_down_time: int = 60) -> None:
        """Set the time that heartbeats are judged by (Nova 33 db service group: abs(now - last seen) <= service_down_time).

        O(1) while no service's verdict changes, else one pass over the rows.
        """
        now = self.now if now is None else now
        if now >= self.now and now <= self._next_flip and service_down_time == self.service_down_time:
            self.now = now
            return
        self.now, self.service_down_time = now, service_down_time
        self.judge_services()

    def judge_services(self) -> None:
        """Set ``service_up`` of all rows for the present time. O(rows)."""
        seen = self.store.host[COLUMN["last_seen_up"], : self.rows]
        down = np.fromiter((v.disabled or v.forced_down for v in self.classes.values), bool, len(self.classes))
        watched = ~np.isnan(seen)
        alive = ~watched | (np.abs(self.now - seen) <= self.service_down_time)
        up = alive & ~down[self.store.row["class_of"][: self.rows]]
        column = self.store.host[COLUMN["service_up"], : self.rows]
        flipped = np.flatnonzero(column != up).astype(np.int32)
        column[:] = up
        if len(flipped):
            self.changed(flipped)
        living = seen[watched & alive]
        beyond = seen[watched & (seen > self.now)]
        self._next_flip = float(living.min()) + self.service_down_time if len(living) else math.inf
        if len(beyond):
            # Services seen in the future come up as time nears them: look again at every advance.
            self._next_flip = -math.inf

    def watch_services(self, seen: NDArray[np.float64]) -> None:
        """Take note of heartbeats (seconds since the epoch) that were just loaded."""
        seen = seen[~np.isnan(seen)]
        alive = seen[np.abs(self.now - seen) <= self.service_down_time]
        if len(alive):
            self._next_flip = min(self._next_flip, float(alive.min()) + self.service_down_time)
        if np.any(seen > self.now):
            self._next_flip = -math.inf

    # shapes, projects, groups

    def shape(self, resources: Mapping[int, int], vcpus: int, memory_mb: int, disk_mb: int) -> int:
        """Id of what a consumer takes of its host: ``resources`` = {resource class index: amount}; the rest is what Nova's host
        figures lose (vCPUs, MiB, MiB). O(1) for known shapes."""
        key = (tuple(sorted(resources.items())), vcpus, memory_mb, disk_mb)
        known = self._shapes.get(key)
        if known is None:
            classes = np.array([index for index, _ in key[0]], np.int32)
            amounts = np.array([amount for _, amount in key[0]], np.int64)
            known = self._shapes[key] = self.kernel.add_shape(classes, amounts, vcpus, memory_mb, disk_mb)
        return known

    def add_server_group(self, uuid: str, policy: str, *, max_server_per_host: int = 1) -> None:
        """Keep a server group: its members are the consumers placed with its uuid."""
        uuid_words(uuid, "server_group.uuid")
        if policy not in GROUP_POLICIES:
            raise UnknownName.among("server group policy", str(policy), GROUP_POLICIES, field="server_group.policy")
        whole_number(max_server_per_host, "server_group.max_server_per_host", least=1)
        if uuid in self.groups:
            raise DuplicateName(f"server group {uuid} exists", field="server_group.uuid")

        def make() -> None:
            self.groups[uuid] = self.kernel.add_group(GROUP_POLICIES[policy], max_server_per_host)
            self.group_uuids.append(uuid)

        def unmake() -> None:
            self.kernel.drop_last_group()
            del self.groups[self.group_uuids.pop()]

        make()
        self.did(Change(make, unmake))

    def group_id(self, uuid: str) -> int:
        """Id of a kept server group; UnknownName otherwise."""
        try:
            return self.groups[uuid]
        except KeyError:
            raise UnknownName.among("server group", str(uuid), self.groups, field="server_group") from None

    # consumers

    def consumer_id(self, uuid: str, *, field: str = "consumer") -> int:
        """Dense id of a consumer; UnknownName if there is none. O(1)."""
        uuid_words(uuid, field)
        consumer = self.kernel.consumers.get(uuid)
        if consumer < 0:
            raise UnknownName(f"no consumer has the uuid {uuid}", field=field)
        return int(consumer)

    def consumer(self, uuid: str) -> Consumer:
        """A consumer as a value."""
        index = self.consumer_id(uuid)
        high, low, row, shape, project, user, group, flags, generation = self.kernel.consumer(index)
        resources: dict[str, int] = {}
        if shape >= 0:
            classes, amounts, *_ = self.kernel.shape(shape)
            resources = {self.resource_classes[c]: amount for c, amount in zip(classes, amounts, strict=True)}
        elsewhere: dict[str, dict[str, int]] = {}
        for other, resource, amount in self.extras.get(index, Extras()).elsewhere:
            elsewhere.setdefault(self.name(other), {})[self.resource_classes[resource]] = amount
        return Consumer(
            format_uuid(high, low),
            self.name(row),
            resources,
            self.projects[project],
            self.users[user],
            self.group_uuids[group] if group >= 0 else None,
            bool(flags & BUILDING),
            generation,
            elsewhere,
        )

    def add_consumer_row(
        self,
        words: tuple[int, int],
        row: int,
        shape: int,
        project: int,
        user: int,
        group: int,
        flags: int,
        extras: Extras | None,
        properties: Mapping[str, Any] | None,
    ) -> int:
        """Create a consumer with all that it takes, unrecorded. DuplicateName if its uuid exists."""
        try:
            consumer = int(self.kernel.add_consumer(*words, row, shape, project, user, group, flags))
        except KeyError:
            raise DuplicateName(f"consumer {format_uuid(*words)} exists", field="consumer") from None
        if extras is not None:
            self._take_extras(row, extras, 1)
            self.extras[consumer] = extras
        if properties:
            self.image_properties[consumer] = properties
        return consumer

    def drop_consumer_row(self, consumer: int) -> tuple[Any, ...]:
        """Remove a consumer and give everything back, unrecorded. Returns what ``add_consumer_row`` needs to undo it."""
        high, low, row, shape, project, user, group, flags, _ = self.kernel.consumer(consumer)
        extras = self.extras.pop(consumer, None)
        if extras is not None:
            self._take_extras(row, extras, -1)
        properties = self.image_properties.pop(consumer, None)
        self.kernel.drop_consumer(consumer)
        return (high, low), row, shape, project, user, group, flags, extras, properties

    def _take_extras(self, row: int, extras: Extras, sign: int) -> None:
        inventory = self.store.inventory
        for other, resource, amount in extras.elsewhere:
            inventory["used"][resource, other] += sign * amount
            self.store.refresh_limits(resource, other)
            self.store.row["generation"][other] += 1
            self.changed([other])
        if extras.numa is not None:
            if sign > 0:
                self.numa.consume(row, extras.numa)
            else:
                self.numa.release(row, extras.numa)
        if extras.pci:
            pools = self.pci_pools(row)
            self.set_pci_pools(row, (take if sign > 0 else give_back)(pools, extras.pci))
        self.changed([row])

    def claim(
        self,
        uuid: str,
        row: int,
        shape: int,
        *,
        project_id: str = "",
        user_id: str = "",
        group: int = -1,
        building: bool = False,
        extras: Extras | None = None,
        image_properties: Mapping[str, Any] | None = None,
    ) -> int:
        """Create consumer ``uuid`` on ``row``, taking ``shape`` and ``extras`` whether or not they fit (the caller has judged).

        Returns the consumer's dense id. DuplicateName if it exists. O(1).
        """
        words = uuid_words(uuid, "consumer")
        flags = BUILDING if building else 0
        detail = (
            words,
            row,
            shape,
            self.projects.id(project_id),
            self.users.id(user_id),
            group,
            flags,
            extras,
            image_properties,
        )
        consumer = self.add_consumer_row(*detail)
        self.did(_Consumers(self, [consumer], None, added=True))
        return consumer

    def placed(self, ids: Sequence[int]) -> None:
        """Note the consumers that a batch kernel added, in order."""
        if self.history.recording and len(ids):
            self.did(_Consumers(self, list(ids), None, added=True))

    def release(self, consumers: Iterable[int]) -> None:
        """Remove consumers (dense ids) and give back what they took."""
        ids = list(consumers)
        details = [self.drop_consumer_row(consumer) for consumer in ids]
        self.did(_Consumers(self, ids, details, added=False))

    def release_uuids(self, uuids: Sequence[str]) -> int:
        """Remove consumers by uuid; UnknownName, with nothing changed, if one is not there. Distinct uuids are the caller's part."""
        try:
            words = parse_many(uuids)
        except (ValueError, TypeError) as error:
            raise InvalidValue(f"consumers are named by uuids: {error}", field="consumer") from None
        ids = np.empty(len(words), np.int32)
        batch.find(self.kernel, words, ids)
        if len(ids) and ids.min() < 0:
            raise UnknownName(f"no consumer has the uuid {uuids[int(np.argmax(ids < 0))]}", field="consumer")
        if self.history.recording or self.extras or self.image_properties:
            self.release(int(consumer) for consumer in ids)
        else:
            batch.release(self.kernel, ids)
        return len(ids)

    def set_building(self, consumer: int, building: bool) -> None:
        """Count a consumer among its host's io operations, or no more (Nova: the instance has been spawned)."""
        was = bool(self.kernel.consumer(consumer)[7] & BUILDING)
        if was != building:
            self.kernel.set_building(consumer, building)
            self.did(
                Change(
                    lambda: self.kernel.set_building(consumer, building),
                    lambda: self.kernel.set_building(consumer, was),
                )
            )

    def fits_row(self, row: int, resources: Mapping[int, int]) -> bool:
        """Placement's rule for one provider: capacity, min_unit, max_unit and step_size of each class."""
        inventory = self.store.inventory
        for resource, amount in resources.items():
            if inventory["avail"][resource, row] < amount or amount < inventory["min_unit"][resource, row]:
                return False
            if amount % max(int(inventory["step_size"][resource, row]), 1):
                return False
        return True

    # PCI and instances

    def pci_pools(self, row: int) -> tuple[PciPool, ...]:
        """Free PCI devices of a row; empty where none are known."""
        return self._pci_pools[int(self.store.row["pci"][row])]

    def set_pci_pools(self, row: int, pools: Iterable[PciPool]) -> None:
        """Set a row's PCI pools, unrecorded, and what PCIWeigher reads: 100 - min(free devices, 99)."""
        state = tuple(pools)
        index = self.pci_states.id(_pci_key(state))
        if index == len(self._pci_pools):
            self._pci_pools.append(state)
        self.store.row["pci"][row] = index
        if state and not self.has_pci:
            self.has_pci = True
            self.static_epoch += 1
        free = sum(pool.count for pool in state)
        self.store.host[COLUMN["pci_weight"], row] = 100 - min(free, 99)

    def instances(self, row: int) -> dict[str, Mapping[str, Any]]:
        """uuid -> image properties of the consumers on the row's service host (all its nodes, as Nova tracks them)."""
        rows = self.shared_service_hosts.get(int(self.store.row["service_host"][row]), [row])
        found: dict[str, Mapping[str, Any]] = {}
        for each in rows:
            for consumer in self.kernel.consumers_on(each):
                high, low, *_ = self.kernel.consumer(consumer)
                found[format_uuid(high, low)] = self.image_properties.get(consumer, _NOTHING)
        return found

    # aggregates

    def aggregate_ids(self, aggregates: Iterable[Aggregate]) -> tuple[int, ...]:
        """Ids of aggregates, made known where they are new. InvalidValue if one differs from what is known of its uuid."""
        ids = []
        for aggregate in aggregates:
            index = self._aggregate_index.get(aggregate.uuid)
            if index is None:
                uuid_words(aggregate.uuid, "aggregate.uuid")
                index = self._aggregate_index[aggregate.uuid] = len(self.aggregates)
                self.aggregates.append(aggregate)
            elif self.aggregates[index] is not aggregate and self.aggregates[index] != aggregate:
                raise InvalidValue(
                    f"aggregate {aggregate.uuid} is known with another name or metadata",
                    field="aggregate",
                    hint="use update_aggregate",
                )
            ids.append(index)
        return tuple(ids)

    def aggregate(self, uuid: str) -> Aggregate:
        """The aggregate with this uuid; UnknownName otherwise."""
        try:
            return self.aggregates[self._aggregate_index[uuid]]
        except KeyError:
            raise UnknownName.among("aggregate", str(uuid), self._aggregate_index) from None

    def update_aggregate(self, aggregate: Aggregate) -> None:
        """Replace an aggregate's name and metadata. Every compiled signature is made anew. O(1) now, O(rows) at the next decision."""
        self.aggregate(aggregate.uuid)
        index = self._aggregate_index[aggregate.uuid]
        before = self.aggregates[index]

        def put(value: Aggregate) -> None:
            self.aggregates[index] = value
            self.static_epoch += 1

        put(aggregate)
        self.did(Change(lambda: put(aggregate), lambda: put(before)))

    def set_aggregates(self, name: str, aggregates: Iterable[Aggregate]) -> None:
        """Say which aggregates a provider is in."""
        row = self.row(name)
        ids = self.aggregate_ids(aggregates)
        with self.editing(row):
            self.reclass(row, aggregates=ids)

    # cold edits of providers and hosts

    def set_traits(self, name: str, traits: Iterable[str]) -> None:
        """Replace a provider's traits. UnknownName for a trait that is neither standard nor CUSTOM_."""
        row = self.row(name)
        known = frozenset(check_trait(trait) for trait in traits)
        with self.editing(row):
            self.reclass(row, traits=known)
        self.topology_epoch += 1

    def set_inventory(self, name: str, inventories: Mapping[str, Inventory]) -> None:
        """Replace a provider's inventories. InUse if a class that is left out has usage."""
        row = self.row(name)
        new = {}
        for resource, inventory in inventories.items():
            checked = inventory.validated(f"inventory.{resource}")
            new[self.resource_class(resource, create=True)] = checked
        used = self.store.inventory["used"]
        for index in range(len(self.resource_classes)):
            if index not in new and used[index, row]:
                raise InUse(f"{name} has {used[index, row]} {self.resource_classes[index]} in use", field="inventory")
        with self.editing(row):
            for index in range(len(self.resource_classes)):
                self.put_inventory(row, index, new.get(index))

    def put_inventory(self, row: int, resource: int, inventory: Inventory | None) -> None:
        """Write one inventory, checked before, within ``editing``; None removes it."""
        blocks = self.store.inventory
        for field in ("total", "reserved", "min_unit", "max_unit", "step_size"):
            blocks[field][resource, row] = 0 if inventory is None else getattr(inventory, field)
        self.store.ratio[resource, row] = 0.0 if inventory is None else inventory.allocation_ratio
        if inventory is not None and not self.host_class(row).is_host and resource not in self.nested_classes:
            self.nested_classes.add(resource)
            self.static_epoch += 1
        if inventory is not None and (inventory.min_unit > 1 or inventory.step_size > 1):
            self.need_unit_rules(resource)
        self.store.refresh_limits(resource, row)

    def need_unit_rules(self, resource: int) -> None:
        """From now on min_unit and step_size of this class are looked at."""
        if resource not in self.unit_rules:
            self.unit_rules.add(resource)
            self.static_epoch += 1

    def inventory(self, name: str) -> dict[str, tuple[Inventory, int]]:
        """{resource class: (inventory, used)} of a provider."""
        row = self.row(name)
        blocks, found = self.store.inventory, {}
        for index, resource in enumerate(self.resource_classes):
            if blocks["total"][index, row] > 0:
                figures = {
                    f: int(blocks[f][index, row]) for f in ("total", "reserved", "min_unit", "max_unit", "step_size")
                }
                ratio = float(self.store.ratio[index, row])
                found[resource] = (Inventory(**figures, allocation_ratio=ratio), int(blocks["used"][index, row]))
        return found

    def set_service(
        self,
        name: str,
        *,
        disabled: bool | None = None,
        disabled_reason: str | None = None,
        forced_down: bool | None = None,
    ) -> None:
        """Enable, disable or force down a host's compute service."""
        row = self.row(name, field="host")
        changes: dict[str, Any] = {}
        if disabled is not None:
            changes.update(disabled=bool(disabled), disabled_reason=disabled_reason if disabled else None)
        if forced_down is not None:
            changes["forced_down"] = bool(forced_down)
        with self.editing(row):
            self.reclass(row, **changes)
            self._judge_service(row)

    def heartbeat(self, name: str, at: float) -> None:
        """A host's compute service reported at ``at`` (seconds since the epoch)."""
        row = self.row(name, field="host")
        seen = finite(at, "heartbeat")
        with self.editing(row):
            self.store.host[COLUMN["last_seen_up"], row] = seen
            self._judge_service(row)

    def _judge_service(self, row: int) -> None:
        host = self.host_class(row)
        seen = float(self.store.host[COLUMN["last_seen_up"], row])
        alive = math.isnan(seen) or abs(self.now - seen) <= self.service_down_time
        self.store.host[COLUMN["service_up"], row] = alive and not host.disabled and not host.forced_down
        if not math.isnan(seen):
            self._next_flip = -math.inf if seen > self.now else min(self._next_flip, seen + self.service_down_time)

    def report(self, name: str, **figures: float) -> None:
        """Load what a compute node reports, as such: free_ram_mb, free_disk_mb (MiB), vcpus_used, num_io_ops, num_instances,
        failed_builds. Weighers read these; what fits is still decided by the allocations."""
        row = self.row(name, field="host")
        allowed = ("free_ram_mb", "free_disk_mb", "vcpus_used", "num_io_ops", "num_instances", "failed_builds")
        for figure, value in figures.items():
            if figure not in allowed:
                raise UnknownName.among("reported figure", figure, allowed)
            finite(value, figure)
        with self.editing(row):
            for figure, value in figures.items():
                self.store.host[COLUMN[figure], row] = value
            self.refresh_free_vcpus(row)

    def refresh_free_vcpus(self, rows: int | slice) -> None:
        """free_vcpus = vcpus_total * cpu_allocation_ratio - vcpus_used (Nova 33 CPUWeigher)."""
        host = self.store.host
        total, used = host[COLUMN["vcpus_total"], rows], host[COLUMN["vcpus_used"], rows]
        host[COLUMN["free_vcpus"], rows] = total * host[COLUMN["cpu_allocation_ratio"], rows] - used

    def drift(self) -> NDArray[np.int32]:
        """Rows of hosts whose reported free memory, disk or used vCPUs differ from what their allocations say. O(rows)."""
        host, blocks, rows = self.store.host, self.store.inventory, self.rows
        left = {
            index: blocks["total"][index, :rows] - blocks["reserved"][index, :rows] - blocks["used"][index, :rows]
            for index in range(3)
        }
        differs = host[COLUMN["vcpus_used"], :rows] != blocks["used"][0, :rows]
        differs |= host[COLUMN["free_ram_mb"], :rows] != left[1]
        differs |= np.floor(host[COLUMN["free_disk_mb"], :rows] / 1024) != left[2]
        return np.flatnonzero(differs & self.is_host).astype(np.int32)

    # adding and removing providers

    def add_provider(
        self,
        name: str,
        *,
        uuid: str | None = None,
        parent: str | None = None,
        traits: Iterable[str] = (),
        aggregates: Iterable[Aggregate] = (),
    ) -> int:
        """Add a resource provider that is no compute host: a child (NUMA cell, physical GPU), a sharing provider or a pool.

        Returns its row. DuplicateName, UnknownName or InvalidValue, with nothing changed, for bad input.
        """
        above = self.row(parent, field="parent") if parent is not None else -1
        known = frozenset(check_trait(trait) for trait in traits)
        ids = self.aggregate_ids(aggregates)
        words = uuid_words(uuid, "uuid") if uuid is not None else None
        row = self.add_rows([name], None if words is None else np.array([words], np.uint64))
        self.store.row["parent"][row] = above
        self.store.row["root"][row] = row if above < 0 else int(self.store.row["root"][above])
        self.store.row["class_of"][row] = self.class_id(HostClass(traits=known, aggregates=ids))
        self.topology_epoch += 1
        self.changed([row])
        return row

    def set_parent(self, name: str, parent: str | None) -> None:
        """Re-parent a provider (None: it becomes a root). InvalidValue if that makes a cycle. O(rows)."""
        row = self.row(name)
        above = self.row(parent, field="parent") if parent is not None else -1
        parents, roots = self.store.row["parent"], self.store.row["root"]
        step = above
        while step >= 0:
            if step == row:
                raise InvalidValue(
                    f"{parent} is {name} itself or below it: a provider tree has no cycles", field="parent"
                )
            step = int(parents[step])
        tree = [r for r in np.flatnonzero(roots[: self.rows] == roots[row]) if r == row or self._is_below(int(r), row)]
        root = row if above < 0 else int(roots[above])
        with self.editing(row):
            parents[row] = above
            roots[row] = root
            self.topology_epoch += 1
        for below in tree:
            if below != row:
                with self.editing(int(below)):
                    roots[below] = root

    def tree(self, root: int) -> list[int]:
        """Rows of the tree below a root, the root first, then in row order. O(1) while no provider comes, goes or moves."""
        return self._topology()[0].get(root, [root])

    def sharing_providers(self) -> list[int]:
        """Rows with the trait MISC_SHARES_VIA_AGGREGATE. O(1) while no provider comes, goes or moves."""
        return self._topology()[1]

    def _topology(self) -> tuple[dict[int, list[int]], list[int]]:
        if self._trees[0] != self.topology_epoch:
            roots = self.store.row["root"][: self.rows]
            trees: dict[int, list[int]] = {}
            for row in np.flatnonzero(roots != np.arange(self.rows)):
                trees.setdefault(int(roots[row]), [int(roots[row])]).append(int(row))
            sharing = np.fromiter(
                ("MISC_SHARES_VIA_AGGREGATE" in v.traits for v in self.classes.values), bool, len(self.classes)
            )
            shared = np.flatnonzero(sharing[self.store.row["class_of"][: self.rows]])
            self._trees = (self.topology_epoch, trees, [int(row) for row in shared])
        return self._trees[1], self._trees[2]

    def _is_below(self, row: int, ancestor: int) -> bool:
        parents = self.store.row["parent"]
        while row >= 0:
            if row == ancestor:
                return True
            row = int(parents[row])
        return False

    def add_rows(self, names: Sequence[str], uuids: NDArray[np.uint64] | None) -> int:
        """Hand out rows for providers, contiguous at the end (or one freed row), cleared, each its own root. Returns the first.

        DuplicateName or InvalidValue with nothing changed.
        """
        for name in names if len(names) == 1 else ():
            check_name(name, "name")
        try:
            first = int(self.names.add(names[0]) if len(names) == 1 else self.names.add_many(names))
        except KeyError as error:
            raise DuplicateName(f"provider {_shown(error.args[0])} exists", field="name") from None
        count = len(names)
        rows = max(self.rows, first + count)
        self.store.reserve(rows)
        if uuids is None:
            uuids = make_many(self.seed, first, count)
        try:
            self.providers.add_many(uuids, np.arange(first, first + count, dtype=np.int32))
        except KeyError as error:
            for row in reversed(range(first, first + count)):
                self.names.discard(row)
            raise DuplicateName(f"a provider has the uuid {_shown(error.args[0])}", field="uuid") from None
        before = self.rows
        self.store.set_rows(rows)
        span = slice(first, first + count)
        self.store.row["uuid_hi"][span] = uuids[:, 0]
        self.store.row["uuid_lo"][span] = uuids[:, 1]
        self.store.row["parent"][span] = -1
        self.store.row["root"][span] = np.arange(first, first + count)
        self.store.row["first"][span] = -1
        self.store.row["service_host"][span] = -1
        if self.history.recording:
            self.did(_Rows(self, first, list(names), before))
        return first

    def remove_provider(self, name: str) -> None:
        """Remove a provider. InUse if it has consumers, usage by consumers, or children. O(rows)."""
        row = self.row(name)
        if self.store.row["first"][row] >= 0:
            raise InUse(
                f"{name} has {len(self.kernel.consumers_on(row))} consumers", field="provider", hint="move them first"
            )
        blocks = self.store.inventory
        if np.any(blocks["used"][:, row] != blocks["base"][:, row]):
            raise InUse(f"{name} has allocations", field="provider", hint="release them first")
        children = np.flatnonzero(self.store.row["parent"][: self.rows] == row)
        if len(children):
            raise InUse(f"{name} has {len(children)} child providers", field="provider", hint="remove them first")
        operation = _Removal(self, row)
        operation.redo()
        self.did(operation)

    def nbytes(self) -> int:
        """Bytes of the columns, names and uuids (the ranked indices of an engine come on top)."""
        tables = [self.names.to_arrays(), self.service_hosts.to_arrays()]
        names = sum(array.nbytes for table in tables for array in table.values())
        return self.store.nbytes + names + 2 * 16 * max(len(self), 1)

    def link_service_host(self, row: int, index: int) -> None:
        """Let service host ``index`` have the node at ``row``."""
        if index >= len(self.row_of_service_host):
            wider = np.full(max(index + 1, 2 * len(self.row_of_service_host)), -1, np.int32)
            wider[: len(self.row_of_service_host)] = self.row_of_service_host
            self.row_of_service_host = wider
        self.store.row["service_host"][row] = index
        present = int(self.row_of_service_host[index])
        if present < 0:
            self.row_of_service_host[index] = row
        elif present != row:
            several = self.shared_service_hosts.setdefault(index, [present])
            if row not in several:
                several.append(row)
                several.sort()

    def unlink_service_host(self, row: int) -> None:
        """Undo ``link_service_host``."""
        index = int(self.store.row["service_host"][row])
        if index < 0:
            return
        several = self.shared_service_hosts.get(index)
        if several is not None:
            several.remove(row)
            self.row_of_service_host[index] = several[0]
            if len(several) == 1:
                del self.shared_service_hosts[index]
        else:
            self.row_of_service_host[index] = -1


class _Rows:
    """Rows that were handed out together."""

    def __init__(self, fleet: Fleet, first: int, names: list[str], rows_before: int) -> None:
        self.fleet, self.first, self.names, self.rows_before = fleet, first, names, rows_before
        self.images: list[Any] = []

    def undo(self) -> None:
        fleet = self.fleet
        self.images = []
        for row in range(self.first, self.first + len(self.names)):
            self.images.append((fleet.image(row), fleet.uuid(row)))
            fleet.unlink_service_host(row)
            fleet.providers.pop(fleet.uuid(row))
            fleet._set_numa(row, None)
            fleet.store.clear(row)
        for row in reversed(range(self.first, self.first + len(self.names))):
            fleet.names.discard(row)
        fleet.changed(np.arange(self.first, self.first + len(self.names), dtype=np.int32))

    def redo(self) -> None:
        fleet = self.fleet
        for row, (name, (image, uuid)) in enumerate(zip(self.names, self.images, strict=True), self.first):
            if fleet.names.add(name) != row:
                raise RuntimeError("a provider came back under another row")
            fleet.providers.add(uuid, row)
            fleet.restore_row(row, image)
            index = int(fleet.store.row["service_host"][row])
            if index >= 0:
                fleet.link_service_host(row, index)


class _Removal:
    """A provider's removal."""

    def __init__(self, fleet: Fleet, row: int) -> None:
        self.fleet, self.row = fleet, row
        self.name, self.uuid, self.image = fleet.name(row), fleet.uuid(row), fleet.image(row)

    def redo(self) -> None:
        fleet, row = self.fleet, self.row
        fleet.unlink_service_host(row)
        fleet.providers.pop(self.uuid)
        fleet.names.discard(row)
        fleet._set_numa(row, None)
        fleet.store.clear(row)
        fleet.changed([row])

    def undo(self) -> None:
        fleet, row = self.fleet, self.row
        if fleet.names.add(self.name) != row:
            raise RuntimeError("a provider came back under another row")
        fleet.providers.add(self.uuid, row)
        fleet.restore_row(row, self.image)
        index = int(fleet.store.row["service_host"][row])
        if index >= 0:
            fleet.link_service_host(row, index)


def _pci_key(pools: Iterable[PciPool]) -> str:
    return json.dumps([[pool.count, pool.numa_node, dict(pool.tags)] for pool in pools], sort_keys=True, default=str)


def finite(value: object, field: str) -> float:
    """``value`` as a finite float; InvalidValue otherwise."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float, np.integer, np.floating))
        or not math.isfinite(value)
    ):
        raise InvalidValue(f"{field} must be a finite number, got {_shown(value)}", field=field)
    return float(value)


def check_name(name: object, field: str) -> str:
    """``name`` if it can name a provider: 1 to 200 characters, no control characters; InvalidValue otherwise."""
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise InvalidValue(f"{field} must be 1 to 200 printable characters, got {_shown(name)}", field=field)
    return name


def check_trait(name: str) -> str:
    """``name`` if it is a standard or a CUSTOM_ trait; UnknownName otherwise."""
    import os_traits

    standard = frozenset(os_traits.get_traits())
    if name in standard or (isinstance(name, str) and os_traits.is_custom(name) and len(name) <= 255):
        return name
    raise UnknownName.among("trait", str(name), standard)


__all__ = ["CapacityExceeded", "Consumer", "Extras", "Fleet", "Host", "Inventory", "Service"]
