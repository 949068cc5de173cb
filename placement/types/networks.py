"""Networks that a NUMA cell of a host is near to, or that a guest is attached to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMetadata:
    """Physical networks by name, and whether tunnelled networks count as well."""

    physnets: frozenset[str] = frozenset()
    tunneled: bool = False
