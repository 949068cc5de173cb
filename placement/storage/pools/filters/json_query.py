"""JsonFilter: a query over a pool's attributes as a JSON list in prefix form, in the hint ``query``. Source: Cinder 29.

    ["and", [">=", "$free_capacity_gb", 100], ["=", "$capabilities.tier", "gold"]]

``= < > <= >=`` compare the first argument with all others, ``in`` looks for it among them; with fewer than two they are
false. ``and or`` take all arguments, ``not`` flips each and gives a list. ``$name.key`` is an attribute; arguments that
are not there, null or "" are left out.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ....types.cached_texts import cached_texts
from ..filter_properties import FilterProperties
from ..view import attribute
from .base import CAPACITIES, PoolFilter

if TYPE_CHECKING:
    from ..pools import Pools


class JsonFilter(PoolFilter):
    """Passes a pool that satisfies the hint. A malformed query refuses every pool."""

    name: ClassVar[str] = "JsonFilter"
    reads: ClassVar[str] = CAPACITIES

    def applies(self, filter_properties: FilterProperties) -> bool:
        return bool(filter_properties.spec.scheduler_hints.get("query"))

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        answer = _answer(_parsed(filter_properties.spec.scheduler_hints["query"]), pools, row)
        return any(answer) if isinstance(answer, list) else bool(answer)

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        return f"query {filter_properties.spec.scheduler_hints['query']:.200} is false"


@cached_texts(256)
def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the query nests too deeply") from None


def _answer(query: Any, pools: Pools, row: int) -> Any:
    if not query:
        return True
    if not isinstance(query, list):
        raise TypeError(f"a query must be a list, not {query!r:.60}")
    command = _COMMANDS.get(query[0]) if isinstance(query[0], str) else None
    if command is None:
        raise KeyError(f"there is no command {query[0]!r:.60}")
    arguments = [_argument(each, pools, row) for each in query[1:]]
    return command([each for each in arguments if each is not None])


def _argument(item: Any, pools: Pools, row: int) -> Any:
    if isinstance(item, list):
        return _answer(item, pools, row)
    if not isinstance(item, str):
        return item
    if not item.startswith("$"):
        return item or None
    first, *path = item[1:].split(".")
    found = attribute(pools, row, first)
    for step in path:
        if found is None:
            return None
        if not isinstance(found, Mapping):
            raise AttributeError(f"{item} leads through a value")
        found = found.get(step)
    return found


def _compare(holds: Callable[[Any, Any], bool]) -> Callable[[list[Any]], bool]:
    def compare_first_with_rest(values: list[Any]) -> bool:
        # All are compared, whatever the first gives: values that have no order refuse the pool.
        answers = [holds(values[0], other) for other in values[1:]]
        return bool(answers) and all(answers)

    return compare_first_with_rest


_COMMANDS: Final[Mapping[str, Callable[[list[Any]], Any]]] = {
    "=": _compare(operator.eq),
    "<": _compare(operator.lt),
    ">": _compare(operator.gt),
    "<=": _compare(operator.le),
    ">=": _compare(operator.ge),
    "in": lambda values: len(values) > 1 and values[0] in values[1:],
    "not": lambda values: [not value for value in values],
    "or": any,
    "and": all,
}
