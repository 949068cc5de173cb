"""The requirement syntax of flavor extra specs: ``"<operator> <operand>"``. Compares one string with a requirement.

    operator                     holds if                                             operands used
    (none)                       the value equals the whole requirement
    =  (sic)  >=  <=  ==  !=     as numbers; ``=`` means "at least"                   first
    s== s!= s< s<= s> s>=        as texts                                             first
    <in>                         the operand is a part of the value                   first
    <all-in>                     every operand is a part of the value                 all
    <or> a <or> b ...            the value equals one of them                         every second word

An operator without an operand never holds. Source: Nova 33 extra_specs_ops.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

from .cached_texts import cached_texts
from .errors import InvalidValue

_NUMERIC: dict[str, Callable[[float, float], bool]] = {
    "=": operator.ge,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_TEXTUAL: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
}
_OTHER = ("<in>", "<all-in>", "<or>")


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed requirement. ``operator`` is empty for plain equality with ``text``; ``number`` is a numeric operand."""

    text: str
    operator: str = ""
    operands: tuple[str, ...] = ()
    number: float | None = None

    @property
    def is_numeric(self) -> bool:
        """True if the operator compares numbers and has an operand, valid or not."""
        return self.operator in _NUMERIC and bool(self.operands)

    def check(self, spec: str) -> None:
        """Raise InvalidValue, naming the extra spec ``spec``, if a numeric operator has an operand that is not a
        number."""
        if self.is_numeric and self.number is None:
            raise InvalidValue(
                f"extra spec {spec}: {self.operands[0]!r} is not a number in {self.text!r}",
                field=spec,
                hint="use s== or s!= to compare text",
            )

    def holds(self, value: str) -> bool:
        """Whether ``value`` satisfies the requirement. A value that is not a number satisfies no numeric
        requirement."""
        if not self.operator:
            return value == self.text
        if not self.operands:
            return False
        if self.operator in _NUMERIC:
            return self._holds_as_number(value)
        if self.operator in _TEXTUAL:
            return _TEXTUAL[self.operator](value, self.operands[0])
        if self.operator == "<or>":
            return value in self.operands[::2]
        needed = self.operands if self.operator == "<all-in>" else self.operands[:1]
        return all(word in value for word in needed)

    def failure(self, value: str) -> str:
        """Why ``value`` does not satisfy the requirement: '8 does not satisfy ...' or '... is not a number'."""
        if self.is_numeric and number(value) is None:
            return f"{value!r} is not a number, which {self.text!r} needs"
        return f"{value[:200]} does not satisfy {self.text!r}"

    def nova_error(self, value: str) -> str | None:
        """The exception that Nova 33 raises for ``value``, which aborts the whole request in Nova; or None."""
        broken = self.is_numeric and (self.number is None or number(value) is None)
        return "ValueError" if broken else None

    def _holds_as_number(self, value: str) -> bool:
        found = number(value)
        return found is not None and self.number is not None and _NUMERIC[self.operator](found, self.number)


@cached_texts(4096)
def parse(text: str) -> Condition:
    """The requirement ``text`` as a Condition. O(length); never fails, see ``Condition.check``."""
    first, *operands = text.split() or [""]
    if first in _NUMERIC:
        return Condition(text, first, tuple(operands), number(operands[0]) if operands else None)
    if first in _TEXTUAL or first in _OTHER:
        return Condition(text, first, tuple(operands))
    return Condition(text)


def number(text: str) -> float | None:
    """``text`` as Python's float() reads it, or None."""
    try:
        return float(text)
    except ValueError:
        return None
