"""The pure-Python twin of _fleet.pyx: the same answers and errors from lists and dicts, to test the kernel against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from .constants import (
    BUILDING,
    CPU_ALLOCATION_RATIO,
    FREE_DISK_MB,
    FREE_RAM_MB,
    FREE_VCPUS,
    NO_POLICY,
    NOT_INSTANCE,
    NUM_INSTANCES,
    NUM_IO_OPS,
    SERVICE_UP,
    SOFT_ANTI_AFFINITY,
    UNCOUNTED,
    VCPUS_TOTAL,
    VCPUS_USED,
)
from .tables_py import UuidTable, format_uuid

FLAGS = 128
"""Consumer flags are below this; the kernel keeps the highest bit for itself."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one consumer takes of its host."""

    classes: list[int]
    amounts: list[int]
    vcpus: float
    memory_mb: float
    disk_mb: float


@dataclass(frozen=True, slots=True)
class Consumer:
    """``shape`` -1: takes nothing; ``group`` -1: in none."""

    hi: int
    lo: int
    row: int
    shape: int
    project: int
    user: int
    group: int
    flags: int
    generation: int = 1


@dataclass(frozen=True, slots=True)
class Group:
    """A server group; ``members`` by row, no zeros."""

    policy: int
    at_most: int
    members: dict[int, int]


def checked(array: npt.NDArray[Any], dtype: type[np.generic], ndim: int) -> npt.NDArray[Any]:
    """``array``, or ValueError unless it is what the kernel would take."""
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"a writable, C-contiguous {np.dtype(dtype).name} array of {ndim} dimensions is needed")
    return array


