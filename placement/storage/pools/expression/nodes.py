"""Trees of expressions, and the error of one that has no value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ....types.errors import HostlerError


class ExpressionError(HostlerError):
    """An expression cannot be read, or has no value for a pool; ``kind`` is the exception that Cinder 29 raises."""

    code = "expression"

    def __init__(self, message: str, kind: str = "EvaluatorParseException") -> None:
        super().__init__(message, field="expression")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is written."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted text, or a bare word that names no variable; without quotes."""

    value: str


@dataclass(frozen=True, slots=True)
class Truth:
    """``true`` or ``false``, in strict expressions."""

    value: bool


@dataclass(frozen=True, slots=True)
class Variable:
    """``scope.name``."""

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its one argument, which may be a list."""

    function: str
    argument: Node


@dataclass(frozen=True, slots=True)
class Sign:
    """1 or -1 times something."""

    sign: int
    value: Node


@dataclass(frozen=True, slots=True)
class Fold:
    """Operands with operators between them, from left to right: ``* /``, ``+ -`` or ``^``."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite truth."""

    value: Node


@dataclass(frozen=True, slots=True)
class Comparison:
    """``a < b < c``: every neighbouring pair holds."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """``condition ? then : otherwise``."""

    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Both:
    """``a and b``: the first that is false, else the last. ``eager``: every operand must have a value (Cinder)."""

    operands: tuple[Node, ...]
    eager: bool


@dataclass(frozen=True, slots=True)
class Either:
    """``a or b``: the first that is true, else the last."""

    operands: tuple[Node, ...]
    eager: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """``a, b``: a list; a list on the right is joined."""

    first: Node
    rest: Node


Node: TypeAlias = (
    Number | Text | Truth | Variable | Call | Sign | Fold | Not | Comparison | Choice | Both | Either | Listing
)
