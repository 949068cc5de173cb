"""Requests in which one value is another, to see that none makes a service fail."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

OTHERS: tuple[Any, ...] = (
    *(None, True, -1, 1e300, 2**70, "", "é\u0000", [], [["x"]], [{"a": 1}], {"x": 1}, {"nova_object.data": []}),
)
"""In the place of each value."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in JSON there is a value."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from paths(each, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    found = copy.deepcopy(value)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    return found
