"""The lifetimes of guests as plain values: read from a service's journal, replayed by a simulation."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from .request import RequestSpec


class PastGuest(NamedTuple):
    """A requested guest. Times in seconds since the epoch; ``left`` None: it still ran at the end. ``placed`` False: no
    host was found, so its lifetime is unknown. Guests of one ``batch`` were requested together. ``group``: uuid of its
    anti-affinity server group; empty: none.
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
    """All guests in order of arrival, first the ``standing`` ones, which existed at time ``began``. ``not_admitted``:
    number of further requests that quota, access rights or a malformed request rejected. ``volumes``: number of volumes
    that were asked for, which are left out."""

    guests: tuple[PastGuest, ...]
    standing: int
    began: float
    ended: float
    not_admitted: int
    volumes: int = 0
