"""Rules of vector packing, one host at a time: how well a request for CPUs and memory suits it, the higher the better.

The ranking kernel's csrc/vector_fit.h computes the same to the bit; this is what it means.

capacity c = (vCPUs * ratio, GiB * ratio), used u, idle i = c - u, request q, weight w of each resource

DOT_PRODUCT   sum of w i q / c²
L2_NORM       minus the sum of w ((i - q) / c)²
COSINE        cosine of the angle between c and u + q
DELTA_PERP    by how much the distance of u from the line along c shrinks when q is added

A part of no capacity (a millionth or less) is 0.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable
from typing import NamedTuple

from .constants import COSINE, DOT_PRODUCT, L2_NORM

GIB_MB = 1024.0
NO_CAPACITY = 1e-6
LANES = 8
Pair = tuple[float, float]
"""Of CPUs and memory in GiB."""


class Load(NamedTuple):
    """What a host has in all, over-commitment included, and what of it is used."""

    capacity: Pair
    used: Pair


def load_of(
    *,
    vcpus_total: float,
    cpu_allocation_ratio: float,
    vcpus_used: float,
    total_usable_ram_mb: float,
    ram_allocation_ratio: float,
    free_ram_mb: float,
) -> Load:
    """From a host's figures."""
    capacity = (vcpus_total * cpu_allocation_ratio, total_usable_ram_mb * ram_allocation_ratio / GIB_MB)
    return Load(capacity, (float(vcpus_used), (total_usable_ram_mb - free_ram_mb) / GIB_MB))


def mean_load(loads: Iterable[tuple[int, Load]]) -> Pair:
    """Mean of used / capacity over all hosts of a fleet, given in the order of their rows; 1 without hosts.

    Row i is added to partial sum i % 8, and the eight partial sums are added at the end, always in the same order.
    """
    cpus, memory, hosts = [0.0] * LANES, [0.0] * LANES, 0
    for row, (capacity, used) in loads:
        cpus[row % LANES] += _part(used[0], capacity[0])
        memory[row % LANES] += _part(used[1], capacity[1])
        hosts += 1
    # Not sum(), which makes up for rounding from Python 3.12 on.
    total = [functools.reduce(operator.add, sums, 0.0) for sums in (cpus, memory)]
    return (total[0] / hosts, total[1] / hosts) if hosts else (1.0, 1.0)


def fit(formula: int, load: Load, asked: Pair, weight: Pair) -> float:
    """The value of one of the formulas above."""
    (c0, c1), (u0, u1) = load
    if formula == DOT_PRODUCT:
        cpus = weight[0] * _part(c0 - u0, c0) * _part(asked[0], c0)
        return cpus + weight[1] * _part(c1 - u1, c1) * _part(asked[1], c1)
    if formula == L2_NORM:
        cpus, memory = _part(c0 - u0 - asked[0], c0), _part(c1 - u1 - asked[1], c1)
        return -(weight[0] * cpus * cpus + weight[1] * memory * memory)
    cpus, memory = u0 + asked[0], u1 + asked[1]
    if formula == COSINE:
        lengths = math.sqrt((c0 * c0 + c1 * c1) * (cpus * cpus + memory * memory))
        return (c0 * cpus + c1 * memory) / lengths if lengths != 0.0 else 0.0
    return _distance(load.capacity, u0, u1) - _distance(load.capacity, cpus, memory)


def _part(amount: float, capacity: float) -> float:
    return amount / capacity if capacity > NO_CAPACITY else 0.0


def _distance(capacity: Pair, cpus: float, memory: float) -> float:
    """Of (cpus, memory) from the line along ``capacity``."""
    c0, c1 = capacity
    length = c0 * c0 + c1 * c1
    along = (c0 * cpus + c1 * memory) / length if length != 0.0 else 0.0
    x, y = cpus - along * c0, memory - along * c1
    return math.sqrt(x * x + y * y)
