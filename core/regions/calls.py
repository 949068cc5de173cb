"""Which calls a parent of regions hands to its regions, which it answers itself, and which it refuses."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from ...placement.types.errors import InvalidValue
from ..engine_commands import (
    BeginMove,
    ConfirmMove,
    EngineCommand,
    Move,
    Place,
    PlaceMany,
    Release,
    RevertMove,
    Spawned,
)
from ..lifecycle_commands import LifecycleCommand
from ..machine.catalog_queries import Flavors, Images, ShowFlavor, ShowImage
from ..machine.queries import Capacity, Fits, Instance, ShowPolicy
from ..machine.question import Query
from ..machine.region_claims import normal
from ..machine.region_queries import RegionGuests, RegionOf
from ..machine.tenant_queries import Domains, ListPools, Projects, ShowUsage, Tokens, Users
from ..machine.volume_queries import ShowVolumeType, VolumeTypes
from ..region_commands import PlaceAcross
from ..storage_commands import StorageCommand

OnGuest = Move | BeginMove | ConfirmMove | RevertMove
"""Commands on one guest, for its region."""
Asking = Instance | Fits | Capacity
"""Questions that regions answer."""
_HANDED: Final = (Place, PlaceMany, PlaceAcross, Release, Spawned, *get_args(OnGuest), *get_args(Asking))
_OWN_QUESTIONS: Final = (
    RegionOf,
    RegionGuests,
    Domains,
    Projects,
    Users,
    Tokens,
    ShowUsage,
    ListPools,
    ShowPolicy,
    Flavors,
    ShowFlavor,
    Images,
    ShowImage,
    VolumeTypes,
    ShowVolumeType,
)
"""Of tenants, of what is offered to them, and of where guests are."""
_OF_A_FLEET: Final = (*get_args(EngineCommand), *get_args(LifecycleCommand), *get_args(StorageCommand))


def is_handed(kind: type) -> bool:
    """True for a type of calls that regions answer."""
    return issubclass(kind, _HANDED)


def is_refused(kind: type) -> bool:
    """True for a type of calls that concern hosts, volumes or back ends, which a parent has none of: it would answer as
    if there were nothing."""
    if issubclass(kind, _HANDED):
        return False
    return issubclass(kind, _OF_A_FLEET) or (issubclass(kind, Query) and not issubclass(kind, _OWN_QUESTIONS))


def normalised(call: Any) -> Any:
    """A call on guests with their uuids dashed and in lower case. InvalidValue for a malformed uuid. (Requests to place
    are made so one by one.)"""
    match call:
        case Release(uuids=uuids) | Spawned(uuids=uuids):
            try:
                return msgspec.structs.replace(call, uuids=tuple(dict.fromkeys(map(normal, uuids))))
            except InvalidValue as error:
                error.field = "uuids"
                raise
        case Move() | BeginMove() | ConfirmMove() | RevertMove() | Instance():
            return msgspec.structs.replace(call, uuid=normal(call.uuid))
    return call
