"""What became of guests, as plain values: a service's journal gives them, a simulation plays them again."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .request import RequestSpec


class PastGuest(NamedTuple):
    """A guest that was asked for. Times in seconds since the epoch; ``left`` None: it was there at the end.

    ``placed`` False: no host was found, so nobody knows how long it would have stayed. Guests of one ``batch`` were
    asked for together. ``group``: uuid of its anti-affinity server group; empty: none.
    """

    uuid: str
    project_id: str
    spec: RequestSpec
    came: float
    left: float | None
    placed: bool
    batch: int
    group: str


class GuestHistory(msgspec.Struct, frozen=True, kw_only=True):
    """All guests in order of coming, the ``standing`` first: those that were there ``began``. ``not_admitted``: how
    many more were asked for that quota, rights or a malformed request kept from any host."""

    guests: tuple[PastGuest, ...]
    standing: int
    began: float
    ended: float
    not_admitted: int
