"""How the reconciler does, as plain values."""

from __future__ import annotations

import msgspec


class BackendStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A back end as the reconciler sees it. ``open``: its driver is connected. ``breaker``: closed, open (no calls for
    a while, since it did not answer) or half_open. ``queued`` and ``running``: guests that wait, and are worked on.
    ``problem``: the last failure; None while all is well."""

    name: str
    driver: str
    enabled: bool
    open: bool
    breaker: str
    queued: int
    running: int
    nodes: int
    strangers: int
    inventories: int
    problem: str | None = None
    reason: str = ""


class ReconcileStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The reconciler: guests by status, those that are not as desired, and the back ends."""

    installation: str
    guests: dict[str, int]
    unsettled: int
    backends: list[BackendStatus]


class StrangerLine(msgspec.Struct, frozen=True, kw_only=True):
    """A guest on a back end that this installation did not make: the back end's own id of it (``key``), name and node,
    its state (building, off, on, paused, error, deleting), CPUs and MiB of memory. ``installation``: another one that
    it belongs to, which keeps it from being adopted; empty: none."""

    backend: str
    key: str
    name: str
    node: str
    state: str
    vcpus: int
    memory_mb: int
    installation: str = ""
