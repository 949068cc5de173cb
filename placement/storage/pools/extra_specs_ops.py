"""Operators of a volume type's extra specs: does one capability value satisfy one requirement?

    =   ==  !=  >=  <=        as numbers (= is >=)      s== s!= s< s<= s> s>=   as texts
    <in> text                 contains                  <is> yes                as booleans
    <or> a <or> b             equal to one of them      anything else           equal to the whole requirement

Only the first operand counts. There is no numeric ``<`` or ``>``. Source: Cinder 29, extra_specs_ops.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})


def is_true(value: object) -> bool:
    """A value as a boolean, as oslo.utils reads it: 1, t, true, on, y and yes are true, all else is false. O(1)."""
    return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE


def _numbers(holds: Callable[[float, float], bool]) -> Callable[[Any, str], bool]:
    return lambda value, wanted: holds(float(value), float(wanted))


_OPERATORS: Final[dict[str, Callable[[Any, str], bool]]] = {
    "=": _numbers(operator.ge),
    "==": _numbers(operator.eq),
    "!=": _numbers(operator.ne),
    ">=": _numbers(operator.ge),
    "<=": _numbers(operator.le),
    "<in>": operator.contains,
    "<is>": lambda value, wanted: is_true(value) is is_true(wanted),
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
}


def match(value: Any, requirement: str | None) -> bool:
    """True if a capability's value satisfies a requirement. O(length).

    TypeError where the two cannot be compared (a list as a number), IndexError for a bare ``<or>``, as in Cinder: the
    caller refuses the pool.
    """
    if requirement is None:
        return value is None
    first, *words = requirement.split() or [""]
    if first == "<or>":
        return value is not None and _any_of(value, words)
    holds = _OPERATORS.get(first)
    if holds is None:
        return bool(value == requirement)
    if value is None or not words:
        return False
    try:
        return bool(holds(value, words[0]))
    except ValueError:
        return False


def _any_of(value: Any, words: list[str]) -> bool:
    """``words`` = a, <or>, b, ...: every second one is a choice, whatever stands between."""
    if not words:
        raise IndexError("<or> without a choice")
    return value in words[::2]
