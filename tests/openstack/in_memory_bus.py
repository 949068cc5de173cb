"""A service on the in-memory bus of oslo.messaging, and who calls it there as Nova's services do."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order, PlacementWrite
from hostler.core.machine.placement_writes import ServiceModel
from hostler.core.machine.provider_queries import AggregateLine, Aggregates, aggregates
from hostler.core.process.nova import NovaOptions
from hostler.core.service import Service
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import open_writer
from hostler.placement.api import commands as api
from hostler.placement.fleet.host_view import HostView

from ..patience import HANG_SECONDS
from .clouds import Cloud, request_spec

oslo_messaging = pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")

from hostler.drivers.openstack.bus.service import NovaBus  # noqa: E402

PATIENCE = HANG_SECONDS


class Conductor:
    """Calls and casts as nova-conductor, nova-api and nova-compute make them."""

    def __init__(self, exchange: str) -> None:
        from oslo_config import cfg

        transport = oslo_messaging.get_rpc_transport(cfg.CONF, url="fake://")
        target = oslo_messaging.Target(exchange=exchange, topic="scheduler", version="4.0")
        self.client = oslo_messaging.get_rpc_client(transport, target, timeout=PATIENCE)

    def select(
        self, *uuids: str, version: str = "4.5", age: float = 0.0, alternates: bool = True, **changes: Any
    ) -> Any:
        """select_destinations."""
        begun = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
        context = {"request_id": "req-1", "timestamp": begun.strftime("%Y-%m-%dT%H:%M:%S.%f")}
        given: dict[str, Any] = {
            "spec_obj": request_spec(**changes),
            "instance_uuids": list(uuids),
            "return_objects": True,
            "return_alternates": alternates,
        }
        return self.client.prepare(version=version).call(context, "select_destinations", **given)

    def tell(self, method: str, version: str, **arguments: Any) -> None:
        """A fan-out."""
        self.client.prepare(version=version, fanout=True).cast({}, method, **arguments)


class Running:
    """A bus, the service that it is on, and who calls."""

    def __init__(self, service: Service, bus: NovaBus, conductor: Conductor) -> None:
        self.service, self.bus, self.conductor = service, bus, conductor

    async def select(self, *uuids: str, **changes: Any) -> Any:
        """A call, from a thread of its own."""
        return await trio.to_thread.run_sync(partial(self.conductor.select, *uuids, **changes))

    def allocations(self, uuid: str) -> dict[str, dict[str, int]]:
        """What the Placement API shows of a consumer."""
        found = ServiceModel(self.service.state).allocations(uuid)
        return {} if found is None else {provider: held for provider, (held, _) in found.allocations.items()}

    def view(self, node: str) -> HostView:
        fleet = self.service.state.fleet
        return HostView(fleet, fleet.row(node))

    def known_aggregates(self) -> list[AggregateLine]:
        return aggregates(self.service.state, LOCAL, Aggregates())

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not holds():  # noqa: ASYNC110  # no event tells of a change
                await trio.sleep(0.02)


@asynccontextmanager
async def running(cloud: Cloud, exchange: str, **options: Any) -> AsyncIterator[Running]:
    """A service without a journal, whose state comes from the cloud's databases."""
    given = {"poll_seconds": 0.05, "exchange": exchange, "host": "sched", **options}
    machine = ServiceMachine()
    async with open_writer(machine, None) as writer:
        service = Service(machine, writer, open_to_all=True)
        bus = NovaBus(NovaOptions(transport_url="fake://", database=cloud.url("api"), **given), service)
        async with trio.open_nursery() as nursery:
            shown = await nursery.start(bus.serve)
            assert shown == f"nova:{exchange}/scheduler/sched"
            yield Running(service, bus, Conductor(exchange))
            await bus.drain()


async def claim(it: Running, uuid: str, provider: str, held: dict[str, int]) -> None:
    """Allocations as the Placement API writes them."""
    given = api.ConsumerAllocations(allocations={provider: held}, project_id="p1", user_id="u1")
    write = api.SetAllocations(now=it.service.now(), consumers={uuid: given}, infer_types=True)
    await it.service.writer.submit(Order(it.service.now(), "@local", PlacementWrite(command=write)))
