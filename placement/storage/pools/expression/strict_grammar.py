"""Reads expressions as Cinder's guide describes them: what strict policies use.

Loosest first: ``,`` | ``c ? a : b`` (nests to the right) | ``or OR || |`` | ``and AND && &`` | ``not NOT !`` |
comparisons (chained) | ``+ -`` | ``* /`` | sign | ``^`` (to the right) | ``name(...)``. Words have boundaries, names
may hold digits, numbers exponents; ``true`` and ``false`` are booleans. All operands of a chain count.
"""

from __future__ import annotations

import re
from typing import Final

from .cinder_grammar import DEEPEST, LONGEST
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

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z_]))
      | (?P<word>[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)?)
      | (?P<text>"[^"]*"|'[^']*')
      | (?P<mark>&&|\|\||<=|>=|<>|!=|==|[-+*/^!<>?:,()&|])
    )""",
    re.VERBOSE,
)
_WORDS: Final = {"and": "&&", "AND": "&&", "&": "&&", "or": "||", "OR": "||", "|": "||", "not": "!", "NOT": "!"}
_COMPARISONS: Final = frozenset({"<", "<=", ">", ">=", "==", "!=", "<>"})
FUNCTIONS: Final = ("abs", "max", "min")


def read(text: str) -> Node:
    """The tree of a text; ExpressionError if it is none. O(length)."""
    if len(text) > LONGEST:
        raise ExpressionError(f"the expression is longer than {LONGEST} characters")
    try:
        return _Reader(text).whole()
    except RecursionError:
        raise ExpressionError("nests too deeply", "RecursionError") from None


class _Reader:
    """Descends once, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = 0
        self.kind, self.token, self.start, self.end = "", "", 0, 0
        self.advance()

    def advance(self) -> str:
        """Takes the token that is ahead."""
        taken, self.start = self.token, self.end
        match = _TOKEN.match(self.text, self.end)
        if match is not None:
            self.kind = match.lastgroup or ""
            self.token, self.end = match[self.kind], match.end()
            if self.kind != "text":
                self.token = _WORDS.get(self.token, self.token)
                self.kind = "mark" if self.token in _WORDS.values() else self.kind
        elif self.text[self.end :].strip():
            raise self.error()
        else:
            self.kind, self.token = "end", ""
        return taken

    def error(self) -> ExpressionError:
        rest = self.text[self.start :].strip()
        return ExpressionError(f"cannot be read at {rest[:20]!r}" if rest else "ends too early")

    def ahead(self, *marks: str) -> bool:
        return self.kind == "mark" and self.token in marks

    def expect(self, mark: str) -> None:
        if not self.ahead(mark):
            raise self.error()
        self.advance()

    def whole(self) -> Node:
        tree = self.listing()
        if self.kind != "end":
            raise self.error()
        return tree

    def listing(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST // 10:
            raise ExpressionError("nests too deeply", "RecursionError")
        tree = self.choice()
        if self.ahead(","):
            self.advance()
            tree = Listing(tree, self.listing())
        self.depth -= 1
        return tree

    def choice(self) -> Node:
        condition = self.either()
        if not self.ahead("?"):
            return condition
        self.advance()
        self.depth += 1
        if self.depth > DEEPEST // 10:
            raise ExpressionError("nests too deeply", "RecursionError")
        then = self.choice()
        self.expect(":")
        otherwise = self.choice()
        self.depth -= 1
        return Choice(condition, then, otherwise)

    def either(self) -> Node:
        operands = [self.both()]
        while self.ahead("||"):
            self.advance()
            operands.append(self.both())
        return Either(tuple(operands), eager=False) if len(operands) > 1 else operands[0]

    def both(self) -> Node:
        operands = [self.negation()]
        while self.ahead("&&"):
            self.advance()
            operands.append(self.negation())
        return Both(tuple(operands), eager=False) if len(operands) > 1 else operands[0]

    def negation(self) -> Node:
        negations = 0
        while self.ahead("!"):
            self.advance()
            negations += 1
        tree = self.comparison()
        for _ in range(negations and 2 - negations % 2):
            tree = Not(tree)
        return tree

    def comparison(self) -> Node:
        first, rest = self.sum(), []
        while self.ahead(*_COMPARISONS):
            rest.append((self.advance(), self.sum()))
        return Comparison(first, tuple(rest)) if rest else first

    def sum(self) -> Node:
        first, rest = self.product(), []
        while self.ahead("+", "-"):
            rest.append((self.advance(), self.product()))
        return Fold(first, tuple(rest)) if rest else first

    def product(self) -> Node:
        first, rest = self.signed(), []
        while self.ahead("*", "/"):
            rest.append((self.advance(), self.signed()))
        return Fold(first, tuple(rest)) if rest else first

    def signed(self) -> Node:
        sign, signs = 1, 0
        while self.ahead("+", "-"):
            sign, signs = (-sign if self.advance() == "-" else sign), signs + 1
        tree = self.power()
        return Sign(sign, tree) if signs else tree

    def power(self) -> Node:
        base = self.operand()
        if not self.ahead("^"):
            return base
        self.advance()
        self.depth += 1
        if self.depth > DEEPEST // 10:
            raise ExpressionError("nests too deeply", "RecursionError")
        exponent = self.signed()
        self.depth -= 1
        return Fold(base, (("^", exponent),))

    def operand(self) -> Node:
        if self.kind == "number":
            return Number(_number(self.advance()))
        if self.kind == "text":
            return Text(self.advance()[1:-1])
        if self.kind == "word":
            return self.word(self.advance())
        self.expect("(")
        tree = self.listing()
        self.expect(")")
        return tree

    def word(self, word: str) -> Node:
        if self.ahead("("):
            if word not in FUNCTIONS:
                raise ExpressionError(f"no function {word!r}: there are {', '.join(FUNCTIONS)}")
            self.advance()
            argument = self.listing()
            self.expect(")")
            return Call(word, argument)
        if word.lower() in ("true", "false"):
            return Truth(word.lower() == "true")
        return Variable(*word.split(".")) if "." in word else Text(word)


def _number(digits: str) -> int | float:
    if len(digits) > 300:
        raise ExpressionError("a number has more than 300 digits", "ValueError")
    return int(digits) if digits.isdigit() else float(digits)
