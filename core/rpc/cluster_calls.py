"""Answers of the methods about a cluster."""

from __future__ import annotations

from typing import Any

from ...placement.types.errors import InvalidValue
from ..service import Identity, Service
from ..tenancy.tenants import CLOUD, require_own_user
from .cluster_methods import Lead, Members, SnapshotPart
from .messages import Params


async def of_cluster(service: Service, identity: Identity, params: Params) -> Any:
    """What one of these methods answers. NotAllowed, or InvalidValue where the service is no member of a cluster."""
    user, cluster = service.user(identity), service.cluster
    match params:
        case Members():
            service.state.tenants.require(user, "reader", CLOUD)
        case Lead():
            service.state.tenants.require(user, "cloud_admin", CLOUD)
        case _:
            require_own_user(user)
    if cluster is None:
        hint = 'set store = "etcd" in [data] of the configuration'
        raise InvalidValue("this service is not one of several", field="cluster", hint=hint)
    match params:
        case Members():
            return await cluster.members()
        case Lead(to=to):
            return await cluster.hand_over(to)
        case SnapshotPart(sequence=sequence, file=file, offset=offset):
            return await cluster.snapshot_part(sequence, file, offset)
    return await cluster.snapshot_files()
