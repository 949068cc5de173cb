"""The members of a cluster and their snapshots, as plain values; the cluster, as far as protocols ask for it."""

from __future__ import annotations

from typing import Protocol

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


class Cluster(Protocol):
    """The cluster that a service is a member of, as far as protocols ask for it."""

    role: str
    """leader or follower."""
    term: int
    """Of the leader that is known, 0 for none."""
    elections: int
    """How often this member was elected."""
    takeover_seconds: float
    """From finding no leader to leading, the last time that this member was elected."""

    differences: int
    """How often this member's state differed from the leader's, starts before this one included."""

    @property
    def compared(self) -> int:
        """How many digests of the leader's state were compared with this member's."""

    @property
    def failovers(self) -> int:
        """How often an endpoint of etcd has failed and the next one was asked."""

    @property
    def behind(self) -> int:
        """Commands that this member has not carried out yet, as far as it knows."""

    @property
    def leader_addresses(self) -> tuple[str, ...]:
        """Where the leader is reached, as far as known."""

    @property
    def age(self) -> float | None:
        """Seconds for which the state here may have been overtaken; None if that is unknown."""

    def check_age(self, stale_ms: float) -> None:
        """TooStale if the state here may be older than so many milliseconds."""

    def is_member(self, token: str) -> bool:
        """True for the token by which members know each other."""

    async def members(self) -> list[MemberLine]:
        """All members by name."""

    async def hand_over(self, to: str | None) -> str:
        """Have another member lead; its name. NotLeader, UnknownName, InvalidValue if none can."""

    async def snapshot_files(self) -> SnapshotList:
        """The newest snapshot here. StorageFailed."""

    async def snapshot_part(self, sequence: int, file: str, offset: int) -> bytes:
        """A part of a file of a snapshot. UnknownName, StorageFailed."""
