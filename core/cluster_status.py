"""The members of a cluster and their snapshots, as plain values."""

from __future__ import annotations

import msgspec


class MemberLine(msgspec.Struct, frozen=True, kw_only=True):
    """A member of a cluster. ``alive``: it has refreshed its lease. ``sequence``: the last command that it has carried
    out, as of its last report; ``behind``: commands between that and the journal's end."""

    name: str
    role: str
    alive: bool
    addresses: tuple[str, ...]
    version: str
    sequence: int
    behind: int
    snapshot: int


class SnapshotList(msgspec.Struct, frozen=True):
    """A snapshot: its number, and the length of each of its files."""

    sequence: int
    files: dict[str, int]
