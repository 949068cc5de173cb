"""Checks of the results of filters and weighers: a rule that returns an invalid value is reported before any state
changes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import DELTA_PERP, DOT_PRODUCT
from ..filters.base import Bound, Filter, Selection
from ..filters.host_attributes import FIELDS
from ..fleet.columns import COLUMN
from ..types.errors import InvalidValue, UnknownName
from ..types.limits import MAX_RAW
from ..types.request import Request
from ..weighers.base import Formula, Weigher


def fields_of(rule: Filter | Weigher, request: Request) -> frozenset[str]:
    """The host fields that a rule reads; UnknownName for an unknown field."""
    fields = frozenset(rule.fields(request))
    for name in sorted(fields - FIELDS, key=str):
        raise UnknownName.among(f"host field in {rule.name}.fields", str(name), FIELDS, field=rule.name)
    return fields


def column_of(rule: Filter | Weigher, name: object) -> int:
    """Number of the fleet column that a rule names; UnknownName otherwise."""
    index = COLUMN.get(name) if isinstance(name, str) else None
    if index is None:
        raise UnknownName.among(f"column in {rule.name}", str(name), COLUMN, field=rule.name)
    return index


def bounds_of(judge: Filter, request: Request) -> list[tuple[int, float, float]] | None:
    """Column form as (column, low, high), or None; InvalidValue or UnknownName for an invalid one."""
    bounds = judge.bounds(request)
    if bounds is None:
        return None
    found = []
    for bound in bounds:
        if not isinstance(bound, Bound) or not bound.low == bound.low or not bound.high == bound.high:
            raise _wrong(judge, "bounds", "Bound values without NaN", bound)
        found.append((column_of(judge, bound.column), float(bound.low), float(bound.high)))
    return found


def selection_of(judge: Filter, request: Request) -> Selection | None:
    """Selection form, or None; InvalidValue for an invalid one."""
    choice = judge.selection(request)
    if choice is not None and not isinstance(choice, Selection):
        raise _wrong(judge, "selection", "a Selection", choice)
    return choice


def checked_mask(judge: Filter, mask: object, rows: int) -> NDArray[np.uint8]:
    """The result of a mask form for ``rows`` rows; InvalidValue unless it is an array of that many bools."""
    if not isinstance(mask, np.ndarray) or mask.shape != (rows,) or mask.dtype != np.bool_:
        raise _wrong(judge, "mask", f"bool[{rows}]", mask)
    return mask.astype(np.uint8)


def formula_of(weigher: Weigher, request: Request) -> Formula | None:
    """Formula form, or None; InvalidValue for an invalid one."""
    formula = weigher.formula(request)
    if formula is None:
        return None
    if not isinstance(formula, Formula) or formula.number not in range(DOT_PRODUCT, DELTA_PERP + 1):
        raise _wrong(weigher, "formula", "a Formula of the kernels", formula)
    for amount in formula[1:]:
        finite_number(weigher, "formula", amount)
    return formula


def raw_values(weigher: Weigher, values: object, rows: int) -> NDArray[np.float64]:
    """The result of a vectorised form for ``rows`` rows; InvalidValue unless it is an array of that many numbers."""
    if not isinstance(values, np.ndarray) or values.shape != (rows,) or values.dtype.kind not in "fiub":
        raise _wrong(weigher, "values", f"float64[{rows}]", values)
    return values.astype(np.float64)


def finite_number(weigher: Weigher, what: str, value: object) -> float:
    """``value`` if it is a finite number; InvalidValue otherwise."""
    if isinstance(value, (int, float, np.integer, np.floating, np.bool_)) and math.isfinite(value):
        return float(value)
    raise InvalidValue(f"{weigher.name}: {what} is {value!r:.80}, but must be a finite number", field=weigher.name)


def raw_value(weigher: Weigher, what: str, value: object) -> float:
    """``value`` if it is a finite number of at most MAX_RAW either way; InvalidValue otherwise."""
    number = finite_number(weigher, what, value)
    if abs(number) > MAX_RAW:
        raise InvalidValue(f"{weigher.name}: {what} is {number!r}, but must be within 2**1022", field=weigher.name)
    return number


def ends_of(weigher: Weigher) -> dict[str, float | None]:
    """A weigher's minval and maxval; InvalidValue if one is not a finite number, or if minval > maxval."""
    least, greatest = (
        None if value is None else raw_value(weigher, name, value)
        for name, value in (("minval", weigher.minval), ("maxval", weigher.maxval))
    )
    if least is not None and greatest is not None and least > greatest:
        raise InvalidValue(f"{weigher.name}: minval {least:g} is above maxval {greatest:g}", field=weigher.name)
    return {"minval": least, "maxval": greatest}


def _wrong(rule: Filter | Weigher, form: str, wanted: str, value: object) -> InvalidValue:
    got = f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else f"{value!r:.80}"
    return InvalidValue(f"{rule.name}.{form} must return {wanted}, got {got}", field=rule.name)
