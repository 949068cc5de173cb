"""Guests whose NUMA cells or devices follow from extra specs: their requests are completed as nova-api does, where all
others are taken as the trace has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ...placement.types.request import Flavor, RequestSpec

_PREFIXES: Final = ("hw:", "pci_passthrough:", "accel:", "capabilities:")
"""Extra specs that are judged by what is derived of them, or else refused by name."""


def is_derived(flavor: Flavor) -> bool:
    """True if rules judge what nova-api derives of the flavor. O(extra specs)."""
    return any(key.startswith(_PREFIXES) for key in flavor.extra_specs)


def derived(spec: RequestSpec) -> RequestSpec:
    """The spec, to be completed before it is judged if its flavor asks for that and the spec leaves it open."""
    return replace(spec, prepare=True) if spec.prepare is None and is_derived(spec.flavor) else spec


__all__ = ["derived", "is_derived"]
