"""A parent and its regions in one process and on a clock of their own: real services, whose connections lose answers,
or refuse, where a test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import trio

from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine.event_log import History
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, Order
from hostler.core.machine.region_claims import RegionClaims
from hostler.core.machine.region_summary import RegionSummary
from hostler.core.machine.replicated import unpacked
from hostler.core.machine.request_limits import RequestLimits
from hostler.core.rates import RateLimits
from hostler.core.regions.cascade import Cascade
from hostler.core.regions.link import Link
from hostler.core.regions.options import CascadeOptions, RegionOptions
from hostler.core.rpc.caller import read_result
from hostler.core.rpc.client import ConnectionLost
from hostler.core.rpc.messages import encode
from hostler.core.rpc.methods import METHODS
from hostler.core.rpc.session import _fingerprint
from hostler.core.service import Identity, Service
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import open_writer
from hostler.placement.types.errors import HostlerError

from .region_processes import hosts


async def call(
    service: Service, method: str, params: Mapping[str, Any], key: str | None = None, identity: Identity | None = None
) -> Any:
    """Call a method as a session does."""
    known, identity = METHODS[method], identity if identity is not None else Identity(LOCAL)
    given = msgspec.msgpack.decode(encode(params), type=known.params)
    fingerprint = b"" if key is None else _fingerprint(method, encode(given))
    if service.regions is not None and service.regions.takes(given):
        return await service.regions.carry_out(identity, method, given, key, fingerprint)
    if known.kind == "question":
        return service.ask(identity, given)
    done = trio.Event()
    pending = service.order(identity, given, lambda _: done.set(), key=key, fingerprint=fingerprint)
    if pending.state != "done":
        await done.wait()
    if pending.error is not None:
        raise pending.error
    return unpacked(pending.result)


class Direct(Link):
    """A connection to a service of this process. ``faults``: what happens to the next calls of a method: an error that
    is raised instead of the call (``before``), or instead of its answer (``after``). ``calls``: what was called."""

    def __init__(self, name: str, options: RegionOptions, service: Service) -> None:
        super().__init__(name, options, 2.0, lambda: None)
        self.service = service
        self.up, self.silent = True, False
        """``silent``: it answers calls, and tells no summary any more."""
        self.told: RegionSummary | None = None
        """Told instead of the true summary."""
        self.faults: list[tuple[str, str, HostlerError]] = []
        self.calls: list[tuple[str, Any, str | None]] = []

    async def run(self) -> None:
        while True:
            self._found(self.up, "" if self.up else "down")
            if self.up and not self.silent:
                self._take(self.told if self.told is not None else self.service.region_summary())
            await trio.sleep(0.2)

    async def call(self, method: str, params: Any, *, key: str | None = None, within: float | None = None) -> Any:
        await trio.sleep(0.01)
        self.calls.append((method, params, key))
        if not self.up:
            raise ConnectionLost(f"region {self.name} is down")
        fault = next((each for each in self.faults if each[0] == method), None)
        if fault is not None:
            self.faults.remove(fault)
            if fault[1] == "before":
                raise fault[2]
        result = await call(self.service, method, params, key)
        if fault is not None:
            fault[2].maybe_done = True
            raise fault[2]
        return read_result(method, msgspec.Raw(encode(result)))


class World:
    """A parent of regions. ``links`` by name."""

    def __init__(self, service: Service, cascade: Cascade, links: dict[str, Direct]) -> None:
        self.service, self.cascade, self.links = service, cascade, links

    @property
    def claims(self) -> RegionClaims:
        return self.service.state.region_claims

    async def call(
        self, method: str, params: Mapping[str, Any], key: str | None = None, identity: Identity | None = None
    ) -> Any:
        """Call the parent."""
        return await call(self.service, method, params, key, identity)

    async def record(self, command: AnyCommand) -> Any:
        """Have the parent's journal say something that no task sees through, as after a restart."""
        return await self.service.writer.submit(Order(self.service.now(), LOCAL, command))

    def guests_in(self, region: str) -> list[str]:
        """Uuids of all guests of a region."""
        return sorted(
            line.uuid for line in self.links[region].service.ask(Identity(LOCAL), METHODS["instances"].params())
        )

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until something is so."""
        with trio.fail_after(300):
            while not predicate():  # noqa: ASYNC110  nothing tells of it
                await trio.sleep(0.05)

    async def at_rest(self) -> None:
        """Wait until nothing is on record that has to end."""
        claims = self.claims
        await self.until(lambda: not (claims.claims or claims.leftovers or claims.groups or claims.releases))


@asynccontextmanager
async def service_of(
    region: str = "", count: int = 0, limits: RequestLimits | None = None, rates: RateLimits | None = None
) -> AsyncIterator[tuple[Service, list[Order]]]:
    """A service in memory, with so many hosts, and the orders that it has carried out."""
    machine, orders = ServiceMachine(), list[Order]()
    history = History(machine)
    async with open_writer(machine) as writer:
        writer.observers.append(history.add)
        writer.observers.append(lambda sequence, order, outcome: orders.append(order))
        service = Service(machine, writer, history=history, limits=limits, rates=rates)
        if count:
            await call(service, "add_hosts", hosts(region, count))
        yield service, orders


def check_replay(service: Service, orders: Sequence[Order]) -> None:
    """A journal of the orders, and a snapshot taken half-way with the rest, make the same state."""
    machine, restored = ServiceMachine(), ServiceMachine()
    written = [machine.encode(order) for order in orders]
    with TemporaryDirectory() as name:
        for position, data in enumerate(written):
            if position == len(written) // 2:
                folder = Path(name) / "snapshot"
                folder.mkdir()
                machine.save(folder)
                restored.load(folder)
            for each in (machine, restored) if position >= len(written) // 2 else (machine,):
                with suppress(HostlerError):  # a refusal is an outcome
                    each.apply(each.decode(data))
    assert state_digest(machine.state) == state_digest(service.state) == state_digest(restored.state)


@asynccontextmanager
async def world(
    counts: Mapping[str, int],
    options: CascadeOptions | None = None,
    *,
    limits: RequestLimits | None = None,
    rates: RateLimits | None = None,
    **tables: RegionOptions,
) -> AsyncIterator[World]:
    """A parent of regions with so many hosts each, the first of which is the cheapest; ``limits`` and ``rates`` are
    the parent's. At the end the journals of all must make the states that they have."""
    async with trio.open_nursery() as nursery:
        services: dict[str, Service] = {}
        orders: list[tuple[Service, list[Order]]] = []

        async def serve(name: str, count: int, *bounds: Any, task_status: trio.TaskStatus[Service]) -> None:
            async with service_of(name, count, *bounds) as (service, carried_out):
                orders.append((service, carried_out))
                task_status.started(service)
                await trio.sleep_forever()

        for name, count in counts.items():
            services[name] = await nursery.start(serve, name, count)
        parent: Service = await nursery.start(serve, "", 0, limits, rates)
        regions = {
            name: tables.get(name) or RegionOptions(addresses=("unix:/none",), price=float(price))
            for price, name in enumerate(counts, 1)
        }
        cascade = Cascade(parent, regions, options or CascadeOptions())
        links = {name: Direct(name, regions[name], services[name]) for name in regions}
        cascade.links.update(links)
        parent.regions = cascade
        nursery.start_soon(cascade.run)
        made = World(parent, cascade, links)
        await made.until(lambda: all(link.alive and link.summary is not None for link in links.values()))
        yield made
        for service, carried_out in orders:
            if carried_out:
                check_replay(service, carried_out)
        nursery.cancel_scope.cancel()
