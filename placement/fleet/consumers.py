"""Consumers and their allocations, and the effect of claims and releases on the columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...ext import batch
from ...ext.constants import BUILDING, NOT_INSTANCE
from ...ext.fleet_state import find_uuids, listed_before, relist
from ...ext.tables import format_uuid, parse_many
from ..devices.pci import give_back, take
from ..numa.fit import FittedNuma
from ..types.errors import DuplicateName, InvalidValue, UnknownName
from ..types.host import PciPool
from ..types.host_classes import Interned
from ..types.moves import PendingMove
from ..types.validation import uuid_words
from .change_log import ChangeLog, rows_array
from .elsewhere import Elsewhere
from .interned_pci import PciStates
from .moves_under_way import MovesUnderWay
from .providers import Providers

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Extras:
    """Resources of a claim besides the plain amounts on its host: ``elsewhere`` = (row, resource class index, amount)
    of other providers, the fitted NUMA cells, and the PCI devices as pools."""

    elsewhere: tuple[tuple[int, int, int], ...] = ()
    numa: FittedNuma | None = None
    pci: tuple[PciPool, ...] = ()


class Note(NamedTuple):
    """Attributes of a consumer in Placement's API besides its allocations. ``updated``: seconds since the epoch."""

    generation: int
    consumer_type: str | None
    updated: float


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer as a value: ``resources`` it takes of ``provider``, ``elsewhere`` what it takes of other providers."""

    uuid: str
    provider: str
    resources: Mapping[str, int]
    project_id: str
    user_id: str
    server_group: str | None
    building: bool
    generation: int
    elsewhere: Mapping[str, Mapping[str, int]]


class Detail(NamedTuple):
    """All fields of a consumer except its id."""

    words: tuple[int, int]
    row: int
    shape: int
    project: int
    user: int
    group: int
    flags: int
    extras: Extras | None = None
    properties: Mapping[str, Any] | None = None
    note: Note | None = None
    missing: float | None = None
    """When a report first left it out, seconds since the epoch."""


class Entry(NamedTuple):
    """A consumer that does not exist in the current version. ``newer``: the next newer consumer on its row (-1: none);
    ``states``: the row's PCI states without and with it, None if it has no devices."""

    consumer: int
    detail: Detail
    newer: int
    states: tuple[int, int] | None


