"""Commands of a parent of regions, as plain, tagged values: where each guest is claimed is a fact of the parent, on
record before a region is asked."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..placement.types.decision import Decision
from ..placement.types.moves import PendingMove
from .engine_commands import Asked, Command, Placed

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class RegionCommand(Command, frozen=True):
    """Base of the commands that concern regions."""


class PlaceAcross(RegionCommand, frozen=True, tag="place_across"):
    """Place several requests in regions, all or nothing; with ``spread`` each in a region of its own. The regions claim
    one after the other: where one of them refuses, what others have claimed is released again, and may be seen there
    until then. For services with regions."""

    requests: Annotated[tuple[Asked, ...], msgspec.Meta(min_length=1, max_length=100)]
    spread: bool = True


class RegionOutcome(RegionCommand, frozen=True, kw_only=True):
    """Base of the commands by which a parent records what regions have done. ``user``: for whom; empty: for no user in
    particular."""

    user: str = ""


class ClaimInRegion(RegionCommand, frozen=True, tag="claim_in_region"):
    """A region is about to be asked for a request: the first for this claim, or the next one. ``unsure``: it is not
    known what the one before has done; what it may have claimed is to be released. ``key`` and ``fingerprint``: of the
    call that is answered in the end; ``group``: of the requests of which this is one."""

    id: str
    region: str
    request: Asked
    unsure: bool = False
    key: str | None = None
    fingerprint: bytes = b""
    group: str = ""


class SettleRegionClaim(RegionOutcome, frozen=True, tag="settle_region_claim"):
    """What became of a claim: the region's decision, or None where there is none. ``unsure``: it is not known whether
    the region that was asked last has claimed something. ``project``: of the claim's request."""

    id: str
    decision: Decision | None = None
    unsure: bool = False
    project: str = ""


class ForgetRegionGuests(RegionOutcome, frozen=True, tag="forget_region_guests"):
    """Guests are no longer in their regions. ``release``: the release that is on record, of which they are a part.
    ``claim``: only those of this claim (empty: of any)."""

    uuids: tuple[str, ...]
    release: str = ""
    claim: str = ""


class RecordRegionCall(RegionOutcome, frozen=True, tag="record_region_call"):
    """What regions have answered to a ``method`` on ``uuids``, which do not change their regions by it: a decision, a
    move, or what became of many requests; nothing for other methods."""

    method: str
    uuids: tuple[str, ...] = ()
    decision: Decision | None = None
    move: PendingMove | None = None
    placed: Placed | None = None

    @property
    def answer(self) -> Decision | PendingMove | Placed | None:
        """What the caller is told."""
        return self.decision or self.move or self.placed


class BeginRegionRelease(RegionCommand, frozen=True, tag="begin_region_release"):
    """Guests are about to be released in their regions. ``key`` and ``fingerprint``: of the call that is answered in
    the end."""

    id: str
    uuids: tuple[str, ...]
    key: str | None = None
    fingerprint: bytes = b""


class SettleRegionRelease(RegionOutcome, frozen=True, tag="settle_region_release"):
    """All guests of a release are released; answers how many were there."""

    id: str


class ForgetRegionLeftover(RegionCommand, frozen=True, tag="forget_region_leftover"):
    """What a region may have claimed for a claim that another one has taken is not there any more."""

    id: str


class BeginRegionGroup(RegionCommand, frozen=True, tag="begin_region_group"):
    """Requests are about to be placed in several regions, all or nothing."""

    id: str
    key: str | None = None
    fingerprint: bytes = b""


class AcrossGuest(msgspec.Struct, frozen=True):
    """A guest that was placed: its region, and the host there."""

    uuid: str
    region: str
    host: str


class PlacedAcross(msgspec.Struct, frozen=True):
    """Answer of ``place_across``: all guests in the order of their requests, or none, and why not."""

    guests: list[AcrossGuest] = []
    refusal: str | None = None

    @property
    def placed(self) -> bool:
        """True if all are."""
        return self.refusal is None


class SettleRegionGroup(RegionCommand, frozen=True, tag="settle_region_group"):
    """All requests of a group are placed, or none of them is any more. Claims of the group that are still on record
    are left over then: their regions may hold them, and release them."""

    id: str
    outcome: PlacedAcross


def on_behalf_of(command: object, user: str) -> str:
    """For whom a command is, that a ``user`` has given."""
    return command.user if isinstance(command, RegionOutcome) and command.user else user
