"""A whole fleet in one file. A loaded fleet makes the same decisions, bit for bit, as the saved one.

Rows, dense ids and the order in which freed ones are reused are saved; compiled signatures, the change log and other
versions are not. ``container`` defines the file format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..fleet.fleet import Fleet
from ..types.errors import HostlerError, SnapshotError
from ..types.request import RequestSpec
from ..types.validation import whole_number
from . import container as snapshot
from .arrays import read_arrays, write_arrays
from .json_values import read_values, write_values
from .pools import read_pools, write_pools
from .requests import REQUESTS, read_requests, write_requests

KIND: Final = "hostler fleet"
FORMAT: Final = 1
"""Version of the contents within the format of ``container``."""


class Meta(msgspec.Struct, forbid_unknown_fields=True):
    """Metadata of a file; ``arrays`` are the names of all arrays it must have."""

    kind: str
    format: int
    rows: int
    seed: int
    made: int
    now: float | None
    service_down_time: float
    sequence: int
    volume_sequence: int
    arrays: list[str]


def save(
    fleet: Fleet,
    path: snapshot.Path,
    *,
    requests: Mapping[str, RequestSpec] | None = None,
    progress: snapshot.Progress | None = None,
    sync: bool = True,
) -> None:
    """Write the current version of the fleet to the file at ``path`` atomically, replacing an existing one.
    ``requests``: what instances were asked with, by uuid, which ``load_requests`` reads. ``sync`` False: the file may
    be lost in a system crash. ``progress(done, total)`` is called with bytes, once per MiB.
    InvalidValue for image properties and storage backend capabilities that are not JSON values; SnapshotError with the
    system's reason if the file cannot be written. O(rows * columns in use + consumers): a million hosts in half a
    second plus the time of the disk.
    """
    arrays = write_arrays(fleet) | write_values(fleet) | write_pools(fleet.pools)
    if requests:
        arrays[REQUESTS] = write_requests(requests)
    sequences = (fleet._heads.sequence, fleet._heads.volume_sequence)
    figures = (fleet.rows, fleet.seed, fleet._providers.made, fleet.now, fleet.service_down_time, *sequences)
    snapshot.write(
        path, msgspec.to_builtins(Meta(KIND, FORMAT, *figures, list(arrays))), arrays, progress=progress, sync=sync
    )


def load(path: snapshot.Path) -> Fleet:
    """Load the fleet that ``save`` wrote. SnapshotError with the fault for a file that cannot be read, is not a fleet,
    is damaged, or has another format. O(rows * columns in use + consumers): a million hosts in a second or two."""
    found, arrays = snapshot.read(path)
    meta = _meta(path, found)
    try:
        if sorted(arrays) != sorted(meta.arrays):
            raise ValueError(f"missing or unexpected arrays: {sorted(set(arrays) ^ set(meta.arrays))}")
        fleet = Fleet(seed=meta.seed, capacity=meta.rows)
        read_values(fleet, arrays)
        read_arrays(fleet, arrays, meta.rows, meta.made)
        read_pools(fleet.pools, arrays)
        arrays.pop(REQUESTS, None)
        fleet._services.now, fleet._services.down_time = meta.now, meta.service_down_time
        fleet._services.judge_all()
        fleet._heads.sequence = whole_number(meta.sequence, "sequence", most=2**63 - 1)
        fleet._heads.volume_sequence = whole_number(meta.volume_sequence, "volume_sequence", most=2**63 - 1)
        fleet._reclaim.all()
        if arrays:
            raise ValueError(f"unexpected arrays: {sorted(arrays)}")
    except (HostlerError, msgspec.MsgspecError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        problem = f"{os.fspath(path)} holds an inconsistent fleet: {str(error) or repr(error):.300}"
        raise SnapshotError(problem, field="path", hint="take another snapshot") from error
    return fleet


def load_requests(path: snapshot.Path) -> dict[str, RequestSpec]:
    """What instances were asked with, by uuid, as ``save`` wrote it with the fleet; empty if it was not told. Errors as
    ``load``. O(bytes of the file)."""
    found, arrays = snapshot.read(path)
    _meta(path, found)
    if REQUESTS not in arrays:
        return {}
    try:
        return read_requests(arrays[REQUESTS])
    except (msgspec.MsgspecError, LookupError, ValueError) as error:
        raise SnapshotError(f"{os.fspath(path)} holds requests that cannot be read: {error}", field="path") from error


def _meta(path: snapshot.Path, found: dict[str, Any]) -> Meta:
    name = os.fspath(path)
    if found.get("kind") != KIND:
        raise SnapshotError(
            f"{name} is a snapshot, but not of a fleet", field="path", hint="give the path of a saved fleet"
        )
    if found.get("format") != FORMAT:
        problem = f"{name} has format {found.get('format')!r:.20} of a fleet, this Hostler reads {FORMAT}"
        raise SnapshotError(problem, field="path", hint="use the Hostler that wrote it, or upgrade")
    try:
        return msgspec.convert(found, Meta)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"{name} has invalid metadata: {error}", field="path") from None


__all__ = ["FORMAT", "load", "load_requests", "save"]
