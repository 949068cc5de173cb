"""The value of an expression for many pools at once. Values that doubles cannot represent exactly, and most values that
are not numbers, are marked HARD and left to ``scalar``, so that both always agree.

A value is a float64 number and a kind for each row; whole numbers are exact below 2**52, where HARD begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .nodes import (
    Both,
    Call,
    Choice,
    Comparison,
    Either,
    Fold,
    Listing,
    Node,
    Not,
    Number,
    Sign,
    Text,
    Truth,
    Variable,
)
from .scalar import COMPARISONS

NUMBER: Final = 0
BOOLEAN: Final = 1
TEXT: Final = 2
HARD: Final = 3
"""Only the scalar evaluation can tell."""
BAD: Final = 4
"""There is no value."""
GREATEST: Final = 2.0**52

Floats: TypeAlias = NDArray[np.float64]
Kinds: TypeAlias = NDArray[np.uint8]
Codes: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Vector:
    """Values of rows, or one for all (no dimension). ``codes`` are places in ``words`` where the kind is TEXT."""

    numbers: Floats
    kinds: Kinds
    codes: Codes | None = None
    words: Sequence[str] = ()


Variables: TypeAlias = Callable[[str, str], Vector]
"""Values of ``scope.name``."""


def constant(value: Any) -> Vector:
    """One value for all rows: a number, boolean or text; BAD for None."""
    if isinstance(value, str):
        return Vector(np.zeros(()), _kind(TEXT), np.zeros((), np.int32), (value,))
    if value is None:
        return Vector(np.zeros(()), _kind(BAD))
    if isinstance(value, bool):
        return Vector(np.array(float(value)), _kind(BOOLEAN))
    if not isinstance(value, int | float):
        return Vector(np.zeros(()), _kind(HARD))
    fine = abs(value) < GREATEST  # false for NaN
    return Vector(np.array(float(value) if fine else 0.0), _kind(NUMBER if fine else HARD))


def _kind(kind: int) -> Kinds:
    return np.array(kind, np.uint8)


def evaluate_rows(tree: Node, variables: Variables) -> Vector:
    """The values of a tree. O(tree * rows)."""
    with np.errstate(all="ignore"):
        return _Walk(variables).value(tree)


class _Walk:
    """One walk over a tree, all rows side by side."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables

    def value(self, tree: Node) -> Vector:
        match tree:
            case Number(value=value) | Text(value=value) | Truth(value=value):
                return constant(value)
            case Variable(scope=scope, name=name):
                return self.variables(scope, name)
            case Sign(sign=sign, value=inner):
                return _arithmetic(self.value(inner), constant(sign), "*")
            case Fold(first=first, rest=rest):
                return self.fold(self.value(first), rest)
            case Not(value=inner):
                found = self.value(inner)
                return Vector((found.numbers == 0).astype(np.float64), _as_truth(found, BOOLEAN))
            case Comparison(first=first, rest=rest):
                return self.comparison(first, rest)
            case Choice(condition=condition, then=then, otherwise=otherwise):
                return _chosen(self.value(condition), self.value(then), self.value(otherwise))
            case Both(operands=operands, eager=eager):
                return self.chain(operands, eager, stop=False)
            case Either(operands=operands, eager=eager):
                return self.chain(operands, eager, stop=True)
            case Call(function=function, argument=argument):
                return self.call(function, argument)
            case Listing():
                return Vector(np.zeros(()), _kind(HARD))

    def fold(self, result: Vector, rest: Sequence[tuple[str, Node]]) -> Vector:
        for symbol, operand in rest:
            value = self.value(operand)
            result = _power(result, value) if symbol == "^" else _arithmetic(result, value, symbol)
        return result

    def comparison(self, first: Node, rest: Sequence[tuple[str, Node]]) -> Vector:
        """Pairs from left to right, until one does not hold or has no value."""
        left = self.value(first)
        going, kinds = np.ones((), np.bool_), _kind(BOOLEAN)
        for symbol, operand in rest:
            right = self.value(operand)
            holds, known = _compared(left, right, symbol)
            kinds = np.where(going, known, kinds)
            going, left = going & holds & (known == BOOLEAN), right
        return Vector(going.astype(np.float64), kinds)

    def chain(self, operands: Sequence[Node], eager: bool, *, stop: bool) -> Vector:
        """The first operand of this truth, else the last; ``eager``: all operands must have a value."""
        result = _plain(self.value(operands[0]))
        for operand in operands[1:]:
            value = _plain(self.value(operand))
            chosen = _where((result.numbers != 0) == stop, result, value)
            known = np.maximum(result.kinds, value.kinds) if eager else result.kinds
            result = Vector(chosen.numbers, np.where(known >= HARD, known, chosen.kinds))
        return result

    def call(self, function: str, argument: Node) -> Vector:
        arguments = [_plain(self.value(each)) for each in _listed(argument)]
        kinds = np.maximum.reduce(np.broadcast_arrays(*(each.kinds for each in arguments)))
        if function == "abs" and len(arguments) == 1:
            return Vector(np.abs(arguments[0].numbers), np.where(kinds <= BOOLEAN, NUMBER, kinds).astype(np.uint8))
        if function not in ("max", "min") or len(arguments) == 1:
            return Vector(np.zeros(()), np.where(kinds == BAD, BAD, HARD).astype(np.uint8))
        pick = np.maximum if function == "max" else np.minimum
        result = arguments[0].numbers
        for each in arguments[1:]:
            result = pick(result, each.numbers)
        return Vector(result, np.where(kinds == BOOLEAN, HARD, kinds).astype(np.uint8))


