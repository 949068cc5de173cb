"""CapabilitiesFilter: what the pool reports satisfies the extra specs of the type. Source: Cinder 29.

A key without a scope, or in the scope ``capabilities:``, names a capability, ``a:b`` in the scope one inside another;
other scopes belong to drivers. A list satisfies a requirement if one of its items does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..extra_specs_ops import match
from ..filter_properties import FilterProperties
from .base import PoolFilter

if TYPE_CHECKING:
    from ..pools import Pools

_MISSING = object()


class CapabilitiesFilter(PoolFilter):
    """Passes a pool whose capabilities match all extra specs; an attached volume grows only where that is supported."""

    name: ClassVar[str] = "CapabilitiesFilter"

    def applies(self, filter_properties: FilterProperties) -> bool:
        return bool(filter_properties.type_specs) or _attached_extend(filter_properties)

    def key(self, filter_properties: FilterProperties) -> Hashable:
        return _attached_extend(filter_properties), tuple(filter_properties.type_specs.items())

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
    found = _look_up(capabilities, path)
    if found is _MISSING:
        return False
    return any(match(value, wish) for value in (found if isinstance(found, list) else [found]))
