"""Orders as values: what the journal holds. A command, when it was given, and by whom."""

from __future__ import annotations

from typing import Final

import msgspec

from ...placement.api import commands as api
from ..engine_commands import Asked, Command, EngineCommand
from ..lifecycle_commands import LifecycleCommand
from ..region_commands import (
    BeginRegionGroup,
    BeginRegionRelease,
    ClaimInRegion,
    ForgetRegionGuests,
    ForgetRegionLeftover,
    PlaceAcross,
    RecordRegionCall,
    SettleRegionClaim,
    SettleRegionGroup,
    SettleRegionRelease,
)
from ..storage_commands import StorageCommand
from ..tenancy import commands as c


class PlacementWrite(Command, frozen=True, tag="placement"):
    """A write of the Placement API. For cloud admins; who may call the API is the API's own business.

    ``project``: the write is one of a user of this project, who claims within its limits and pools. None: it comes from
    an admin or another service, who are above them.
    """

    command: api.PlacementCommand
    project: str | None = None


class SelectDestinations(Command, frozen=True, tag="select_destinations"):
    """Choose and claim hosts as Nova's scheduler does for its conductors, who are above the tenants: see
    ``destinations``. It comes from Nova's message bus. ``replaces``: what the last call claimed beside what the
    instance held, if its answer may be lost, is given back first; False in journals before 0.2."""

    request: Asked
    replaces: bool = False


AnyRegionCommand = (
    PlaceAcross
    | ClaimInRegion
    | SettleRegionClaim
    | ForgetRegionGuests
    | ForgetRegionLeftover
    | BeginRegionGroup
    | SettleRegionGroup
    | BeginRegionRelease
    | SettleRegionRelease
    | RecordRegionCall
)
AnyCommand = (
    EngineCommand
    | c.TenancyCommand
    | PlacementWrite
    | SelectDestinations
    | LifecycleCommand
    | StorageCommand
    | AnyRegionCommand
)

Guests = dict[str, dict[str, None]]
"""Uuids by project, in order."""


RULES: Final = 11
"""Revision of the rules of tenancy, as orders are given under them; those of journals before there were revisions have
0. A replay carries each out under the rules of its time.

1: what tenants may specify is limited (``tenancy.admission``); a guest that is resized or moved stays in its project's
pools; a project does not take over guests of its name; roles are given within a domain; who deletes a user must be
allowed as much; certificate names are within a domain's suffixes; pools keep their hosts.

2: the table ``storage`` of a policy decides about volumes, and is refused if it is malformed.

3: of volumes that back ends make, a source and a group are refused; a guest that is lost lets go of the volumes that
were being detached; the volume that a guest boots from is known by the guest; guests that are not yet as desired are
evacuated. Consumers that are no instances, such as migrations, and reported instances without an allocation do not
count as ``instances``; what holds the source of a move is changed by the end of the move, not by commands on instances.

4: what volumes take of pools outlasts that their backend is down, disabled or frozen; a volume that was taken over
gives back its growth. Reports of hosts are read with the moves under way.

5: where a policy's ``[cinder] cross_az_attach`` is false, a guest and its volumes are in one availability zone. A
volume, snapshot, backup or volume group is refused the uuid of one of another kind.

6: only cloud admins name a host in an availability zone (``zone:host``), or as the target of a resize.

7: a report of a host leaves the version of its compute service as it is, or changes it by ``service``. A move that
clients of the Placement API have confirmed is not reverted, neither by command nor when its time is over. A volume
whose attachment is not confirmed is detached by its back end, too, before it is free. A guest whose move by a back end
was reverted keeps what it was asked with. A guest is not lost while it moves: the end of the move comes first.

8: how much of tenants is kept is bounded (``tenancy.bounds``). A guest is not resized to a node of no back end. The
time that a guest has to let a volume go does not end when the volume is found attached.

9: a host whose compute service is disabled is not evacuated while the service is alive. Who is no reader of the cloud
is not told the host or pool that a refusal came nearest to, and of the order of pools for a volume group those of the
chosen backend.

10: members of a server group count once on each service host that they stand on, both ends of a move among them. An
instance that holds allocations on two hosts, as an evacuation leaves it, stands on both. A guest may be unshelved to
the host that it was on. Of what a guest was asked with, hosts that were named do not bind its moves. A claim that the
report of a renamed host lets expire is given back in the usage, too. Whatever the revision, a weigher of Cinder's whose
``weight_multiplier()`` is not finite fails the request, as does a name in ``same_subtree`` that is no request group's,
and traits in an image's ``traits_required`` are required where requests are prepared.

11: guests that come with hosts that are added, or with reports of hosts, are charged to their projects. Whatever the
revision, a reported guest that goes from one of three hosts or more is of the first of the others, as after a snapshot.
"""
INSTANCES_BY_TYPE: Final = 3
"""The revision since which only consumers that are instances count as such."""
COUNTING_ONCE: Final = 4
"""The revision since which pools keep what volumes take of them while their backend is not up, and reports count both
ends of moves."""
KEEPING_VERSIONS: Final = 7
"""The revision since which reports keep the versions of compute services."""
KEEPING_GUESTS: Final = 7
"""The revision since which moves that were confirmed by Placement's clients are not reverted."""
EVACUATING_THE_DEAD: Final = 9
"""The revision since which a disabled host is evacuated only while its compute service is down."""
OWN_PLACES: Final = 9
"""The revision since which the answers that tenants get name no hosts and pools but their own."""
COUNTING_STANDING: Final = 10
"""The revision since which members of server groups count wherever they stand, once on a service host, and guests are
unshelved to where they were too."""
KEEPING_AS_NOVA: Final = 10
"""The revision since which guests are moved without the hosts that they were asked for with."""
REPORTS_BY_UUID: Final = 10
"""The revision since which claims expire in the usage also by reports of renamed hosts."""
CHARGING_REPORTED: Final = 11
"""The revision since which guests that come with hosts are charged to their projects."""
UUIDS_APART: Final = 5
"""The revision since which volumes, snapshots, backups and groups have no uuid of each other."""


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the journal holds: a command, its time in seconds since the epoch, the user who gave it, and the revision of
    the rules that it was given under."""

    now: float
    user: str
    command: AnyCommand
    rules: int = RULES


class WrittenOrder(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An Order whose command is MessagePack already: it encodes to the same bytes."""

    now: float
    user: str
    command: msgspec.Raw
    rules: int = RULES
