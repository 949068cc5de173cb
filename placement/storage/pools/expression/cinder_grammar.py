"""Reads expressions exactly as Cinder 29 does, traps included; strict_grammar.py reads them as one would expect.

Tightest first: function (any word before an operand), ``^``, sign, ``* /``, ``+ -``, ``! not NOT``, comparisons,
``?:``, ``and AND &&``, ``or OR ||``, ``,``. Each level tries its operator first and falls back to the next tighter one
(an ordered choice with memory), which decides the corner cases:

- operators have no word boundary: ``notable`` is ``not able``, ``1 order`` is ``1 or der``;
- a word in front of an operand is a function, ``extra.a and 1`` too: it applies ``extra.a`` to ``and`` applied to 1;
- of ``a and b and c`` only the first two count, and of ``a ? b : c ? d : e`` the first three.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

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
    Variable,
)

DEEPEST: Final = 330
"""Steps that the reader goes down at most: 30 parentheses in each other, with two Python frames a step."""
LONGEST: Final = 10_000
"""Characters of an expression."""

_SPACE: Final = re.compile(r"[ \n\t\r]*")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_WORD: Final = re.compile(r"[A-Za-z_.]+")
_QUOTED: Final = tuple(
    # The closing quote must follow what can be read at most, so the body never gives anything back.
    re.compile(rf"{quote}(?:[^{quote}\n\r\\]|{quote}{quote}|\\(?:[^x]|x[0-9a-fA-F]+))*")
    for quote in "\"'"
)
_VARIABLE: Final = re.compile(r"[A-Za-z_]+\.[A-Za-z_]+")

_Found = tuple[Node, int] | None

_OPERATORS: Final = tuple(
    map(
        re.compile,
        (
            r"[A-Za-z_.]+",
            r"\^",
            r"[+\-]",
            r"[*/]",
            r"[+\-]",
            r"NOT|not|!",
            r"<=|<>|<|>=|>|!=|==",
            r"\?",
            r"AND|and|&&",
            r"OR|or|\|\|",
            r",",
        ),
    )
)
FUNCTION, POWER, SIGN, PRODUCT, SUM, NEGATION, COMPARISON, CHOICE, BOTH, EITHER, LISTING = range(len(_OPERATORS))
_PREFIX: Final = frozenset({FUNCTION, SIGN, NEGATION})
_COLON: Final = re.compile(":")


def read(text: str) -> Node:
    """The tree of a text; ExpressionError if it is none. O(length * levels)."""
    if len(text) > LONGEST:
        raise ExpressionError(f"the expression is longer than {LONGEST} characters")
    try:
        return _Reader(text.expandtabs()).whole()
    except RecursionError:
        raise ExpressionError("nests too deeply", "RecursionError") from None


class _Reader:
    """One text, with what was found at each (level, position)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: dict[tuple[int, int], _Found] = {}
        self.depth = 0
        self.furthest = 0

    def whole(self) -> Node:
        found = self.level(LISTING, 0)
        if found is None or self.skip(found[1]) != len(self.text):
            at = max(self.furthest, found[1] if found else 0)
            raise ExpressionError(f"cannot be read at {self.text[at : at + 20]!r} (character {at + 1})")
        return found[0]

    def skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        assert match is not None
        return match.end()

    def token(self, pattern: re.Pattern[str], at: int) -> tuple[str, int] | None:
        start = self.skip(at)
        self.furthest = max(self.furthest, start)
        match = pattern.match(self.text, start)
        return None if match is None else (match.group(), match.end())

    def level(self, level: int, at: int) -> _Found:
        """What a level finds at a position, and where it ends."""
        if level < 0:
            return self.operand(at)
        key = (level, at)
        if key not in self.found:
            self.depth += 1
            if self.depth > DEEPEST:
                raise ExpressionError("nests too deeply", "RecursionError")
            if level in _PREFIX:
                found = self.prefixed(level, at)
            elif level == CHOICE:
                found = self.choice(at)
            else:
                found = self.joined(level, at)
            self.found[key] = found
            self.depth -= 1
        return self.found[key]

    def operand(self, at: int) -> _Found:
        number = self.token(_NUMBER, at)
        if number is not None:
            return Number(float(number[0]) if "." in number[0] else _whole(number[0])), number[1]
        word = self.token(_WORD, at)
        if word is not None:
            return _named(word[0]), word[1]
        start = self.skip(at)
        for quoted in _QUOTED:
            match = quoted.match(self.text, start)
            if match is not None and self.text[match.end() : match.end() + 1] == self.text[start]:
                return Text(match.group().replace('"', "").replace("'", "")), match.end() + 1
        if self.text[start : start + 1] != "(":
            return None
        inner = self.level(LISTING, start + 1)
        if inner is None:
            return None
        end = self.skip(inner[1])
        return (inner[0], end + 1) if self.text[end : end + 1] == ")" else None

    def prefixed(self, level: int, at: int) -> _Found:
        operator = self.token(_OPERATORS[level], at)
        value = self.level(level, operator[1]) if operator is not None else None
        if operator is None or value is None:
            return self.level(level - 1, at)
        return _prefixed(level, operator[0], value[0]), value[1]

    def joined(self, level: int, at: int) -> _Found:
        first = self.level(level - 1, at)
        if first is None:
            return None
        operand = level if level in (POWER, LISTING) else level - 1
        rest: list[tuple[str, Node]] = []
        end = first[1]
        while True:
            operator = self.token(_OPERATORS[level], end)
            value = self.level(operand, operator[1]) if operator is not None else None
            if operator is None or value is None:
                return (_JOINED[level](first[0], rest), end) if rest else first
            rest.append((operator[0], value[0]))
            end = value[1]

    def choice(self, at: int) -> _Found:
        condition = self.level(CHOICE - 1, at)
        if condition is None:
            return None
        first: tuple[Node, Node] | None = None
        end = condition[1]
        while True:
            branches = self.branches(end)
            if branches is None:
                break
            first, end = first or branches[0], branches[1]
        return condition if first is None else (Choice(condition[0], *first), end)

    def branches(self, at: int) -> tuple[tuple[Node, Node], int] | None:
        question = self.token(_OPERATORS[CHOICE], at)
        then = self.level(CHOICE - 1, question[1]) if question else None
        colon = self.token(_COLON, then[1]) if then else None
        otherwise = self.level(CHOICE - 1, colon[1]) if colon else None
        return ((then[0], otherwise[0]), otherwise[1]) if then and otherwise else None


