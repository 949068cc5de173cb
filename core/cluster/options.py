"""How a member takes part in its cluster."""

from __future__ import annotations

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[cluster], where [data] has ``store = "etcd"``. ``name``: this member's, unique among them (default: the host's
    name). ``advertise``: the addresses at which clients and other members reach it (default: [rpc] ``listen``, but for
    Unix sockets where there are others). ``advertise_placement``: the URL of its Placement API, for redirects. ``ca``:
    a PEM file of the authorities of the members' certificates."""

    name: str = ""
    advertise: tuple[str, ...] = ()
    advertise_placement: str = ""
    ca: str | None = None
    lease_seconds: Positive = 2
    """After which another member is elected where the leader is not heard of; refreshed at a third. etcd raises it to
    one and a half of its election timeout, in whole seconds."""
    forget_seconds: Positive = 600
    """After which blocks are dropped although a member that is gone has no snapshot behind them: it fetches one."""
    digest_every: Positive = 100_000
    """Commands after which the members compare digests of their states."""
    compact_seconds: Annotated[int, msgspec.Meta(ge=0)] = 60
    """Interval in which the leader drops blocks and compacts etcd; 0: etcd is compacted by others."""
    snapshot_bytes: Positive = 256 << 20
    """Of blocks in etcd behind a member's newest snapshot, at which it takes the next one."""
    guardian: bool = True
    """A small process beside this one ends its lease at once when this one dies, instead of in time."""
