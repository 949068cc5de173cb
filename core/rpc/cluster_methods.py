"""Methods about a cluster of members: who they are, which one leads, and copies of their snapshots."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from ...placement.types.errors import InvalidValue
from ..service import Identity, Service
from ..tenancy.tenants import CLOUD, require_own_user
from .messages import Params


class Members(Params, frozen=True):
    """The members of the cluster that this service is one of. For readers of the cloud."""


class Lead(Params, frozen=True):
    """Have another member lead: ``to``, or the one that is least behind. Commands under way are carried out first.
    Returns the name of the member; the leader alone can do that. For cloud admins."""

    to: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class SnapshotFiles(Params, frozen=True):
    """The newest snapshot of this member, with the length of each of its files; one is taken if there is none. For
    other members, and the service's own user."""


class SnapshotPart(Params, frozen=True):
    """Some MiB of a file of a snapshot from an offset on; empty behind its end. For other members, and the
    service's own user."""

    sequence: Annotated[int, msgspec.Meta(ge=0)]
    file: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


async def of_cluster(service: Service, identity: Identity, params: Params) -> Any:
    """What one of these methods answers. InvalidValue where the service is no member of a cluster."""
    user, cluster = service.user(identity), service.cluster
    if cluster is None:
        hint = 'set store = "etcd" in [data] of the configuration'
        raise InvalidValue("this service is not one of several", field="cluster", hint=hint)
    match params:
        case Members():
            service.state.tenants.require(user, "reader", CLOUD)
            return await cluster.members()
        case Lead(to=to):
            service.state.tenants.require(user, "cloud_admin", CLOUD)
            return await cluster.hand_over(to)
        case SnapshotPart(sequence=sequence, file=file, offset=offset):
            require_own_user(user)
            return await cluster.snapshot_part(sequence, file, offset)
    require_own_user(user)
    return await cluster.snapshot_files()