def _whole(digits: str) -> int:
    if len(digits) > 300:
        raise ExpressionError("a number has more than 300 digits", "ValueError")
    return int(digits)


def _named(word: str) -> Node:
    if _VARIABLE.fullmatch(word):
        return Variable(*word.split("."))
    try:
        return Number(float(word))  # inf, infinity and nan, in any case
    except ValueError:
        return Text(word)


def _prefixed(level: int, operator: str, value: Node) -> Node:
    if level == FUNCTION:
        return Call(operator, value)
    return Not(value) if level == NEGATION else Sign(-1 if operator == "-" else 1, value)


def _listing(first: Node, rest: list[tuple[str, Node]]) -> Node:
    return Listing(first, rest[0][1])


_JOINED: Final[dict[int, Callable[[Node, list[tuple[str, Node]]], Node]]] = {
    POWER: lambda first, rest: Fold(first, tuple(rest)),
    PRODUCT: lambda first, rest: Fold(first, tuple(rest)),
    SUM: lambda first, rest: Fold(first, tuple(rest)),
    COMPARISON: lambda first, rest: Comparison(first, tuple(rest)),
    BOTH: lambda first, rest: Both((first, rest[0][1]), eager=True),
    EITHER: lambda first, rest: Either((first, rest[0][1]), eager=True),
    LISTING: _listing,
}
