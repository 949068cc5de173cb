"""CapabilitiesFilter: what the pool reports satisfies the extra specs of the type. Source: Cinder 29.

A key without a scope, or in the scope ``capabilities:``, names a capability, ``a:b`` in the scope one inside another;
other scopes belong to drivers. A list satisfies a requirement if one of its items does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..extra_specs_ops import match
from ..filter_properties import FilterProperties
from ..pool_classes import ClassWish
from .base import ERRORS, PoolFilter, Rows

if TYPE_CHECKING:
    from ..pools import Pools

_MISSING: Final = object()
_ATTACHED: Final = ("attached",)


class CapabilitiesFilter(PoolFilter):
    """Passes a pool whose capabilities match all extra specs; an attached volume grows only where that is supported."""

    name: ClassVar[str] = "CapabilitiesFilter"

    def applies(self, filter_properties: FilterProperties) -> bool:
        return bool(filter_properties.type_specs) or _attached_extend(filter_properties)

    def key(self, filter_properties: FilterProperties) -> Hashable:
        return _attached_extend(filter_properties), tuple(filter_properties.type_specs.items())

    def _class_wishes(self, pools: Pools, filter_properties: FilterProperties) -> Sequence[ClassWish]:
        known, wishes = pools.classes.wishes, list[ClassWish | None]()
        for spec in filter_properties.type_specs.items():
            wishes.append(known[spec] if spec in known else known.keep(spec, _wish(pools, *spec)))
        if _attached_extend(filter_properties):
            path = ("online_extend_support",)
            wishes.append(ClassWish(("capability", *path), partial(_looked_up, pools, path), _ATTACHED, _not_false))
        return [each for each in wishes if each is not None]

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        capabilities = pools.fact(row).capabilities
        if _attached_extend(filter_properties) and capabilities.get("online_extend_support", True) is False:
            return False
        return all(_satisfied(capabilities, key, wish) for key, wish in filter_properties.type_specs.items())

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        capabilities = pools.fact(row).capabilities
        if _attached_extend(filter_properties) and capabilities.get("online_extend_support", True) is False:
            return "cannot extend an attached volume"
        for key, wish in filter_properties.type_specs.items():
            if not _satisfied(capabilities, key, wish):
                found = _look_up(capabilities, _path(key) or ())
                shown = "not reported" if found is _MISSING else f"{found!r:.80}"
                return f"{key} is {shown}, must be {wish!r:.80}"
        return "passes"


def _wish(pools: Pools, key: str, wish: str | None) -> ClassWish | None:
    """An extra spec as a wish; None for one that is no capability."""
    path = _path(key)
    if path is None:
        return None
    return ClassWish(
        ("capability", *path), partial(_looked_up, pools, path), ("wish", wish), partial(_suits, wish=wish)
    )


def _looked_up(pools: Pools, path: tuple[str, ...], rows: Rows) -> list[Any]:
    return [_look_up(pools.fact(row).capabilities, path) for row in rows.tolist()]


def _suits(found: Any, wish: str | None) -> bool:
    try:
        return _fits(found, wish)
    except ERRORS:
        return False


def _not_false(value: Any) -> bool:
    return value is not False


def _attached_extend(filter_properties: FilterProperties) -> bool:
    return (
        filter_properties.operation == "extend_volume"
        and filter_properties.properties.get("attach_status") != "detached"
    )


def _path(key: str) -> tuple[str, ...] | None:
    """Where the capability is; None for a key of another scope."""
    scope = key.split(":")
    if len(scope) > 1 and scope[0] != "capabilities":
        return None
    return tuple(scope[1:] if scope[0] == "capabilities" else scope)


def _look_up(capabilities: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = capabilities
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            return _MISSING
        found = found[step]
    return found


def _satisfied(capabilities: Mapping[str, Any], key: str, wish: str | None) -> bool:
    path = _path(key)
    if path is None:
        return True
    return _fits(_look_up(capabilities, path), wish)


def _fits(found: Any, wish: str | None) -> bool:
    if found is _MISSING:
        return False
    return any(match(value, wish) for value in (found if isinstance(found, list) else [found]))
