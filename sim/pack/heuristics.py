"""Heuristics by name. Items come in a given order; a decreasing order is by a measure, the first of equals first.

    FF              the first bin with room
    FFD-<m>-Unit    FF in decreasing order of the measure m of an item's sizes in parts of the capacity:
                    L1 their sum, L2 their sum of squares, Linf the greatest
    BFD-<m>         in the same order, the bin that is left with least free by m
    BC-Dot          bin by bin, the item with the greatest dot product of what is free and what it takes
    BC-L2           bin by bin, the item that leaves the least sum of squares free

Source of FF and FFD: Mommessin, Erlebach, Shakhlevich, "Classification and evaluation of the algorithms for vector bin
packing" (2024), whose figures are single precision; the measures here are too, so that ties are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.packing import fill_in_turn, fit_in_turn
from .instance import Instance

Order = NDArray[np.int32]
Bins = NDArray[np.int32]
"""The bin of each item, from 0."""
Heuristic = Callable[[Instance, Order], Bins]


def decreasing(instance: Instance, order: Order, norm: int) -> Order:
    """``order`` sorted by decreasing measure (1: L1, 2: L2, 3: Linf), stable."""
    capacity = np.maximum(instance.capacity, 1)
    parts = (instance.sizes / capacity).astype(np.float32)[order]
    if norm == 3:
        measure = parts.max(axis=1, initial=0)
    else:
        measure = np.zeros(len(order), np.float32)
        for column in parts.T:
            # One after the other: numpy's own sum adds in another order.
            measure = measure + (column if norm == 1 else column * column)
    return order[np.argsort(-measure, kind="stable")]


def _first_fit(instance: Instance, order: Order) -> Bins:
    return fit_in_turn(instance.sizes, instance.capacity, order, 0)


def _decreasing(norm: int, rule: int) -> Heuristic:
    def pack(instance: Instance, order: Order) -> Bins:
        return fit_in_turn(instance.sizes, instance.capacity, decreasing(instance, order, norm), rule)

    return pack


def _by_bins(rule: int) -> Heuristic:
    def pack(instance: Instance, order: Order) -> Bins:
        return fill_in_turn(instance.sizes, instance.capacity, order, rule)

    return pack


HEURISTICS: Final[Mapping[str, Heuristic]] = {
    "FF": _first_fit,
    "FFD-L1-Unit": _decreasing(1, 0),
    "FFD-L2-Unit": _decreasing(2, 0),
    "FFD-Linf-Unit": _decreasing(3, 0),
    "BFD-L1": _decreasing(1, 1),
    "BFD-L2": _decreasing(2, 2),
    "BFD-Linf": _decreasing(3, 3),
    "BC-Dot": _by_bins(1),
    "BC-L2": _by_bins(2),
}
"""Work: items * bins * dimensions for the first seven, items² * dimensions for the last two."""