class Consumers:
    """Consumers by dense id. The kernel stores the fields that all of them have, dictionaries those that few have."""

    def __init__(self, change_log: ChangeLog, providers: Providers, pci: PciStates) -> None:
        self._change_log, self._providers, self._pci = change_log, providers, pci
        self._kernel, self.counts_once, self.counts_standing = change_log.kernel, True, True
        self.projects: Interned[str] = Interned()
        self.users: Interned[str] = Interned()
        self.extras: dict[int, Extras] = {}
        self.image_properties: dict[int, Mapping[str, Any]] = {}
        self.notes: dict[int, Note] = {}
        self.elsewhere = Elsewhere(change_log)
        self.missing: dict[int, float] = {}
        """Consumers that the last report of their host left out, and when a report first did."""
        self.also_on: dict[int, dict[str, Mapping[str, Any]]] = {}
        """By row: uuid -> image properties of instances whose consumer is on another row (a migration's two ends)."""
        self.moves = MovesUnderWay()
        """Moves under way, by instance. Reports are read with them where ``counts_once``, as old journals were not."""
        self._figures: NDArray[np.float64] = np.zeros((0, 3))
        self.shapes: dict[tuple[tuple[tuple[int, int], ...], int, int, int], int] = {}

    def shape(self, resources: Mapping[int, int], vcpus: int, memory_mb: int, disk_mb: int) -> int:
        """Id of the resources that a consumer takes on its host: ``resources`` = {resource class index: amount}; the
        other arguments are subtracted from Nova's HostState columns (vCPUs, MiB, MiB). O(1) for known shapes."""
        key = (tuple(sorted(resources.items())), vcpus, memory_mb, disk_mb)
        known = self.shapes.get(key)
        if known is None:
            classes = np.array([index for index, _ in key[0]], np.int32)
            amounts = np.array([amount for _, amount in key[0]], np.int64)
            known = self.shapes[key] = self._kernel.add_shape(classes, amounts, vcpus, memory_mb, disk_mb)
        return known

    def keep_shapes(self, numbers: list[int]) -> None:
        """Forget the shapes whose new number is -1 and give the others theirs, as the kernel did. O(shapes)."""
        left = {key: numbers[shape] for key, shape in self.shapes.items() if numbers[shape] >= 0}
        self.shapes.clear()
        self.shapes.update(left)
        self._figures = self._figures[:0]

    def shape_figures(self) -> NDArray[np.float64]:
        """vCPUs, memory and disk (MiB) that each shape takes of its host's figures, float64 [shapes, 3]; a line of
        zeros where there is none. O(new shapes)."""
        known = len(self._figures)
        if known < len(self.shapes) or not known:
            lines = [self._kernel.shape(shape)[2:] for shape in range(known, len(self.shapes))]
            self._figures = np.concatenate([self._figures, np.array(lines, np.float64).reshape(-1, 3)])
        return self._figures if len(self._figures) else np.zeros((1, 3))

    def id(self, uuid: str, field: str = "consumer") -> int:
        """Dense id of a consumer; UnknownName if there is none. O(1)."""
        uuid_words(uuid, field)
        consumer = self._kernel.consumers.get(uuid)
        if consumer < 0:
            raise UnknownName(f"no consumer has the uuid {uuid}", field=field)
        return consumer

    def find(self, uuids: Sequence[str]) -> NDArray[np.int32]:
        """Dense ids of consumers, -1 where there is none; InvalidValue for a malformed uuid. O(consumers)."""
        try:
            words = parse_many(uuids)
        except (ValueError, TypeError):
            for uuid in uuids:
                uuid_words(uuid, "consumer")
            raise
        return find_uuids(self._kernel.consumers, words)

    def ids(self, uuids: Sequence[str]) -> NDArray[np.int32]:
        """Dense ids of consumers; InvalidValue for a malformed uuid, UnknownName for an unknown one. O(consumers)."""
        try:
            words = parse_many(uuids)
        except (ValueError, TypeError) as error:
            raise InvalidValue(f"consumers must be given by uuid: {error}", field="consumer") from None
        ids = find_uuids(self._kernel.consumers, words)
        if len(ids) and ids.min() < 0:
            raise UnknownName(f"no consumer has the uuid {uuids[int(np.argmin(ids))]}", field="consumer")
        return ids

    def value(self, consumer: int, classes: Sequence[str], groups: Sequence[str]) -> Consumer:
        """A consumer as a value; ``classes`` are the names of resource classes, ``groups`` the uuids of server groups,
        by id. O(1)."""
        high, low, row, shape, project, user, group, flags, generation = self._kernel.consumer(consumer)
        resources, amounts, *_ = self._kernel.shape(shape) if shape >= 0 else ((), ())
        if consumer in self.notes:
            generation = self.notes[consumer].generation
        elsewhere: dict[str, dict[str, int]] = {}
        for other, resource, amount in self.extras.get(consumer, Extras()).elsewhere:
            elsewhere.setdefault(self._providers.names.get(other), {})[classes[resource]] = amount
        return Consumer(
            uuid=format_uuid(high, low),
            provider=self._providers.names.get(row),
            resources={classes[index]: amount for index, amount in zip(resources, amounts, strict=True)},
            project_id=self.projects[project],
            user_id=self.users[user],
            server_group=(groups[group] or None) if group >= 0 else None,
            building=bool(flags & BUILDING),
            generation=generation,
            elsewhere=elsewhere,
        )

    def on(self, row: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(uuid, image properties) of a row's instances, newest first, then of those on two rows. O(consumers here)."""
        doubled = sorted(self.elsewhere.get(row, ())) if self.counts_standing else ()
        for consumer in (*self._kernel.consumers_on(row), *doubled):
            high, low, _, _, _, _, _, flags, _ = self._kernel.consumer(consumer)
            if not flags & NOT_INSTANCE:
                yield format_uuid(high, low), self.image_properties.get(consumer, _NOTHING)
        yield from self.also_on.get(row, _NOTHING).items()

    # commands

    def claim(self, detail: Detail) -> int:
        """Create a consumer and charge its resources, without a capacity check; returns its id. O(1).

        DuplicateName if its uuid exists; CapacityExceeded or InvalidValue if its NUMA cells or PCI devices are not
        free. Nothing is changed then.
        """
        states = None
        if detail.extras is not None and detail.extras.pci:
            before = self._pci.of(detail.row)
            states = (self._state(detail.row), self._pci.id(take(before, detail.extras.pci)))
        consumer = self.enter(detail, states)
        self._change_log.record(_Added(self, [consumer], {} if states is None else {consumer: states}))
        return consumer

    def claim_many(self, details: Iterable[Detail]) -> None:
        """Create consumers with plain amounts, on other providers as well, but without NUMA cells or PCI devices; all
        or none. DuplicateName if a uuid exists. O(consumers)."""
        ids: list[int] = []
        extras: dict[int, Extras] = {}
        try:
            for detail in details:
                consumer = self._add(detail)
                ids.append(consumer)
                if detail.extras is not None:
                    extras[consumer] = detail.extras
        except BaseException:
            _Added(self, ids, {}).undo()
            raise
        self._spread(extras)
        self.placed(ids)

    def placed(self, ids: Sequence[int] | NDArray[np.int32]) -> None:
        """Record consumers without extras that were added in this order. O(1)."""
        if len(ids) and self._change_log.history.recording:
            self._change_log.record(_Added(self, ids, {}))

    def release(self, ids: Sequence[int]) -> None:
        """Remove consumers and return their resources. InvalidValue, with nothing changed, if one is given twice, or
        holds NUMA cells that are not in use. O(consumers)."""
        if len(set(ids)) < len(ids):
            raise InvalidValue("a consumer is named twice", field="consumer")
        for consumer in ids:
            self._kernel.check_consumer(consumer)
        dropped = _Dropped(self, [])
        try:
            for consumer in ids:
                dropped.entries.append(self.leave(consumer, self._states_of(consumer)))
        except BaseException:
            dropped.undo()
            raise
        self._change_log.record(dropped)

    def release_uuids(self, uuids: Sequence[str]) -> int:
        """Remove consumers by uuid; returns their number. UnknownName or InvalidValue, with nothing changed, if one
        does not exist or is given twice. O(consumers)."""
        ids = self.ids(uuids)
        if self._change_log.history.recording or self.extras or self.image_properties or self.notes or self.missing:
            self.release(ids.tolist())
            return len(ids)
        try:
            batch.release(self._kernel, ids)
        except ValueError:
            raise InvalidValue("a consumer is named twice", field="consumer") from None
        return len(ids)

    def set_building(self, consumer: int, building: bool) -> None:
        """Count a consumer among its host's I/O operations, or stop counting it (in Nova: the instance has been
        spawned). O(1)."""
        was = bool(self._kernel.consumer(consumer)[7] & BUILDING)
        if was != building:
            put = partial(self._kernel.set_building, consumer)
            self._change_log.make(partial(put, building), partial(put, was))

    def mark(self, ids: Sequence[int], shapes: Sequence[int], flags: Sequence[int]) -> None:
        """Say what consumers take and their flags; the columns stay as they are. O(consumers)."""
        if not len(ids):
            return
        before = [self._kernel.consumer(consumer) for consumer in ids]
        after = list(zip(ids, shapes, flags, strict=True))
        former = [(consumer, line[3], line[7]) for consumer, line in zip(ids, before, strict=True)]
        self._change_log.make(partial(self._mark, after), partial(self._mark, former))

    def _mark(self, lines: Sequence[tuple[int, int, int]]) -> None:
        for consumer, shape, flags in lines:
            self._kernel.set_consumer(consumer, shape, flags)

    def miss(self, changes: Mapping[int, float | None]) -> None:
        """Note since when reports leave consumers out; None: they do no more. O(changes)."""
        put, before = partial(_put_each, self.missing), {consumer: self.missing.get(consumer) for consumer in changes}
        self._change_log.make(partial(put, changes), partial(put, before))

    def rename(self, consumer: int, words: tuple[int, int]) -> None:
        """Give a consumer another uuid, which none has. O(1)."""
        before = self._kernel.consumer(consumer)[:2]
        put = partial(self._kernel.rename_consumer, consumer)
        self._change_log.make(partial(put, *words), partial(put, *before))

    def put_note(self, consumer: int, note: Note | None) -> None:
        """Say what Placement's API tells of a consumer; None: what follows from the kernel. O(1)."""
        put, before = partial(_put_each, self.notes), self.notes.get(consumer)
        self._change_log.make(partial(put, {consumer: note}), partial(put, {consumer: before}))

    def put_move(self, uuid: str, move: PendingMove | None) -> None:
        """Remember the move of an instance, or (None) forget it. O(1)."""
        put = partial(self.moves.put, uuid)
        self._change_log.make(partial(put, move), partial(put, self.moves.get(uuid)))

    def stand_on(self, row: int, instances: Mapping[str, Mapping[str, Any]]) -> None:
        """Say which instances stand on a row whose consumers are on other rows. O(1)."""
        before = self.also_on.get(row)
        if (before or {}) != instances:
            put = partial(_put_each, self.also_on)
            self._change_log.make(partial(put, {row: dict(instances) or None}), partial(put, {row: before}))
            self._change_log.changed(rows_array(row))

    def put_extras(self, consumer: int, extras: Extras | None) -> None:
        """Replace the NUMA cells and devices that a consumer is known to hold; the row stays as it is, and
        ``elsewhere`` may not change. O(1)."""
        before = self.extras.get(consumer)
        if before != extras:
            put = self._put_extras
            self._change_log.make(partial(put, consumer, extras), partial(put, consumer, before))

    def _put_extras(self, consumer: int, extras: Extras | None) -> None:
        before = self.extras.get(consumer)
        held = (extras is not None and bool(extras.pci)) - (before is not None and bool(before.pci))
        self._change_log.constants.count_devices(held)
        _put_each(self.extras, {consumer: extras})
        self._change_log.settle()

    # coming and going, unrecorded

    def enter(self, detail: Detail, states: tuple[int, int] | None) -> int:
        """Create a consumer with all its resources; the row gets the second of the PCI ``states``. DuplicateName or
        InvalidValue, with nothing changed. O(1)."""
        extras = detail.extras
        if extras is not None and extras.numa is not None:
            self._providers.numa.consume(detail.row, extras.numa)
        try:
            consumer = self._add(detail)
        except BaseException:
            if extras is not None and extras.numa is not None:
                self._providers.numa.release(detail.row, extras.numa)
            raise
        if extras is not None:
            self.keep_extras(consumer, extras)
            self._take(detail.row, extras, states, 1)
        return consumer

    def _add(self, detail: Detail) -> int:
        """Create a consumer with all but its extras."""
        (high, low), row, shape, project, user, group, flags, _, properties, note, missing = detail
        try:
            consumer = self._kernel.add_consumer(high, low, row, shape, project, user, group, flags)
        except KeyError:
            raise DuplicateName(f"consumer {format_uuid(high, low)} exists", field="consumer") from None
        if properties:
            self.image_properties[consumer] = properties
        if note is not None:
            self.notes[consumer] = note
        if missing is not None:
            self.missing[consumer] = missing
        return consumer

    def _spread(self, extras: Mapping[int, Extras]) -> None:
        """Charge what consumers take on other providers, all at once."""
        for consumer, each in extras.items():
            self.keep_extras(consumer, each)
        taken = np.array([part for each in extras.values() for part in each.elsewhere], np.int64).reshape(-1, 3)
        if not len(taken):
            return
        store = self._change_log.store
        for resource in np.unique(taken[:, 1]).tolist():
            rows, amounts = taken[taken[:, 1] == resource][:, [0, 2]].T
            np.add.at(store.inventory["used"][resource], rows, amounts)
            store.refresh_limits(resource, np.unique(rows).astype(np.int32))
        touched = np.array([row for each in extras.values() for row in {row for row, _, _ in each.elsewhere}], np.int32)
        np.add.at(store.row["generation"], touched, 1)
        self._change_log.changed(touched)

    def keep_extras(self, consumer: int, extras: Extras) -> None:
        """Record what a consumer takes besides the plain amounts on its host. O(its providers)."""
        self.extras[consumer] = extras
        for other, _, _ in extras.elsewhere:
            self.elsewhere.add(other, consumer)

    def leave(self, consumer: int, states: tuple[int, int] | None) -> Entry:
        """Remove a consumer and return its resources; the row gets the first of the PCI ``states``. InvalidValue, with
        nothing changed, for NUMA cells that are not in use. O(1)."""
        high, low, row, shape, project, user, group, flags, _ = self._kernel.consumer(consumer)
        extras = self.extras.get(consumer)
        if extras is not None:
            if extras.numa is not None:
                self._providers.numa.release(row, extras.numa)
            self._take(row, extras, states, -1)
            del self.extras[consumer]
            for other in {other for other, _, _ in extras.elsewhere}:
                self.elsewhere.drop(other, consumer)
        newer = listed_before(self._kernel, consumer)
        properties, note = self.image_properties.pop(consumer, None), self.notes.pop(consumer, None)
        missing = self.missing.pop(consumer, None)
        self._kernel.drop_consumer(consumer)
        detail = Detail((high, low), row, shape, project, user, group, flags, extras, properties, note, missing)
        return Entry(consumer, detail, newer, states)

    def come_back(self, entry: Entry) -> None:
        """Undo ``leave``, which was the last change."""
        consumer = self.enter(entry.detail, entry.states)
        if consumer != entry.consumer:
            raise RuntimeError("a consumer was restored under another id")
        if entry.newer >= 0:
            relist(self._kernel, consumer, entry.newer)

    def rejuvenate(self, detail: Detail) -> None:
        """Subtract two from the generations of a consumer's rows, after it was added and removed again, or the
        reverse."""
        generation = self._change_log.store.row["generation"]
        if detail.shape >= 0:
            generation[detail.row] -= 2
        if detail.extras is not None:
            for row in {row for row, _, _ in detail.extras.elsewhere}:
                generation[row] -= 2

    def _take(self, row: int, extras: Extras, states: tuple[int, int] | None, sign: int) -> None:
        """Charge (sign -1: return) the resources on other providers, and PCI devices."""
        change_log, store = self._change_log, self._change_log.store
        for other, resource, amount in extras.elsewhere:
            store.use(resource, other, sign * amount)
        if extras.elsewhere:
            others = rows_array(*sorted({other for other, _, _ in extras.elsewhere}))
            store.row["generation"][others] += 1
            change_log.changed(others)
        if states is not None:
            change_log.constants.count_devices(sign)
            self._pci.set(row, states[sign > 0])
            change_log.settle()

    def _state(self, row: int) -> int:
        return int(self._change_log.store.row["pci"][row])

    def _states_of(self, consumer: int) -> tuple[int, int] | None:
        """PCI states of a consumer's row without it and now; None if it has no devices."""
        extras = self.extras.get(consumer)
        if extras is None or not extras.pci:
            return None
        row = self._kernel.consumer(consumer)[2]
        return self._pci.id(give_back(self._pci.of(row), extras.pci)), self._state(row)


def _put_each(table: dict[Any, Any], changes: Mapping[Any, Any]) -> None:
    """Enter values into a table; None takes an entry out."""
    for key, value in changes.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


class _Added:
    """Added consumers, in order. ``states``: PCI states by consumer, of those that have devices."""

    __slots__ = ("consumers", "entries", "ids", "states")

    def __init__(
        self, consumers: Consumers, ids: Sequence[int] | NDArray[np.int32], states: dict[int, tuple[int, int]]
    ) -> None:
        self.consumers, self.ids, self.states = consumers, ids, states
        self.entries: list[Entry] = []

    def undo(self) -> None:
        leave, states = self.consumers.leave, self.states
        self.entries = [leave(consumer, states.get(consumer)) for consumer in map(int, reversed(self.ids))]
        for entry in self.entries:
            self.consumers.rejuvenate(entry.detail)

    def redo(self) -> None:
        for entry in reversed(self.entries):
            self.consumers.come_back(entry)
        self.entries = []


class _Dropped:
    """Removed consumers, in order."""

    __slots__ = ("consumers", "entries")

    def __init__(self, consumers: Consumers, entries: list[Entry]) -> None:
        self.consumers, self.entries = consumers, entries

    def undo(self) -> None:
        for entry in reversed(self.entries):
            self.consumers.come_back(entry)
            self.consumers.rejuvenate(entry.detail)

    def redo(self) -> None:
        for entry in self.entries:
            self.consumers.leave(entry.consumer, entry.states)
