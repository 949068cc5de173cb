"""Uuids of a call in the form in which the state holds them: 8-4-4-4-12 digits in lower case. A uuid that is written in
another form is the same one; uuids of server groups and resource providers are not concerned."""

from __future__ import annotations

import operator
from collections.abc import Collection
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec

from ...ext.tables import format_uuid, parse_uuid
from ..engine_commands import (
    Asked,
    BeginMove,
    ConfirmHold,
    ConfirmMove,
    Hold,
    Move,
    Place,
    PlaceMany,
    Release,
    Resize,
    RevertMove,
    Spawned,
)
from ..lifecycle_commands import GuestVolume, Lifecycle
from ..machine.lifecycle_queries import ShowGuest
from ..machine.queries import Instance
from ..machine.volume_queries import ShowVolume, VolumeBackups, Volumes, VolumeSnapshots
from ..machine.what_if import WhatIf
from ..storage_commands import AskedVolume, StorageBase

_CALLS: Final = (
    *(Hold, ConfirmHold, Release, Spawned, Move, Resize, BeginMove, ConfirmMove, RevertMove, StorageBase, Lifecycle),
    *(Asked, AskedVolume, GuestVolume, Instance, ShowGuest, ShowVolume, Volumes, VolumeSnapshots, VolumeBackups),
    WhatIf,
)
_NAMES: Final = frozenset(
    (
        *("uuid", "uuids", "instance_uuids", "migration", "volume_id", "volume", "source", "group"),
        *("snapshot_id", "backup_id", "group_id"),
    )
)
"""Fields with uuids of instances, migrations, volumes, snapshots, backups and volume groups."""
_INNER: Final = frozenset(("request", "requests", "volumes", "commands"))
"""Fields with requests or commands."""

_LENGTH: Final = frozenset((36,))

Call = TypeVar("Call", bound=msgspec.Struct)


def canonical(uuid: str) -> str:
    """A uuid in the form in which the state holds it; another text as it is. O(1)."""
    if len(uuid) == 36 and uuid == uuid.lower():
        return uuid
    try:
        return format_uuid(*parse_uuid(uuid))
    except ValueError:
        return uuid


def with_canonical_uuids(call: Call) -> Call:
    """A command or question with uuids in that form; the same object where they are. O(uuids)."""
    kind = type(call)
    if kind is Place:  # the most frequent call
        uuids = call.request.instance_uuids  # type: ignore[attr-defined]  # of Place
        return call if not uuids or _are_canonical(uuids) else _replaced(call, ("request",))
    if kind is PlaceMany:
        requests = call.requests  # type: ignore[attr-defined]  # of PlaceMany
        every = chain.from_iterable([request.instance_uuids for request in requests])
        return call if _are_canonical(list(every)) else _replaced(call, ("requests",))
    return _replaced(call, kind.__struct_fields__) if isinstance(call, _CALLS) else call


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
    return value if _are_canonical(value) else tuple(map(canonical, value))


def _are_canonical(uuids: Collection[str]) -> bool:
    text = "".join(uuids)
    return text == text.lower() and set(map(len, uuids)) <= _LENGTH


def _inner(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        found = type(value)(map(with_canonical_uuids, value))
        return value if all(map(operator.is_, found, value)) else found
    return value if value is None else with_canonical_uuids(value)
