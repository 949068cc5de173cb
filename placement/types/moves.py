"""A guest's move that is under way, as a plain value: both of its ends hold what it takes until it is confirmed or
reverted."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

MoveKind = Literal["cold_migrate", "live_migrate", "resize", "evacuate", "unshelve"]
KINDS: Final[tuple[MoveKind, ...]] = ("cold_migrate", "live_migrate", "resize", "evacuate", "unshelve")
Expiry = Literal["revert", "confirm"]


class PendingMove(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A move of ``instance`` from node ``source`` to ``target``. The consumer ``migration`` holds what the guest has on
    its source; empty: the source holds no allocation. ``began`` and ``expires`` in seconds since the epoch (None: no
    time is known, it does not expire); at expiry it is reverted, or confirmed, as ``on_expiry`` says."""

    instance: str
    migration: str
    kind: MoveKind
    source: str
    target: str
    began: float | None = None
    expires: float | None = None
    on_expiry: Expiry = "revert"
