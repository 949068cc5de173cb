"""Expressions by their text: each distinct text is parsed once, for all pools that report it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from . import cinder_grammar, strict_grammar
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
    Sign,
    Variable,
)


@dataclass(frozen=True, slots=True)
class Expression:
    """A text and its tree; ``problem`` instead of a tree where it cannot be read. ``variables`` are all it names."""

    text: str
    strict: bool
    tree: Node | None
    problem: ExpressionError | None
    variables: frozenset[tuple[str, str]]

    @property
    def names_protocol(self) -> bool:
        """True if it is evaluated once for each name of the pool's storage protocol."""
        return "storage_protocol" in self.text


@lru_cache(maxsize=4096)
def expression(text: str, *, strict: bool = False) -> Expression:
    """The expression of a text. O(1) for a text that was read before, else O(length)."""
    try:
        tree = (strict_grammar if strict else cinder_grammar).read(text)
    except ExpressionError as problem:
        return Expression(text, strict, None, problem, frozenset())
    names = frozenset((each.scope, each.name) for each in _nodes(tree) if isinstance(each, Variable))
    return Expression(text, strict, tree, None, names)


def _nodes(tree: Node) -> Iterator[Node]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(_children(node))


def _children(node: Node) -> tuple[Node, ...]:
    match node:
        case Call(argument=inner) | Sign(value=inner) | Not(value=inner):
            return (inner,)
        case Fold(first=first, rest=rest) | Comparison(first=first, rest=rest):
            return (first, *(operand for _, operand in rest))
        case Choice(condition=condition, then=then, otherwise=otherwise):
            return (condition, then, otherwise)
        case Both(operands=operands) | Either(operands=operands):
            return operands
        case Listing(first=first, rest=last):
            return (first, last)
        case _:
            return ()
