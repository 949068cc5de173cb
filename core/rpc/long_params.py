"""Long parameters, judged before they are decoded: a list of more entries than a call may have, or a call that its
sender may not make, would take long to decode, and much memory, before anything else could refuse it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgpack
import msgspec

from ..engine_commands import Command, PlaceCandidates, PlaceMany
from ..lifecycle_commands import CreateGuest
from ..machine.queries import FOR_CLOUD_READERS
from ..machine.request_limits import ON_MANY, RequestLimits, too_much
from ..storage_commands import PlaceTogether, PlaceVolumeGroup
from ..tenancy.rights import FOR_OTHERS
from ..tenancy.tenants import CLOUD, RANK, Tenants
from ..tenancy.volume_rights import STORAGE_FOR_OTHERS

LONG_BYTES: Final = 4 << 10
"""Parameters of more bytes are looked at."""
MOST_ENTRIES: Final = 20_000
"""Entries of any list or map of a call of members, where there is no other limit."""
_INNER: Final = frozenset(("request", "requests", "volumes", "server_group"))
"""Fields that lead to lists."""
_LIST: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_MALFORMED: Final = (msgspec.DecodeError, msgpack.UnpackException, ValueError, IndexError)
_UNLIMITED: Final = 2**31 - 1
_SHOWN: Final = 100
"""Characters of a name in an error."""


def check(tenants: Tenants, limits: RequestLimits, user: str, kind: type[Any], params: msgspec.Raw) -> None:
    """NotAllowed for parameters of a method that is for admins or readers of the cloud, InvalidValue for a list that
    is too long. What is malformed is left to the decoder. O(values), some 2 ns each."""
    role = tenants.role(user, CLOUD)
    if kind in FOR_CLOUD_READERS:
        tenants.require(user, "reader", CLOUD)
    elif issubclass(kind, Command) and kind not in FOR_OTHERS and kind not in STORAGE_FOR_OTHERS:
        tenants.require(user, "cloud_admin", CLOUD)
    most = {"instance_uuids": limits.instances, "members": limits.group_members, **_own_limits(limits, kind)}
    bounds = _Bounds(most, None if role >= RANK["reader"] else MOST_ENTRIES)
    with suppress(*_MALFORMED):
        _Walk(params, bounds).parameters(kind.__struct_fields__)


def _own_limits(limits: RequestLimits, kind: type[Any]) -> dict[str, int]:
    """Limits of the lists of one method, as ``RequestLimits.check`` knows them."""
    if kind in ON_MANY:
        return {"uuids": limits.uuids}
    if kind is PlaceMany:
        return {"requests": limits.requests}
    if kind is PlaceCandidates:
        return {"candidates": limits.candidates}
    return {"volumes": limits.volumes} if kind in (PlaceTogether, PlaceVolumeGroup, CreateGuest) else {}


class _Bounds(NamedTuple):
    """Most entries of lists by name, and of any other list or map (None: any number)."""

    most: dict[str, int]
    others: int | None

    def check(self, name: str, path: str, count: int) -> None:
        """InvalidValue for a list or map of too many entries."""
        limit = self.most.get(name, self.others)
        if limit is not None and count > limit:
            raise too_much(path, count, limit)


class _Walk:
    """Passes over the values of a message once, up to the first list that is too long."""

    def __init__(self, data: msgspec.Raw, bounds: _Bounds) -> None:
        self._data, self._bounds = memoryview(data), bounds
        self._reader = msgpack.Unpacker(max_buffer_size=_UNLIMITED)
        self._reader.feed(self._data)

    def parameters(self, names: Sequence[str]) -> None:
        """Parameters in the order of ``names``, or a map of them."""
        count = self._reader.read_array_header()
        if count and _is_map(self._data[self._reader.tell()]):
            self._map("")
            return
        for name in names[:count]:
            self._value(name, name)

    def _map(self, path: str) -> None:
        for _ in range(self._reader.read_map_header()):
            if not _is_text(self._data[self._reader.tell()]):
                return  # which is an error, whatever is behind it
            name = self._reader.unpack()
            self._value(name, f"{path}{name[:_SHOWN]}")

    def _value(self, name: str, path: str) -> None:
        begin = self._reader.tell()
        self._bounds.check(name, path, count := entries(self._data[begin:]))
        if count and name in _INNER and _is_map(self._data[begin]):
            self._map(f"{path}.")
            return
        self._reader.skip()
        if count and name in _INNER:
            for each in _LIST.decode(self._data[begin : self._reader.tell()]):
                if memoryview(each).nbytes > LONG_BYTES and _is_map(memoryview(each)[0]):
                    _Walk(each, self._bounds)._map(f"{path}.")


def entries(value: memoryview) -> int:
    """Entries that a list or map says it has; 0 for other values. O(1)."""
    head = bytes(value[:5])
    if not head:
        return 0
    first = head[0]
    if 0x80 <= first <= 0x9F:
        return first & 0x0F
    if first in (0xDC, 0xDE):
        return int.from_bytes(head[1:3], "big")
    return int.from_bytes(head[1:5], "big") if first in (0xDD, 0xDF) else 0


def _is_map(first: int) -> bool:
    return first & 0xF0 == 0x80 or first in (0xDE, 0xDF)


def _is_text(first: int) -> bool:
    return first & 0xE0 == 0xA0 or first in (0xD9, 0xDA, 0xDB)