class Columns:
    """The column arrays of placement/, and log, shapes, consumers and server groups; see the kernel."""

    def __init__(self) -> None:
        self.rows = 0
        self.capacity = 0
        self.classes = 0
        self.consumers = UuidTable()
        self._log: list[int] = []
        self._log_base = 0
        self._shapes: list[Shape] = []
        self._consumers: list[Consumer | None] = []
        self._free: list[int] = []
        self._on: dict[int, list[int]] = {}  # consumers by row, oldest first
        self._groups: list[Group] = []

    def attach(
        self,
        *,
        avail: npt.NDArray[np.int64],
        used: npt.NDArray[np.int64],
        limit: npt.NDArray[np.int64],
        min_unit: npt.NDArray[np.int64],
        max_unit: npt.NDArray[np.int64],
        step_size: npt.NDArray[np.int64],
        host: npt.NDArray[np.float64],
        class_of: npt.NDArray[np.int32],
        generation: npt.NDArray[np.int64],
        first: npt.NDArray[np.int32],
    ) -> None:
        """Point at the (re)allocated column arrays. All 2-D blocks share their second dimension, the capacity."""
        capacity = checked(host, np.float64, 2).shape[1]
        blocks = [checked(block, np.int64, 2) for block in (avail, used, limit, min_unit, max_unit, step_size)]
        if any(block.shape != (len(avail), capacity) for block in blocks):
            raise ValueError("column blocks differ in shape")
        lines = (checked(class_of, np.int32, 1), checked(generation, np.int64, 1), checked(first, np.int32, 1))
        if any(len(line) != capacity for line in lines):
            raise ValueError("columns differ in length")
        if len(host) <= SERVICE_UP or capacity < 1:
            raise ValueError("host block lacks columns")
        if capacity < self.rows or len(avail) < self.classes:
            raise ValueError("columns may not shrink")
        self.capacity, self.classes = capacity, len(avail)
        self.avail, self.used, self.limit = avail, used, limit
        self.min_unit, self.max_unit, self.step_size = min_unit, max_unit, step_size
        self.host, self.class_of, self.generation, self.first = host, class_of, generation, first

    def set_rows(self, rows: int) -> None:
        """Set the number of rows. Shrinking is for undoing a growth."""
        if not 0 <= index(rows) <= self.capacity:
            raise ValueError("rows beyond the capacity")
        self.rows = index(rows)

    # the change log

    @property
    def version(self) -> int:
        """Number of row changes so far."""
        return self._log_base + len(self._log)

    def changed(self, since: int) -> npt.NDArray[np.int32] | None:
        """Rows changed after version ``since`` (with repeats), or None if the log no longer reaches back so far."""
        start = since - self._log_base
        return np.array(self._log[start:], np.int32) if 0 <= start <= len(self._log) else None

    def mark_changed(self, rows: npt.NDArray[np.int32]) -> None:
        """Log changes that the caller made to the columns of ``rows``."""
        marked: list[int] = checked(rows, np.int32, 1).tolist()
        for row in marked:
            self.check_row(row)
        self._log += marked

    def forget_log(self) -> None:
        """Drop the whole log: every derived index must be rebuilt."""
        self._log_base += len(self._log) + 1
        self._log.clear()

    # shapes

    def add_shape(
        self,
        classes: npt.NDArray[np.int32],
        amounts: npt.NDArray[np.int64],
        vcpus: float,
        memory_mb: float,
        disk_mb: float,
    ) -> int:
        """Register what a consumer takes: ``amounts[i]`` of class ``classes[i]`` and Nova's figures. Returns an id."""
        checked(classes, np.int32, 1)
        checked(amounts, np.int64, 1)
        if len(classes) != len(amounts):
            raise ValueError("classes and amounts differ in length")
        if not all(0 <= resource < self.classes for resource in classes):
            raise IndexError("resource class out of range")
        self._shapes.append(Shape(classes.tolist(), amounts.tolist(), float(vcpus), float(memory_mb), float(disk_mb)))
        return len(self._shapes) - 1

    def shape(self, shape: int) -> tuple[list[int], list[int], float, float, float]:
        """(classes, amounts, vcpus, memory_mb, disk_mb) of a shape."""
        self.check_shape(shape)
        found = self._shapes[shape]
        return list(found.classes), list(found.amounts), found.vcpus, found.memory_mb, found.disk_mb

    def check_shape(self, shape: int) -> None:
        if not 0 <= index(shape) < len(self._shapes):
            raise IndexError("shape out of range")

    def _take(self, row: int, shape: Shape, sign: int, flags: int) -> None:
        for resource, amount in zip(shape.classes, shape.amounts, strict=True):
            self.used[resource, row] += sign * amount
            room = self.limit[resource, row] - self.used[resource, row]
            self.avail[resource, row] = min(room, self.max_unit[resource, row])
        self.generation[row] += 1
        if flags & UNCOUNTED:
            return
        figures = self.host[:, row]
        figures[FREE_RAM_MB] -= sign * shape.memory_mb
        figures[FREE_DISK_MB] -= sign * shape.disk_mb
        figures[VCPUS_USED] += sign * shape.vcpus
        figures[FREE_VCPUS] = figures[VCPUS_TOTAL] * figures[CPU_ALLOCATION_RATIO] - figures[VCPUS_USED]
        if not flags & NOT_INSTANCE:
            figures[NUM_INSTANCES] += sign
        if flags & BUILDING:
            figures[NUM_IO_OPS] += sign

    # consumers

    @property
    def consumer_count(self) -> int:
        """Number of consumers."""
        return len(self.consumers)

    def add_consumer(
        self, hi: int, lo: int, row: int, shape: int, project: int, user: int, group: int, flags: int
    ) -> int:
        """Create a consumer on ``row`` taking ``shape`` (-1: nothing); returns its id. KeyError if the uuid exists."""
        self.check_row(row)
        if shape >= 0:
            self.check_shape(shape)
        if group >= 0:
            self.check_group(group)
        if not 0 <= flags < FLAGS:
            raise ValueError("unknown consumer flags")
        id = self._free[-1] if self._free else len(self._consumers)
        self.consumers.add(format_uuid(hi, lo), id)
        if self._free:
            self._free.pop()
        else:
            self._consumers.append(None)
        self._consumers[id] = Consumer(hi, lo, row, shape, project, user, group, flags)
        self._on.setdefault(row, []).append(id)
        self.first[row] = id
        if shape >= 0:
            self._take(row, self._shapes[shape], 1, flags)
        if group >= 0:
            self._join(self._groups[group], row, 1)
        self._log.append(row)
        return id

    def drop_consumer(self, consumer: int) -> None:
        """Remove a consumer; its allocation is given back."""
        found = self._consumer(consumer)
        if found.shape >= 0:
            self._take(found.row, self._shapes[found.shape], -1, found.flags)
        if found.group >= 0:
            self._join(self._groups[found.group], found.row, -1)
        self._on[found.row].remove(consumer)
        self.first[found.row] = self._on[found.row][-1] if self._on[found.row] else -1
        self.consumers.pop(format_uuid(found.hi, found.lo))
        self._consumers[consumer] = None
        self._free.append(consumer)
        self._log.append(found.row)

    def set_building(self, consumer: int, building: bool) -> None:
        """Count the consumer among its host's I/O operations, or stop counting it."""
        found = self._consumer(consumer)
        if bool(found.flags & BUILDING) == bool(building):
            return
        self._consumers[consumer] = replace(found, flags=found.flags ^ BUILDING)
        if found.shape >= 0:
            self.host[NUM_IO_OPS, found.row] += 1 if building else -1
        self._log.append(found.row)

    def set_consumer(self, consumer: int, shape: int, flags: int) -> None:
        """Set a consumer's shape and flags. Columns are not changed: the caller accounts for the difference."""
        found = self._consumer(consumer)
        if shape >= 0:
            self.check_shape(shape)
        if not 0 <= flags < FLAGS:
            raise ValueError("unknown consumer flags")
        self._consumers[consumer] = replace(found, shape=shape, flags=flags)
        self._log.append(found.row)

    def rename_consumer(self, consumer: int, hi: int, lo: int) -> None:
        """Give a consumer another uuid. KeyError if that exists."""
        found = self._consumer(consumer)
        self.consumers.add(format_uuid(hi, lo), consumer)
        self.consumers.pop(format_uuid(found.hi, found.lo))
        self._consumers[consumer] = replace(found, hi=hi, lo=lo)
        self._log.append(found.row)

    def consumer(self, consumer: int) -> tuple[int, int, int, int, int, int, int, int, int]:
        """(hi, lo, row, shape, project, user, group, flags, generation)."""
        c = self._consumer(consumer)
        return c.hi, c.lo, c.row, c.shape, c.project, c.user, c.group, c.flags, c.generation

    def consumers_on(self, row: int) -> list[int]:
        """Ids of the consumers on a row, newest first."""
        self.check_row(row)
        return self._on.get(row, [])[::-1]

    def consumers_of(self, project: int) -> npt.NDArray[np.int32]:
        """int32 [3, n]: id, shape and user of the consumers of a project, by id."""
        live = ((id, found) for id, found in enumerate(self._consumers) if found is not None)
        found = [(id, one.shape, one.user) for id, one in live if one.project == project]
        return np.array(found, np.int32).reshape(-1, 3).T

    def holders(self, consumers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """int32 [2, n]: project and shape of the given consumers. ValueError for one that does not exist."""
        found = [self._consumer(consumer) for consumer in consumers.tolist()]
        return np.array([(one.project, one.shape) for one in found], np.int32).reshape(-1, 2).T

    def consumer_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Copies of the consumer columns, live ids only, in id order."""
        ids = [id for id, consumer in enumerate(self._consumers) if consumer is not None]
        found = [self._consumer(id) for id in ids]
        figures = [(c.row, c.shape, c.project, c.user, c.group, c.flags, c.generation) for c in found]
        return {
            "id": np.array(ids, np.int32),
            "uuid": np.array([(c.hi, c.lo) for c in found], np.uint64).reshape(-1, 2),
            "figures": np.array(figures, np.int32).reshape(-1, 7),
        }

    def _consumer(self, consumer: int) -> Consumer:
        found = self._consumers[consumer] if 0 <= index(consumer) < len(self._consumers) else None
        if found is None:
            raise IndexError("no such consumer")
        return found

    def check_consumer(self, consumer: int) -> None:
        self._consumer(consumer)

    def check_row(self, row: int) -> None:
        if not 0 <= index(row) < self.rows:
            raise IndexError("row out of range")

    # server groups

    def add_group(self, policy: int, at_most: int) -> int:
        """Register a server group; returns its id."""
        self._check_policy(policy, at_most)
        self._groups.append(Group(policy, at_most, {}))
        return len(self._groups) - 1

    def drop_last_group(self) -> None:
        """Undo the latest add_group; the group must be empty."""
        if not self._groups or self._groups[-1].members:
            raise ValueError("there is no last group, or it is not empty")
        self._groups.pop()

    def set_group(self, group: int, policy: int, at_most: int) -> None:
        """Let the id of an empty group be another one's."""
        self.check_group(group)
        self._check_policy(policy, at_most)
        if self._groups[group].members:
            raise ValueError("the group is not empty")
        self._groups[group] = Group(policy, at_most, {})

    @staticmethod
    def _check_policy(policy: int, at_most: int) -> None:
        if not NO_POLICY <= policy <= SOFT_ANTI_AFFINITY:
            raise ValueError("unknown policy")
        if at_most < 1:
            raise ValueError("at_most must be at least 1")

    def group(self, group: int) -> tuple[int, int, dict[int, int]]:
        """(policy, at_most, {row: members})."""
        self.check_group(group)
        found = self._groups[group]
        return found.policy, found.at_most, dict(found.members)

    def group_policy(self, group: int) -> tuple[int, int]:
        """(policy, at_most) of a group."""
        return self.group(group)[:2]

    def group_rows(self, group: int) -> int:
        """Number of rows that hold a member of a group."""
        return len(self.group(group)[2])

    def group_members(self, group: int, row: int) -> int:
        """Number of members of a group on a row."""
        return self.group(group)[2].get(row, 0)

    def group_projects(self, group: int, most: int) -> list[int]:
        """Projects of a group's members, ascending; at most ``most`` of them."""
        self.check_group(group)
        found: set[int] = set()
        for row in self.group(group)[2]:
            for consumer in self.consumers_on(row):
                if len(found) < most and self._consumer(consumer).group == group:
                    found.add(self._consumer(consumer).project)
        return sorted(found)

    def check_group(self, group: int) -> None:
        if not 0 <= index(group) < len(self._groups):
            raise IndexError("group out of range")

    @staticmethod
    def _join(group: Group, row: int, members: int) -> None:
        group.members[row] = group.members.get(row, 0) + members
        if group.members[row] <= 0:
            del group.members[row]
