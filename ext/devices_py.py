"""The pure-Python twin of _devices.pyx and _host_scores.pyx: nodes are scored by the devices on them, and filled one
request at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .fleet_py import Columns

BEST_FIT, DOT_PRODUCT, PACKING, CLUSTERING, FRAGMENTATION, RANDOM = range(6)
MOST: Final = 64
WHOLE: Final = 1000
_WORD: Final = (1 << 64) - 1

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rule, the sizes that it knows, and the typical requests with what each node allows of them."""

    policy: int
    largest_cpu: float
    largest_gpu: float
    shapes: list[list[int]]
    share: list[float]
    allowed: list[list[int]]


@dataclass(slots=True)
class Node:
    """A node at the moment: idle thousandths of its CPUs and devices, and guests by kind."""

    index: int
    row: int
    cpu: int
    idle: list[int]
    tags: list[int]


def mixed(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


def draw(key: int, row: int, device: int) -> int:
    """A pseudo-random 53-bit number for a row of one request, and for a device of it (-1: the row itself)."""
    word = mixed((key + (row + 1) * 0x9E3779B97F4A7C15) & _WORD)
    return mixed((word + (device + 2) * 0xD1B54A32D192ED03) & _WORD) >> 11


def fragments(rule: Rule, node: int, cpu: int, idle: Sequence[int]) -> float:
    """Expected thousandths of idle devices that a typical request cannot use."""
    total = sum(max(each, 0) for each in idle)
    kinds = [0.0] * 6
    for (wanted_cpu, milli, count), share, allowed in zip(rule.shapes, rule.share, rule.allowed, strict=True):
        amount, enough = total, cpu >= wanted_cpu
        if count == 0 or milli == 0:
            kind = 3 if enough else 4
        elif not allowed[node]:
            kind = 5
        elif sum(each >= milli for each in idle) < count:
            kind = 1 if enough else 0
        elif not enough:
            kind = 2
        else:
            kind, amount = 1, sum(each for each in idle if 0 < each < milli)
        kinds[kind] += share * amount
    return kinds[0] + kinds[1] + kinds[2] + kinds[3] + kinds[4] + kinds[5]


def fitting(idle: Sequence[int], milli: int) -> list[int]:
    return [device for device, each in enumerate(idle) if each >= milli]


def pick(policy: int, milli: int, count: int, idle: Sequence[int], key: int, row: int) -> list[int]:
    """The devices that a request takes; none if there are too few."""
    able = fitting(idle, milli)
    if policy == RANDOM and milli < WHOLE:
        able.sort(key=lambda device: -draw(key, row, device))
    elif milli < WHOLE:
        able.sort(key=lambda device: idle[device])
    return able[:count] if len(able) >= count else []


def by_fragmentation(rule: Rule, shape: Sequence[int], node: Node, taken: list[int]) -> tuple[int, list[int]]:
    cpu, milli, count = shape
    before = fragments(rule, node.index, node.cpu, node.idle)
    shared = count == 1 and milli < WHOLE
    best: tuple[int, list[int]] | None = None
    for choice in [[device] for device in fitting(node.idle, milli)] if shared else [taken]:
        left = [each - milli * (device in choice) for device, each in enumerate(node.idle)]
        after = fragments(rule, node.index, node.cpu - cpu, left)
        score = int(100.0 / (1.0 + math.exp(-(before - after) / 1000.0)))
        if best is None or score > best[0]:
            best = score, choice
    assert best is not None
    return best


def by_packing(milli: int, count: int, idle: Sequence[int]) -> int:
    whole = sum(each >= WHOLE for each in idle)
    if whole == sum(each >= 0 for each in idle):
        return max(33 - whole, whole)
    least = sorted(idle[device] for device in fitting(idle, milli))[:count]
    free = sum(each >= WHOLE for each in least)
    if free > 0:
        return max(50 - free, 33)
    return max(100 - sum(each * 100 // WHOLE for each in least) // 10, 50)


def tag_of(milli: int, count: int) -> int:
    if count == 0:
        return 0
    return 1 if count == 1 and milli < WHOLE else count + 1


def by_clustering(rule: Rule, tag: int, idle_milli: int, tags: Sequence[int]) -> int:
    full = int(rule.largest_gpu)
    base = 25 * (full - idle_milli) // full
    others = any(tags[other] for other in range(1, len(tags)) if other != tag)
    if tags[tag]:
        return base + (50 if others else 75)
    return base if others else base + 25


def score_node(rule: Rule, shape: Sequence[int], node: Node, key: int) -> tuple[int, list[int]] | None:
    """The node's score and the devices; None if its devices or CPUs are too few."""
    cpu, milli, count = shape
    taken = pick(rule.policy, milli, count, node.idle, key, node.row) if count else []
    if node.cpu < cpu or (count and not taken):
        return None
    if rule.policy == RANDOM:
        return draw(key, node.row, -1), taken
    if rule.policy == FRAGMENTATION:
        return by_fragmentation(rule, shape, node, taken)
    free = sum(max(each, 0) for each in node.idle)
    if rule.policy == BEST_FIT:
        c, g = 0.5 * (node.cpu - cpu) / rule.largest_cpu, 0.5 * (free - milli * count) / rule.largest_gpu
        return int(100.0 * (1.0 - (c + g))), taken
    if rule.policy == DOT_PRODUCT:
        c = (node.cpu / rule.largest_cpu) * (cpu / rule.largest_cpu)
        g = (free / rule.largest_gpu) * (milli * count / rule.largest_gpu)
        return int(100.0 * (1.0 - (c + g) / 2.0)), taken
    if count == 0:
        return 0, taken
    if rule.policy == PACKING:
        return by_packing(milli, count, node.idle), taken
    return by_clustering(rule, tag_of(milli, count), free, node.tags), taken


def _rule(policy: int, cpu: float, gpu: float, typical: Int64, share: Floats, allowed: Bits, nodes: int) -> Rule:
    if not BEST_FIT <= policy <= RANDOM:
        raise ValueError(f"no rule {policy}")
    if typical.shape[1] != 3 or len(share) != len(typical) or len(allowed) != len(typical):
        raise ValueError("typical requests differ in length")
    if allowed.shape[1] != nodes:
        raise ValueError("arrays of nodes differ in length")
    if not (cpu > 0 and gpu >= 1):
        raise ValueError("sizes must be positive")
    return Rule(policy, cpu, gpu, typical.tolist(), share.tolist(), allowed.tolist())


def _nodes(rows: Int32, cpu: Int64, idle: Int32, tags: Int32) -> list[Node]:
    if not len(rows) == len(cpu) == len(idle) == len(tags) or tags.shape[1] != idle.shape[1] + 2:
        raise ValueError("arrays of nodes differ in length")
    if idle.shape[1] > MOST:
        raise ValueError(f"a node has more than {MOST} devices")
    columns = (range(len(cpu)), rows.tolist(), cpu.tolist(), idle.tolist(), tags.tolist())
    return [Node(*each) for each in zip(*columns, strict=True)]


def _check_shape(shape: Sequence[int]) -> None:
    cpu, milli, count = shape
    if cpu < 0 or milli < 0 or not 0 <= count <= MOST or (count > 0 and milli == 0):
        raise ValueError("a request must ask for a positive share of each of its devices")


def _mask(taken: Sequence[int]) -> int:
    return sum(1 << device for device in taken)


def score(
    policy: int,
    largest_cpu: float,
    largest_gpu: float,
    typical: Int64,
    share: Floats,
    typical_allowed: Bits,
    rows: Int32,
    cpu: Int64,
    idle: Int32,
    tags: Int32,
    shape: tuple[int, int, int],
    key: int,
) -> tuple[Floats, UInt64]:
    """Scores of nodes for one request, 0 where it does not fit; and the devices that it would take, as bits."""
    rule = _rule(policy, largest_cpu, largest_gpu, typical, share, typical_allowed, len(cpu))
    nodes = _nodes(rows, cpu, idle, tags)
    _check_shape(shape)
    found = [score_node(rule, shape, node, key) or (0, []) for node in nodes]
    return np.array([value for value, _ in found], np.float64), np.array(
        [_mask(taken) for _, taken in found], np.uint64
    )


class HostScores:
    """Scores of hosts for one request, read from the columns as they are; see the kernel."""

    def __init__(
        self,
        columns: Columns,
        policy: int,
        largest_cpu: float,
        largest_gpu: float,
        typical: Int64,
        share: Floats,
        allowed: Bits,
        below: Int32,
        device: int,
        cpu: int,
        cpu_milli: int,
        shape: tuple[int, int, int],
        key: int = 0,
        beside: HostScores | None = None,
    ) -> None:
        if not (0 <= device < columns.classes and 0 <= cpu < columns.classes):
            raise IndexError("resource class out of range")
        if len(below) != columns.capacity or below.shape[1] > MOST:
            raise ValueError("the rows of devices differ in length from the columns")
        if below.size and not (below.min() >= -1 and below.max() < columns.rows):
            raise ValueError("a device's row is out of range")
        if cpu_milli < 0:
            raise ValueError("a CPU has no fewer than 0 thousandths")
        self._rule = _rule(policy, largest_cpu, largest_gpu, typical, share, allowed, allowed.shape[1])
        _check_shape(shape)
        self._columns, self._capacity, self._below, self._classes = columns, columns.capacity, below, allowed.shape[1]
        self._device, self._cpu, self._cpu_milli, self._shape, self._key = device, cpu, cpu_milli, shape, key
        self._made_of = policy, device, cpu, cpu_milli
        self._arrays = typical, share, allowed, below
        if beside is not None and not (
            columns is beside._columns
            and self._made_of == beside._made_of
            and all(mine is its for mine, its in zip(self._arrays, beside._arrays, strict=True))
        ):
            raise ValueError("scores beside others have the same arrays and rule")

    def score(self, row: int, tags: Sequence[int]) -> tuple[float, int]:
        """The score of a row, and the devices that the request would take there as bits."""
        columns, width = self._columns, self._below.shape[1]
        if self._shape[2] > width:
            return 0.0, 0
        idle = [-1 if gpu < 0 else max(int(columns.avail[self._device, gpu]), 0) for gpu in self._below[row].tolist()]
        cpu = int(columns.avail[self._cpu, row]) * self._cpu_milli
        found = score_node(
            self._rule, self._shape, Node(int(columns.class_of[row]), row, cpu, idle, list(tags)), self._key
        )
        return (0.0, 0) if found is None else (float(found[0]), _mask(found[1]))

    def of(self, rows: Int32, tags: Int32 | None = None) -> tuple[Floats, UInt64]:
        """(scores, devices as bits) of rows; see the kernel."""
        width = self._below.shape[1] + 2
        if self._columns.capacity != self._capacity:
            raise RuntimeError("the columns moved: make new scores")
        if tags is not None and tags.shape != (len(rows), width):
            raise ValueError("tags and rows differ in length")
        for row in rows.tolist():
            self._columns.check_row(row)
            if self._rule.shapes and not 0 <= self._columns.class_of[row] < self._classes:
                raise ValueError("a host class that the typical requests do not know")
        kinds = np.zeros((len(rows), width), np.int32) if tags is None else tags
        found = [self.score(row, mine) for row, mine in zip(rows.tolist(), kinds.tolist(), strict=True)]
        return np.array([value for value, _ in found], np.float64), np.array([bits for _, bits in found], np.uint64)


def fragmentation(typical: Int64, share: Floats, typical_allowed: Bits, cpu: Int64, idle: Int32) -> Floats:
    """Fragmentation of each node in thousandths of devices."""
    rule = _rule(0, 1.0, 1.0, typical, share, typical_allowed, len(cpu))
    if len(idle) != len(cpu) or idle.shape[1] > MOST:
        raise ValueError("arrays of nodes differ in length")
    lost = [fragments(rule, node, *each) for node, each in enumerate(zip(cpu.tolist(), idle.tolist(), strict=True))]
    return np.array(lost, np.float64)


def place(
    policy: int,
    largest_cpu: float,
    largest_gpu: float,
    typical: Int64,
    share: Floats,
    typical_allowed: Bits,
    rows: Int32,
    cpu: Int64,
    room: Int64,
    idle: Int32,
    tags: Int32,
    allowed: Bits,
    shapes: Int64,
    needs: Int64,
    asked_of: Int32,
    keys: UInt64,
) -> tuple[Int32, UInt64, Floats]:
    """Place requests one after the other on the best node each, the first of equals; the node arrays are used up."""
    rule = _rule(policy, largest_cpu, largest_gpu, typical, share, typical_allowed, len(cpu))
    nodes = _nodes(rows, cpu, idle, tags)
    agree = room.shape[1] == len(cpu) and allowed.shape == (len(shapes), len(cpu)) and shapes.shape[1] == 3
    if not (agree and needs.shape == (len(shapes), len(room)) and len(keys) == len(asked_of)):
        raise ValueError("arrays of requests differ in length")
    for shape in shapes.tolist():
        _check_shape(shape)
    for number in asked_of.tolist():
        if not 0 <= number < len(shapes):
            raise ValueError(f"no shape {number}")
    chosen, masks, lost = np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.uint64), np.zeros(len(keys))
    for position, (number, key) in enumerate(zip(asked_of.tolist(), keys.tolist(), strict=True)):
        shape, best = shapes[number].tolist(), None
        for node in nodes:
            if allowed[number, node.index] and np.all(room[:, node.index] >= needs[number]):
                found = score_node(rule, shape, node, key)
                if found is not None and (best is None or found[0] > best[1][0]):
                    best = node, found
        if best is not None:
            node, (_, taken) = best
            chosen[position], masks[position] = node.index, _mask(taken)
            node.cpu -= shape[0]
            cpu[node.index] -= shape[0]
            room[:, node.index] -= needs[number]
            for device in taken:
                node.idle[device] -= shape[1]
                idle[node.index, device] -= shape[1]
            node.tags[tag_of(*shape[1:])] += 1
            tags[node.index, tag_of(*shape[1:])] += 1
        # One after the other, from the left: built-in sums may be more exact than the kernel's.
        total = 0.0
        for node in nodes if nodes else ():
            total += fragments(rule, node.index, node.cpu, node.idle)
        lost[position] = total
    return chosen, masks, lost
