"""What instances that held allocations were given beside them (an evacuation), until something shows that the answer
was received: else it is given back, or replaced once the instance is asked for again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

Allocations = dict[str, dict[str, int]]
"""{provider uuid: {resource class: amount}}."""


class Doubled(msgspec.Struct, frozen=True, kw_only=True):
    """What was claimed on ``node`` for one instance, of providers that it held nothing of before."""

    node: str
    allocations: Allocations


DoubledClaims = dict[str, Doubled]
"""By uuid of the instance."""


def settle(doubled: DoubledClaims, uuids: Iterable[str]) -> None:
    """Clients of Placement have written what these hold, or they are gone. O(uuids)."""
    for uuid in uuids if doubled else ():
        doubled.pop(uuid.lower(), None)


def arrived(doubled: DoubledClaims, node: str, uuids: Iterable[str]) -> None:
    """A node has these instances: those that were on their way to it have come. O(uuids)."""
    for uuid in uuids:
        known = doubled.get(uuid.lower())
        if known is not None and known.node == node:
            del doubled[uuid.lower()]


def without(doubled: DoubledClaims, uuid: str, held: Allocations) -> Allocations:
    """Of what an instance holds, what is left without its claim that no one is known to have learned of."""
    known = doubled.get(uuid.lower())
    if known is None:
        return held
    return {provider: amounts for provider, amounts in held.items() if known.allocations.get(provider) != amounts}


__all__ = ["Doubled", "DoubledClaims", "arrived", "settle", "without"]
