"""A sum of doubles that is the same in every version of Python: from 3.12 on the built-in ``sum`` makes up for
rounding."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable


def ordered_sum(values: Iterable[float]) -> float:
    """The values added up from left to right, each partial sum rounded to a double; 0.0 for none. O(values)."""
    return functools.reduce(operator.add, values, 0.0)
