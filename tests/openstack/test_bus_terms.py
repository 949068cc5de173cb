"""Members of a cluster on one bus: the leader takes calls, the others stand by, and a call that a
deposed leader had taken is answered once, by the next one."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
import trio.testing

from hostler.core.errors import NotLeader
from hostler.core.machine.machine import ServiceMachine
from hostler.core.process.nova import NovaOptions
from hostler.core.service import Service
from hostler.core.writer.writer import open_writer

from .clouds import Cloud, instance_uuid

oslo_messaging = pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")

from hostler.core.process.bus_metrics import BusMetrics  # noqa: E402
from hostler.drivers.openstack.bus.server import BoundedServer, rpc_server  # noqa: E402
from hostler.drivers.openstack.bus.service import NovaBus  # noqa: E402

from .in_memory_bus import PATIENCE, Conductor, Running  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@asynccontextmanager
async def member(cloud: Cloud, exchange: str, **options: Any) -> AsyncIterator[Running]:
    """A member of a cluster that stands by. Its journal is left out, and so is what the members tell each other."""
    given = {"poll_seconds": 0.05, "exchange": exchange, "host": "sched", **options}
    machine = ServiceMachine()
    async with open_writer(machine, None) as writer:
        service = Service(machine, writer, open_to_all=True)
        service.cluster = cast("Any", object())
        bus = NovaBus(NovaOptions(transport_url="fake://", database=cloud.url("api"), **given), service)
        assert await bus.stand_by() == f"nova:{exchange}/scheduler/sched"
        yield Running(service, bus, Conductor(exchange))


def is_consuming(it: Running) -> bool:
    (found,) = [each for each in it.bus.metrics.collect() if each.name == "hostler_nova_consuming"]
    return bool(found.samples[0].value)


def holds_anything(it: Running) -> bool:
    return bool(it.allocations(instance_uuid(1)))


async def test_calls_wait_for_a_member_that_leads(cloud: Cloud, exchange: str) -> None:
    answers: list[Any] = []
    async with member(cloud, exchange) as it, trio.open_nursery() as nursery:

        async def call() -> None:
            answers.append(await it.select(instance_uuid(1)))

        nursery.start_soon(call)
        await trio.sleep(0.2)
        assert not answers
        assert not is_consuming(it)
        for _ in range(2):  # it is elected again
            async with trio.open_nursery() as term:
                term.start_soon(it.bus.lead)
                await it.until(lambda: is_consuming(it) and bool(answers))
                assert await it.select(instance_uuid(2))
                term.cancel_scope.cancel()
            assert not is_consuming(it)
        await it.bus.drain()
    assert len(answers) == 1


async def test_a_call_in_the_hands_of_a_deposed_member_is_answered_by_the_next_one(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with member(cloud, exchange) as first, member(cloud, exchange) as second:
        begun, decided, answers = trio.Event(), first.bus._decided, list[Any]()

        async def once_deposed(*given: Any) -> Any:
            begun.set()
            await first.service.writer.pause(lambda: NotLeader("another member leads"))
            return await decided(*given)

        async def call() -> None:
            answers.append(await first.select(instance_uuid(1)))

        monkeypatch.setattr(first.bus, "_decided", once_deposed)
        async with trio.open_nursery() as calls:
            async with trio.open_nursery() as term:
                term.start_soon(first.bus.lead)
                calls.start_soon(call)
                await begun.wait()
                await trio.testing.wait_all_tasks_blocked()
                term.cancel_scope.cancel()
            await first.until(lambda: first.bus.metrics.calls("select_destinations", "given_back") == 1)
            assert not answers
            async with trio.open_nursery() as term:
                term.start_soon(second.bus.lead)
                await second.until(lambda: bool(answers))
                term.cancel_scope.cancel()
        assert holds_anything(second)
        assert not holds_anything(first)
        assert second.bus.metrics.calls("select_destinations", "ok") == 1


async def test_a_member_that_goes_on_leading_answers_what_it_refused_meanwhile(cloud: Cloud, exchange: str) -> None:
    """A planned hand-over begins with a pause of the writer, and may fail."""
    async with member(cloud, exchange) as it, trio.open_nursery() as term:
        term.start_soon(it.bus.lead)
        await it.until(lambda: is_consuming(it))
        writer = it.service.writer
        await writer.pause(lambda: NotLeader("handing over"))
        async with trio.open_nursery() as calls:
            calls.start_soon(it.select, instance_uuid(1))
            await it.until(lambda: it.bus.metrics.calls("select_destinations", "given_back") > 0)
            writer.resume()
        assert holds_anything(it)
        term.cancel_scope.cancel()


async def test_a_member_answers_from_its_journal_while_databases_fail(cloud: Cloud, exchange: str) -> None:
    async with member(cloud, exchange) as it:
        async with trio.open_nursery() as term:
            term.start_soon(it.bus.lead)
            await it.until(lambda: is_consuming(it))
            term.cancel_scope.cancel()
        cloud.script(cloud.api, "ALTER TABLE cell_mappings RENAME TO hidden")
        async with trio.open_nursery() as term:
            term.start_soon(it.bus.lead)
            assert await it.select(instance_uuid(1))
            cloud.script(cloud.api, "ALTER TABLE hidden RENAME TO cell_mappings")
            cloud.change(cloud.cell, "UPDATE services SET disabled = 1 WHERE host = 'cmp1'")
            await it.until(lambda: it.view("cmp1").service.disabled)
            term.cancel_scope.cancel()


async def test_a_member_that_knows_no_host_leaves_calls_with_the_broker(cloud: Cloud, exchange: str) -> None:
    cloud.script(cloud.api, "ALTER TABLE cell_mappings RENAME TO hidden")
    async with member(cloud, exchange) as it, trio.open_nursery() as term:
        term.start_soon(it.bus.lead)
        async with trio.open_nursery() as calls:
            calls.start_soon(it.select, instance_uuid(1))
            await trio.sleep(0.2)
            assert not is_consuming(it)
            cloud.script(cloud.api, "ALTER TABLE hidden RENAME TO cell_mappings")
        assert holds_anything(it)
        await it.bus.drain()


def test_a_server_that_is_connected_after_its_end_takes_no_calls(
    exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oslo_config import cfg

    class Endpoint:
        def ask(self, context: Any) -> str:
            return "answered"

    connecting, connects, start = threading.Event(), threading.Event(), BoundedServer.start

    def late(self: BoundedServer) -> None:
        connecting.set()
        connects.wait(PATIENCE)
        start(self)

    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url="fake://")
    target = oslo_messaging.Target(exchange=exchange, topic="t", server="s")
    servers = [
        rpc_server(transport, target, [Endpoint()], limit=2, metrics=BusMetrics(), seconds=60.0) for _ in range(2)
    ]
    with monkeypatch.context() as patch:
        patch.setattr(BoundedServer, "start", late)
        begins = threading.Thread(target=servers[0].begin)
        begins.start()
        assert connecting.wait(PATIENCE)
        servers[0].end()
        connects.set()
        begins.join(PATIENCE)
    client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(exchange=exchange, topic="t"), timeout=0.3)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.call({}, "ask")
    servers[1].begin()
    assert client.prepare(timeout=PATIENCE).call({}, "ask") == "answered"
    servers[1].end()
