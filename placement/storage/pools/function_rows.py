"""Functions of many pools at once: each distinct text is evaluated once over its pools; what that cannot tell, and few
pools, go through functions.py one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from .columns import Mask, Rows
from .expression import Expression, ExpressionError, expression
from .expression.vector import BAD, BOOLEAN, HARD, TEXT, Floats, Vector, evaluate_rows
from .filter_properties import FilterProperties
from .function_columns import FunctionColumn
from .functions import FILTER, GOODNESS, filter_passes, goodness
from .request import VolumeSpec
from .view import MISSING

if TYPE_CHECKING:
    from .pools import Pools

FEW: Final = 24
"""Pools that are quicker one by one."""
_ANY: Final = FilterProperties.of(VolumeSpec(size_gb=0))
"""Stands for any request where functions read none."""


def filter_mask(pools: Pools, filter_properties: FilterProperties, rows: Rows, *, strict: bool) -> Mask:
    """DriverFilter's mask. O(rows): what reads pools only is known, for all else functions are evaluated."""
    column = filter_column(pools, strict=strict)
    mask: Mask = column.values[rows] != 0
    others = ~column.shared[rows]
    if others.any():
        mask[others] = _filter_mask(pools, filter_properties, rows[others], strict=strict)
    return mask


def goodness_ratings(pools: Pools, filter_properties: FilterProperties, rows: Rows, *, strict: bool) -> Floats:
    """GoodnessWeigher's ratings, NaN for a pool that cannot be rated. O(rows), as ``filter_mask``."""
    column = goodness_column(pools, strict=strict)
    ratings, others = column.values[rows], ~column.shared[rows]
    if others.any():
        ratings[others] = _goodness_ratings(pools, filter_properties, rows[others], strict=strict)
    return ratings


def filter_column(pools: Pools, *, strict: bool) -> FunctionColumn:
    """The filter_functions that read pools only, up to date. O(changes)."""
    return pools.variables.functions(FILTER, partial(_filter_mask, pools, _ANY, strict=strict), strict=strict)


def goodness_column(pools: Pools, *, strict: bool) -> FunctionColumn:
    """The goodness_functions that read pools only, up to date. O(changes)."""
    return pools.variables.functions(GOODNESS, partial(_goodness_ratings, pools, _ANY, strict=strict), strict=strict)


def _filter_mask(pools: Pools, filter_properties: FilterProperties, rows: Rows, *, strict: bool) -> Mask:
    mask = np.ones(len(rows), np.bool_)
    hard = np.zeros(len(rows), np.bool_)
    for function, at in _by_text(pools, rows, FILTER, strict=strict):
        if function is None:
            hard[at] = True
            continue
        passing = np.zeros(len(at), np.bool_)
        for found in _values(pools, filter_properties, rows[at], function, FILTER):
            hard[at] |= found.kinds == HARD
            passing |= (found.kinds <= BOOLEAN) & (found.numbers != 0)
        mask[at] = passing
    for index in np.flatnonzero(hard).tolist():
        mask[index] = filter_passes(pools, filter_properties, int(rows[index]), strict=strict)[0]
    return mask


def _goodness_ratings(pools: Pools, filter_properties: FilterProperties, rows: Rows, *, strict: bool) -> Floats:
    ratings = np.zeros(len(rows))
    hard = np.zeros(len(rows), np.bool_)
    for function, at in _by_text(pools, rows, GOODNESS, strict=strict):
        if function is None:
            hard[at] = True
            continue
        best = np.zeros(len(at))
        for found in _values(pools, filter_properties, rows[at], function, GOODNESS):
            hard[at] |= found.kinds == HARD
            rated = np.where(found.kinds == BOOLEAN, found.numbers * 100, found.numbers)
            fine = (found.kinds != BAD) & (rated >= 0) & (rated <= 100)
            best = np.maximum(best, np.where(fine, rated, 0.0))
        ratings[at] = best
    for index in np.flatnonzero(hard).tolist():
        ratings[index] = _rated(pools, filter_properties, int(rows[index]), strict=strict)
    return ratings


def _rated(pools: Pools, filter_properties: FilterProperties, row: int, *, strict: bool) -> float:
    try:
        return goodness(pools, filter_properties, row, strict=strict)
    except ExpressionError:
        return math.nan


def _by_text(
    pools: Pools, rows: Rows, kind: str, *, strict: bool
) -> Iterator[tuple[Expression | None, NDArray[np.intp]]]:
    """(function, places in ``rows``) for each distinct text; None as function for places to be looked at one by one.
    Pools without a function are left out."""
    if len(rows) <= FEW:
        yield None, np.arange(len(rows))
        return
    texts = pools.variables.texts(kind)
    codes = texts.codes[rows]
    for code in np.unique(codes).tolist():
        if code >= 0:
            yield expression(texts.words[code], strict=strict), np.flatnonzero(codes == code)


def _values(
    pools: Pools, filter_properties: FilterProperties, rows: Rows, function: Expression, kind: str
) -> Iterator[Vector]:
    """The function's values on rows, once for each name of their protocol if it names it."""
    if function.tree is None:
        yield Vector(np.zeros(len(rows)), np.full(len(rows), BAD, np.uint8))
        return
    protocols = [pools.fact(row).storage_protocol for row in rows.tolist()] if function.names_protocol else []
    families = [repr(each) if isinstance(each, list) else "" for each in protocols]
    names = {family: each for family, each in zip(families, protocols, strict=True) if family}
    if not names:
        yield _evaluated(pools, filter_properties, rows, function, kind, MISSING)
        return
    nothing = np.full(len(rows), BAD, np.uint8)
    for family in dict.fromkeys(families):
        at = np.flatnonzero([each == family for each in families])
        for protocol in names.get(family, [MISSING]):
            yield _placed(_evaluated(pools, filter_properties, rows[at], function, kind, protocol), at, nothing)


def _placed(found: Vector, at: NDArray[np.intp], nothing: NDArray[np.uint8]) -> Vector:
    """The values at their places among all rows; the others have none."""
    numbers, kinds = np.zeros(len(nothing)), nothing.copy()
    numbers[at], kinds[at] = found.numbers, found.kinds
    return Vector(numbers, kinds)


def _evaluated(
    pools: Pools, filter_properties: FilterProperties, rows: Rows, function: Expression, kind: str, protocol: Any
) -> Vector:
    assert function.tree is not None
    variables = pools.variables.of(filter_properties, rows, kind, strict=function.strict, protocol=protocol)
    found = evaluate_rows(function.tree, variables)
    kinds = np.where(found.kinds == TEXT, np.uint8(HARD), found.kinds)
    shape = (len(rows),)
    return Vector(np.broadcast_to(found.numbers, shape), np.broadcast_to(kinds, shape))
