"""Calls in the form in which they are carried out. Uuids as the state holds them: 8-4-4-4-12 digits in lower case; one
that is written in another form is the same one; uuids of server groups and resource providers are not concerned. Hosts
without the meaning that journals of version 0.1 give to them."""

from __future__ import annotations

import operator
from dataclasses import replace
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec

from ...placement.types.host import DERIVED, Host
from ...placement.types.uuids import are_plain
from ...placement.types.uuids import plain_uuid as canonical
from ..engine_commands import (
    AddHosts,
    Asked,
    BeginMove,
    ConfirmHold,
    ConfirmMove,
    Hold,
    Move,
    Place,
    PlaceCandidates,
    PlaceMany,
    Release,
    Resize,
    RevertMove,
    Spawned,
)
from ..lifecycle_commands import GuestVolume, Lifecycle
from ..region_commands import PlaceAcross
from ..storage_commands import AskedVolume, StorageBase
from .group_queries import ServerGroups
from .lifecycle_queries import Guests, GuestSnapshots, ShowGuest, VolumeLives
from .queries import Explain, Fits, FitsMany, Instance
from .ranking import Rank
from .region_queries import RegionGuests, RegionOf
from .volume_queries import (
    ExplainVolume,
    FitsVolume,
    ShowVolume,
    VolumeBackups,
    VolumeGroups,
    Volumes,
    VolumeSnapshots,
)
from .volume_ranking import RankVolume
from .what_if import WhatIf

_CALLS: Final = (
    *(PlaceCandidates, Hold, ConfirmHold, Release, Spawned, Move, Resize, BeginMove, ConfirmMove, RevertMove),
    *(StorageBase, Lifecycle),
    *(Asked, AskedVolume, GuestVolume, Instance, ShowGuest, ShowVolume, Volumes, VolumeSnapshots, VolumeBackups),
    *(ServerGroups, VolumeGroups, VolumeLives, Guests, GuestSnapshots, RegionGuests, RegionOf, PlaceAcross, WhatIf),
    *(Explain, Fits, FitsMany, Rank, ExplainVolume, FitsVolume, RankVolume),
)
_NAMES: Final = frozenset(
    (
        *("uuid", "uuids", "instance_uuids", "migration", "volume_id", "volume", "source", "group"),
        *("snapshot_id", "backup_id", "group_id", "guest", "snapshot", "after"),
    )
)
"""Fields with uuids of instances, migrations, volumes, snapshots, backups and volume groups. ``after``: of lists by
uuid."""
_UUIDS: Final = operator.attrgetter("instance_uuids")
_INNER: Final = frozenset(("request", "requests", "volumes", "commands"))
"""Fields with requests or commands."""

Call = TypeVar("Call", bound=msgspec.Struct)


def with_canonical_uuids(call: Call) -> Call:
    """A command or question with uuids, and hosts, in that form; the same object where they are. O(uuids)."""
    kind = type(call)
    if kind is AddHosts:
        return _with_present_hosts(call)
    if kind is Place:  # the most frequent call
        uuids = call.request.instance_uuids  # type: ignore[attr-defined]  # of Place
        return call if not uuids or are_plain(uuids) else _replaced(call, ("request",))
    if kind is PlaceMany:
        requests = call.requests  # type: ignore[attr-defined]  # of PlaceMany
        every = chain.from_iterable(map(_UUIDS, requests))
        return call if are_plain(list(every)) else _replaced(call, ("requests",))
    return _replaced(call, kind.__struct_fields__) if isinstance(call, _CALLS) else call


def _with_present_hosts(call: Call) -> Call:
    """Hosts to be added: what is free follows from the totals where they say -1, unless they mean it; a command of a
    journal that does not say so is of version 0.1, where PCI pools had no cards, and providers became no hosts."""
    if call.negative_free:  # type: ignore[attr-defined]  # of AddHosts
        return call
    hosts = tuple(map(_derived, call.hosts))  # type: ignore[attr-defined]  # of AddHosts
    return msgspec.structs.replace(call, hosts=hosts, negative_free=True)


def _derived(host: Host) -> Host:
    changes: dict[str, Any] = {name: DERIVED for name in ("free_ram_mb", "free_disk_mb") if getattr(host, name) == -1}
    return replace(host, **changes) if changes else host


def _replaced(call: Call, names: tuple[str, ...]) -> Call:
    changes: dict[str, Any] = {}
    for name in names:
        if name not in _NAMES and name not in _INNER:
            continue
        value = getattr(call, name)
        found = _each(value) if name in _NAMES else _inner(value)
        if found is not value:
            changes[name] = found
    return msgspec.structs.replace(call, **changes) if changes else call


def _each(value: Any) -> Any:
    if isinstance(value, str):
        return canonical(value)
    if not isinstance(value, tuple):
        return value
    return value if are_plain(value) else tuple(map(canonical, value))


def _inner(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        found = type(value)(map(with_canonical_uuids, value))
        return value if all(map(operator.is_, found, value)) else found
    return value if value is None else with_canonical_uuids(value)


__all__ = ["canonical", "with_canonical_uuids"]
