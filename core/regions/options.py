"""The configuration of a parent of regions."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

RegionPolicy = Literal["cheapest", "nearest", "most_room"]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Above0 = Annotated[float, msgspec.Meta(gt=0)]


class RegionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[regions.NAME]: the addresses of the region's service, of all members where it is a cluster. ``token``: of a user
    of it who is a cloud admin there, as ``env:VARIABLE`` or ``file:/PATH``; none: the parent is the region's own user
    on a Unix socket. ``ca``: a PEM file of the authorities of its certificates.

    ``price``: of a vCPU an hour, ``price_gib`` of a GiB of memory. ``weight``: how much it is preferred. ``zones``: the
    availability zones that it has (none: those of its summary). ``traits``: what it is, such as where data may reside.
    ``latency``: milliseconds from places that requests name as ``near``. ``last``: asked only where the others have no
    room, such as a public cloud. ``formerly``: names that it had before: what is on record under these is its own."""

    addresses: tuple[str, ...]
    token: str | None = None
    ca: str | None = None
    price: NotNegative = 0.0
    price_gib: NotNegative = 0.0
    weight: Above0 = 1.0
    zones: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    latency: dict[str, NotNegative] = {}
    last: bool = False
    formerly: tuple[str, ...] = ()


class CascadeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[cascade]: how a parent chooses among its regions. ``ask_seconds``: for a region's answer, before the
    next one is asked. ``attempts``: regions that are asked for one request at most; ``doubtful``: how many of them
    may be such that have no room by their summary, which may be old."""

    policy: RegionPolicy = "cheapest"
    ask_seconds: Above0 = 2.0
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 10
    doubtful: Annotated[int, msgspec.Meta(ge=0)] = 9
