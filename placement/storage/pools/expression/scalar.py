"""The value of an expression for one pool: plain Python values, the oracle of vector.py.

Cinder's conversions: a variable that is a float is cut to a whole number, a boolean is 1 or 0, a text that reads as a
number is one; None, lists and dicts have no value. Strict: numbers and booleans stay as they are, infinities are none.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from .nodes import (
    Both,
    Call,
    Choice,
    Comparison,
    Either,
    ExpressionError,
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

Scopes = Mapping[str, Any]
"""Scope name -> name -> value."""

MOST_BITS: Final = 4096
"""Maximum bits of the result of an integer power; Cinder has no limit."""
MOST_ITEMS: Final = 10_000
"""Characters or items of a text or list that is multiplied."""
_ERRORS: Final = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "!=": operator.ne,
    "<>": operator.ne,
    "==": operator.eq,
}
_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {"abs": abs, "max": max, "min": min}


def evaluate(tree: Node, scopes: Scopes, *, strict: bool = False) -> Any:
    """The value of a tree; ExpressionError, with Cinder's exception as ``kind``, where it has none. O(tree)."""
    try:
        return _Evaluation(scopes, strict).value(tree)
    except ExpressionError:
        raise
    except _ERRORS as error:
        raise ExpressionError(f"{type(error).__name__}: {error}", type(error).__name__) from error


def converted(value: Any) -> Any:
    """A variable's value as Cinder takes it. TypeError or OverflowError where it has none. O(1)."""
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return value.replace('"', "").replace("'", "") if isinstance(value, str) else value


def kept(value: Any) -> Any:
    """A variable's value in strict expressions: texts that read as numbers are, the rest is what it is. O(1)."""
    if isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} has no value in an expression")
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return value
    return number if abs(number) < float("inf") else value


class _Evaluation:
    """One walk over a tree."""

    def __init__(self, scopes: Scopes, strict: bool) -> None:
        self.scopes = scopes
        self.strict = strict

    def value(self, tree: Node) -> Any:
        return _VISITS[type(tree)](self, tree)

    def constant(self, tree: Number | Text | Truth) -> Any:
        return tree.value

    def variable(self, tree: Variable) -> Any:
        scope = self.scopes.get(tree.scope)
        if not isinstance(scope, Mapping) or tree.name not in scope:
            raise ExpressionError(f"there is no {tree.scope}.{tree.name}")
        try:
            return kept(scope[tree.name]) if self.strict else converted(scope[tree.name])
        except _ERRORS as error:
            problem = f"{tree.scope}.{tree.name} is {scope[tree.name]!r:.60}"
            raise ExpressionError(problem, type(error).__name__) from error

    def call(self, tree: Call) -> Any:
        arguments = self.value(tree.argument)
        if not isinstance(arguments, list):
            arguments = [arguments]
        if self.strict and len(arguments) == 1 and tree.function in ("max", "min"):
            return arguments[0]
        return _FUNCTIONS[tree.function](*arguments)

    def sign(self, tree: Sign) -> Any:
        return tree.sign * self.value(tree.value)

    def fold(self, tree: Fold) -> Any:
        result = self.value(tree.first)
        for symbol, operand in tree.rest:
            result = _ARITHMETIC[symbol](result, self.value(operand))
        return result

    def negation(self, tree: Not) -> bool:
        return not self.value(tree.value)

    def comparison(self, tree: Comparison) -> bool:
        left = self.value(tree.first)
        for symbol, operand in tree.rest:
            right = self.value(operand)
            if not COMPARISONS[symbol](left, right):
                return False
            left = right
        return True

    def choice(self, tree: Choice) -> Any:
        return self.value(tree.then if self.value(tree.condition) else tree.otherwise)

    def both(self, tree: Both) -> Any:
        return self.first_that(tree, False)

    def either(self, tree: Either) -> Any:
        return self.first_that(tree, True)

    def first_that(self, tree: Both | Either, wanted: bool) -> Any:
        result = None
        found = False
        for operand in tree.operands:
            value = self.value(operand)
            if not found:
                result = value
                found = bool(value) is wanted
            if found and not tree.eager:
                break
        return result

    def listing(self, tree: Listing) -> list[Any]:
        first, rest = self.value(tree.first), self.value(tree.rest)
        return [first, *rest] if isinstance(rest, list) else [first, rest]


def _divided(left: Any, right: Any) -> Any:
    try:
        return left / float(right)
    except ZeroDivisionError:
        raise ExpressionError("division by zero") from None


def _multiplied(left: Any, right: Any) -> Any:
    for items, times in ((left, right), (right, left)):
        if isinstance(items, str | list) and isinstance(times, int) and len(items) * times > MOST_ITEMS:
            raise OverflowError("a text or list becomes too long")
    _check_bits(left, 1, right)
    return left * right


def _raised(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and right > 0:
        _check_bits(left, right, 0)
    return pow(left, right)


def _check_bits(left: Any, times: int, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * times + right.bit_length() > MOST_BITS:
        raise OverflowError("a number becomes too great")


_ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": operator.iadd,
    "-": operator.sub,
    "*": _multiplied,
    "/": _divided,
    "^": _raised,
}
_VISITS: Final[Mapping[type[Any], Callable[[_Evaluation, Any], Any]]] = {
    Number: _Evaluation.constant,
    Text: _Evaluation.constant,
    Truth: _Evaluation.constant,
    Variable: _Evaluation.variable,
    Call: _Evaluation.call,
    Sign: _Evaluation.sign,
    Fold: _Evaluation.fold,
    Not: _Evaluation.negation,
    Comparison: _Evaluation.comparison,
    Choice: _Evaluation.choice,
    Both: _Evaluation.both,
    Either: _Evaluation.either,
    Listing: _Evaluation.listing,
}
