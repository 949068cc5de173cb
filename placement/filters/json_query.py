"""A query over host attributes, as a JSON list in prefix form, in the hint ``query``. Source: Nova 33 JsonFilter.

    ["and", [">=", "$free_ram_mb", 1024], ["not", ["=", "$stats.rack", "r0"]]]

``= < > <= >=`` compare the first argument with all others, ``in`` looks for it among them; with fewer than two
arguments they are false. ``and or`` take all arguments, ``not`` flips each and gives a list. ``$name[.key...]`` is an
attribute of the host; what is not there, null and "" are left out. A list as the answer is true if one item is.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..types.cached_texts import cached_texts
from ..types.errors import InvalidValue
from ..types.host import HostState
from ..types.request import Request
from .base import Filter
from .host_attributes import field_of, structured

_HINT = "query"
_MAX_DEPTH = 64  # of lists in lists: far more than a person writes, far less than Python's recursion limit


@dataclass(frozen=True, slots=True)
class _Attribute:
    """``$name.key.key``."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Command:
    """One list of the query: a command and its arguments (commands, attributes, plain JSON values)."""

    name: str
    arguments: tuple[Any, ...]


class JsonFilter(Filter):
    """Passes a host that satisfies the hint ``query``. A malformed query, or one that compares values without an order
    (a number and a string), is an invalid request."""

    name: ClassVar[str] = "JsonFilter"

    def applies(self, request: Request) -> bool:
        return bool(_text(request))

    def fields(self, request: Request) -> frozenset[str]:
        used = (field_of(attribute.path[0]) for attribute in _attributes(_parse(_text(request))))
        return frozenset(field for field in used if field is not None)

    def key(self, request: Request) -> Hashable:
        return _text(request)

    def host_passes(self, host: HostState, request: Request) -> bool:
        text = _text(request)
        return not text or _is_true(_evaluate(_parse(text), host))

    def reason(self, host: HostState, request: Request) -> str:
        text = _text(request)
        found = {f"${'.'.join(item.path)}": _look_up(item, host) for item in _attributes(_parse(text))}
        values = ", ".join(f"{name}={'missing' if value is None else value}" for name, value in found.items())
        return f"query {text[:200]} is false" + (f" with {values}" if values else "")

    def nova_error(self, host: HostState, request: Request) -> str | None:
        """The exception that Nova 33 raises when it judges ``host``; None also for malformed queries."""
        try:
            self.host_passes(host, request)
        except InvalidValue as error:
            return "TypeError" if isinstance(error.__cause__, TypeError) else None
        return None


# Reading


def _text(request: Request) -> str:
    values = request.scheduler_hints.get(_HINT, ())
    if len(values) > 1:
        raise _invalid(f"takes one value, not {len(values)}")
    return values[0] if values else ""


@cached_texts(1024)
def _parse(text: str) -> Any:
    """The query as commands, attributes and plain values. O(length)."""
    try:
        query = json.loads(text) if text else []
    except (ValueError, RecursionError) as error:
        raise _invalid(f"is not JSON: {text[:200]!r}") from error
    if query and not isinstance(query, list):
        raise _invalid(f"must be a list, not {text[:200]!r}")
    return _node(query or [], _MAX_DEPTH)


def _node(item: Any, depth: int) -> Any:
    """What one JSON value means; an empty list is true, an empty text nothing."""
    if isinstance(item, str):
        return _Attribute(tuple(item[1:].split("."))) if item.startswith("$") else item or None
    if not isinstance(item, list):
        return item
    if not item:
        return True
    if depth == 0:
        raise _invalid(f"nests lists deeper than {_MAX_DEPTH}")
    name = item[0]
    if not isinstance(name, str) or name not in _COMMANDS:
        raise _invalid(f"has the unknown command {str(name)[:200]!r}", hint=f"commands: {' '.join(_COMMANDS)}")
    return _Command(name, tuple(_node(argument, depth - 1) for argument in item[1:]))


def _attributes(node: Any) -> Iterator[_Attribute]:
    if isinstance(node, _Attribute):
        yield node
    elif isinstance(node, _Command):
        for argument in node.arguments:
            yield from _attributes(argument)


def _invalid(problem: str, hint: str | None = None) -> InvalidValue:
    return InvalidValue(f"the hint {_HINT} {problem}", field=f"scheduler_hints.{_HINT}", hint=hint)


# Answering


def _evaluate(node: Any, host: HostState) -> Any:
    if isinstance(node, _Attribute):
        return _look_up(node, host)
    if not isinstance(node, _Command):
        return node
    values = (_evaluate(argument, host) for argument in node.arguments)
    return _COMMANDS[node.name]([value for value in values if value is not None])


def _look_up(attribute: _Attribute, host: HostState) -> Any:
    first, *steps = attribute.path
    value = structured(host, first)
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _is_true(answer: Any) -> bool:
    return any(answer) if isinstance(answer, list) else bool(answer)


def _compare(holds: Callable[[Any, Any], bool]) -> Callable[[list[Any]], bool]:
    def compare_first_with_rest(values: list[Any]) -> bool:
        first, *rest = values or [None]
        try:
            return bool(rest) and all(holds(first, other) for other in rest)
        except TypeError as error:
            raise _invalid(f"orders values of different kinds: {values!r:.200}") from error

    return compare_first_with_rest


def _among(values: list[Any]) -> bool:
    return len(values) > 1 and values[0] in values[1:]


def _flip(values: list[Any]) -> list[bool]:
    return [not value for value in values]


_COMMANDS: dict[str, Callable[[list[Any]], Any]] = {
    "=": _compare(operator.eq),
    "<": _compare(operator.lt),
    ">": _compare(operator.gt),
    "in": _among,
    "<=": _compare(operator.le),
    ">=": _compare(operator.ge),
    "not": _flip,
    "or": any,
    "and": all,
}