def _listed(tree: Node) -> list[Node]:
    items = []
    while isinstance(tree, Listing):
        items.append(tree.first)
        tree = tree.rest
    return [*items, tree]


def _plain(value: Vector) -> Vector:
    """Texts are hard wherever they are not compared."""
    return value if value.codes is None else Vector(value.numbers, np.where(value.kinds == TEXT, HARD, value.kinds))


def _truth_kinds(value: Vector) -> Kinds:
    return _plain(value).kinds


def _as_truth(value: Vector, kind: int) -> Kinds:
    kinds = _truth_kinds(value)
    return np.where(kinds >= HARD, kinds, np.uint8(kind))


def _where(condition: NDArray[np.bool_], first: Vector, second: Vector) -> Vector:
    return Vector(np.where(condition, first.numbers, second.numbers), np.where(condition, first.kinds, second.kinds))


def _chosen(condition: Vector, then: Vector, otherwise: Vector) -> Vector:
    found = _where(condition.numbers != 0, _plain(then), _plain(otherwise))
    unsure = _truth_kinds(condition)
    return Vector(found.numbers, np.where(unsure >= HARD, unsure, found.kinds))


def _arithmetic(left: Vector, right: Vector, symbol: str) -> Vector:
    kinds = np.maximum(_truth_kinds(left), _truth_kinds(right))
    if symbol == "+":
        result = left.numbers + right.numbers
    elif symbol == "-":
        result = left.numbers - right.numbers
    elif symbol == "*":
        result = left.numbers * right.numbers
    else:
        result = left.numbers / right.numbers
        kinds = np.where((right.numbers == 0) & (kinds < HARD), np.uint8(BAD), kinds)
    return _bounded(result, kinds)


def _bounded(result: Floats, kinds: Kinds) -> Vector:
    """A number, unless an operand is none or the result is beyond what is exact."""
    exact = np.abs(result) < GREATEST
    kinds = np.where(kinds >= HARD, kinds, np.where(exact, np.uint8(NUMBER), np.uint8(HARD)))
    return Vector(np.where(exact, result, 0.0), kinds)


def _power(base: Vector, exponent: Vector) -> Vector:
    """Whole numbers by repeated products; anything else is hard."""
    kinds = np.maximum(_truth_kinds(base), _truth_kinds(exponent))
    times = exponent.numbers
    if times.ndim or times != np.floor(times) or not 0 <= times <= 16:
        return Vector(np.zeros(()), np.where(kinds == BAD, np.uint8(BAD), np.uint8(HARD)))
    whole = base.numbers == np.floor(base.numbers)
    result = np.ones_like(base.numbers)
    for _ in range(int(times)):
        result = result * base.numbers
    return _bounded(result, np.where(whole | (kinds >= HARD), kinds, np.uint8(HARD)))


def _compared(left: Vector, right: Vector, symbol: str) -> tuple[NDArray[np.bool_], Kinds]:
    """(holds, BOOLEAN or HARD or BAD)."""
    holds = COMPARISONS[symbol](left.numbers, right.numbers)
    kinds = np.maximum(left.kinds, right.kinds)
    kinds = np.where(kinds >= HARD, kinds, np.uint8(BOOLEAN))
    if left.codes is None and right.codes is None:
        return holds, kinds
    left_text, right_text = left.kinds == TEXT, right.kinds == TEXT
    both = left_text & right_text & (kinds == BOOLEAN)
    mixed = (left_text != right_text) & (kinds == BOOLEAN)
    if symbol in ("==", "!=", "<>"):
        holds = np.where(mixed, symbol != "==", holds)
    else:
        kinds = np.where(mixed, np.uint8(BAD), kinds)
    if both.any():
        holds, kinds = _texts_compared(left, right, symbol, both, holds, kinds)
    return holds, kinds


def _texts_compared(
    left: Vector, right: Vector, symbol: str, both: NDArray[np.bool_], holds: NDArray[np.bool_], kinds: Kinds
) -> tuple[NDArray[np.bool_], Kinds]:
    assert left.codes is not None
    assert right.codes is not None
    compare = COMPARISONS[symbol]
    if right.codes.ndim == 0:
        by_code = np.array([compare(word, right.words[int(right.codes)]) for word in left.words], np.bool_)
        answers = by_code[left.codes]
    elif left.codes.ndim == 0:
        by_code = np.array([compare(left.words[int(left.codes)], word) for word in right.words], np.bool_)
        answers = by_code[right.codes]
    else:
        return holds, np.where(both, np.uint8(HARD), kinds)
    return np.where(both, answers, holds), kinds
