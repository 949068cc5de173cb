"""filter_function and goodness_function of pools: their values for a request, one pool at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from .expression import Expression, ExpressionError, evaluate, expression
from .filter_properties import FilterProperties
from .view import FILTER_STATS, STATS, Stats

if TYPE_CHECKING:
    from .rows import PoolRows

FILTER: Final = "filter_function"
GOODNESS: Final = "goodness_function"


def function_of(pools: PoolRows, row: int, kind: str, *, strict: bool) -> Expression | None:
    """A pool's function; None where it reports none. O(1)."""
    text = pools.fact(row).capabilities.get(kind)
    return None if text is None else expression(str(text), strict=strict)


def function_scopes(filter_properties: FilterProperties, kind: str) -> dict[str, Any]:
    """The scopes that are the request's; without QoS specs a filter_function has no scope ``qos`` at all."""
    qos = filter_properties.spec.qos_specs
    own = {} if qos is None and kind == GOODNESS else qos
    return {"volume": filter_properties.properties, "extra": filter_properties.spec.extra_specs, "qos": own}


def scopes(
    pools: PoolRows, filter_properties: FilterProperties, row: int, kind: str, function: Expression
) -> Iterator[Mapping[str, Any]]:
    """What the function's variables mean, once for each name of the pool's protocol if it names it."""
    facts = pools.fact(row)
    names = FILTER_STATS if kind == FILTER else STATS
    common = function_scopes(filter_properties, kind)
    if not (function.names_protocol and isinstance(facts.storage_protocol, list)):
        yield {**common, "stats": Stats(pools, row, names), "capabilities": facts.capabilities}
        return
    for protocol in facts.storage_protocol:
        capabilities = {**facts.capabilities, "storage_protocol": protocol}
        yield {**common, "stats": Stats(pools, row, names, protocol), "capabilities": capabilities}


def value(function: Expression, scope: Mapping[str, Any]) -> Any:
    """The function's value; ExpressionError where it has none. O(tree)."""
    if function.tree is None:
        assert function.problem is not None
        raise function.problem
    return evaluate(function.tree, scope, strict=function.strict)


def filter_passes(pools: PoolRows, filter_properties: FilterProperties, row: int, *, strict: bool) -> tuple[bool, str]:
    """DriverFilter's result for one pool, and the reason of a refusal. O(tree)."""
    function = function_of(pools, row, FILTER, strict=strict)
    if function is None:
        return True, ""
    why = ""
    for scope in scopes(pools, filter_properties, row, FILTER, function):
        try:
            if value(function, scope):
                return True, ""
            why = f"filter_function {function.text[:200]!r} is false"
        except ExpressionError as error:
            why = f"filter_function {function.text[:200]!r} has no value: {error}"
    return False, why


def goodness(pools: PoolRows, filter_properties: FilterProperties, row: int, *, strict: bool) -> float:
    """GoodnessWeigher's rating of one pool, 0 to 100: the best over the names of its protocol. O(tree).

    0 if there is no function, or it has no value, or one outside 0 to 100. ExpressionError if the value is not a
    number, so that it cannot be compared (Cinder 29 crashes).
    """
    function = function_of(pools, row, GOODNESS, strict=strict)
    if function is None:
        return 0.0
    return max(_rating(function, scope) for scope in scopes(pools, filter_properties, row, GOODNESS, function))


def _rating(function: Expression, scope: Mapping[str, Any]) -> float:
    try:
        rated = value(function, scope)
    except ExpressionError:
        return 0.0
    if isinstance(rated, bool):
        return 100.0 if rated else 0.0
    if not isinstance(rated, int | float):
        problem = f"goodness_function {function.text[:200]!r} gives {rated!r:.60}, which is not a number"
        raise ExpressionError(problem, "TypeError")
    return float(rated) if 0 <= rated <= 100 else 0.0
