"""What a parent journals of what its regions do, and what an error says of whether a region has done something."""

from __future__ import annotations

import logging
from typing import Any, Final

from ...placement.types.errors import (
    CapacityExceeded,
    DuplicateName,
    HostlerError,
    InUse,
    InvalidValue,
    MetricNotFound,
    NoValidHost,
    UnknownName,
)
from ..errors import KeyReused, LeadershipLost, NotLeader, Overloaded, RegionsUnavailable, Stopped, StorageFailed
from ..machine.orders import AnyCommand, Order
from ..region_commands import on_behalf_of
from ..rpc.client import ConnectionLost
from ..service import Service
from ..tenancy.errors import NotAllowed, NotAuthenticated, QuotaExceeded
from ..tenancy.tenants import LOCAL

REFUSALS: Final = (
    InvalidValue,
    UnknownName,
    DuplicateName,
    InUse,
    CapacityExceeded,
    NoValidHost,
    MetricNotFound,
    QuotaExceeded,
)
"""By these a region has judged a request, and has not granted it."""
NOT_DONE: Final = (
    *REFUSALS,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    NotLeader,
    Stopped,
    ConnectionLost,
    RegionsUnavailable,
)
"""After these, as the answer to the only attempt, a region has done nothing."""

log = logging.getLogger("hostler.regions")


def may_be_done(error: HostlerError) -> bool:
    """True unless an error proves that the region has not done what it was asked for."""
    return error.maybe_done or not isinstance(error, NOT_DONE)


def for_caller(error: HostlerError, region: str) -> HostlerError:
    """What a caller is told where a region has not answered their call: refusals as they are, of all else only that.
    Addresses, leaders and tokens are of the parent's own dealings with the region, and for the log."""
    if isinstance(error, (*REFUSALS, KeyReused)):
        return error
    log.info("region %s has not answered a call: %s: %s", region, error.code, error)
    told = RegionsUnavailable(f"region {region} has not answered", hint="ask again with the same idempotency key")
    told.maybe_done = may_be_done(error)
    return told


class Recorder:
    """Journals what is begun and what has become of it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def begin(self, command: AnyCommand, user: str) -> None:
        """Record what is about to be asked of regions. HostlerError, with nothing begun, if that is refused."""
        await self._submit(command, user)

    async def go_on(self, command: AnyCommand, *, key: str | None = None, fingerprint: bytes = b"") -> Any:
        """Record what has become of something begun; its answer, which is kept by the key unless another command has
        taken that meanwhile. HostlerError where it cannot be recorded now: it stays on record as begun."""
        try:
            return await self._submit(command, LOCAL, key, fingerprint)
        except KeyReused:
            return await self._submit(command, LOCAL)
        except (NotLeader, Stopped, LeadershipLost) as error:
            text = f"what regions have done is not recorded yet, and the next to lead goes on with it: {error.args[0]}"
            failure: HostlerError = LeadershipLost(text, hint="ask again with the same idempotency key")
        except StorageFailed as error:
            text = f"what regions have done cannot be recorded now, but once it can: {error.args[0]}"
            failure = StorageFailed(text, field="data", hint="ask again with the same idempotency key")
        except HostlerError as error:
            failure = error
        failure.maybe_done = True
        raise failure

    async def _submit(self, command: AnyCommand, user: str, key: str | None = None, fingerprint: bytes = b"") -> Any:
        order = Order(self._service.now(), user, command)
        lane = on_behalf_of(command, user)
        return await self._service.writer.submit(order, key=key, fingerprint=fingerprint, lane=lane)
