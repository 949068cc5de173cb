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
