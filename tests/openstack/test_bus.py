"""Nova's scheduler RPC on a service: a client of oslo.messaging sends what Nova's conductor sends, over the library's
own in-memory bus."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order, PlacementWrite, SelectDestinations
from hostler.core.machine.placement_writes import ServiceModel
from hostler.core.machine.provider_queries import AggregateLine, Aggregates, aggregates
from hostler.core.process.nova import NovaOptions
from hostler.core.service import Service
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import open_writer
from hostler.placement.api import commands as api
from hostler.placement.fleet.host_view import HostView
from tests.daemon.processes import Daemon

from ..patience import HANG_SECONDS
from .clouds import CELL, Cloud, instance_uuid, moment, node_uuid, request_spec, versioned

oslo_messaging = pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")

from hostler.drivers.openstack.bus.service import NovaBus  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
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


@pytest.fixture
def exchange(request: pytest.FixtureRequest) -> str:
    """The in-memory bus is one for the whole process: each test has an exchange of its own."""
    return f"nova-{abs(hash(request.node.nodeid))}"


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    cloud = Cloud(tmp_path)
    for number in (1, 2, 3):
        cloud.host(number, seen=time.time())
    return cloud


@pytest.fixture(autouse=True)
def with_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of Nova 34 have a trait that comes by the Placement API, which these tests leave out."""
    monkeypatch.setattr("tests.openstack.clouds.MODERN", 72)


async def test_a_guest_is_chosen_a_host_and_its_claim_is_an_allocation(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange) as it:
        ((chosen, *alternates),) = await it.select(instance_uuid(1))
        data = chosen["nova_object.data"]
        assert (chosen["nova_object.name"], chosen["nova_object.version"]) == ("Selection", "1.1")
        assert (data["cell_uuid"], data["availability_zone"], data["allocation_request_version"]) == (
            CELL,
            "nova",
            "1.36",
        )
        held = {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}
        provider = data["compute_node_uuid"]
        assert json.loads(data["allocation_request"]) == {
            "allocations": {provider: {"resources": held}},
            "mappings": {"": [provider]},
        }
        assert it.allocations(instance_uuid(1)) == {provider: held}
        hosts = {each["nova_object.data"]["service_host"] for each in (chosen, *alternates)}
        assert hosts == {"cmp1", "cmp2", "cmp3"}


async def test_several_guests_are_claimed_all_or_none(cloud: Cloud, exchange: str) -> None:
    uuids = [instance_uuid(number) for number in range(4)]
    group = versioned(
        "InstanceGroup",
        "1.10",
        **{"uuid": node_uuid(9), "policies": ["anti-affinity"], "policy": None, "members": uuids, "hosts": []},
    )
    async with running(cloud, exchange) as it:
        answer = await it.select(*uuids[:3], instance_group=group, num_instances=3, alternates=False)
        assert {each[0]["nova_object.data"]["nodename"] for each in answer} == {"cmp1", "cmp2", "cmp3"}
        assert [len(each) for each in answer] == [1, 1, 1]
        it.service.state.engine.release(uuids[:3])
        with pytest.raises(Exception, match="No valid host"):
            await it.select(*uuids, instance_group=group, num_instances=4)
        assert not any(it.allocations(uuid) for uuid in uuids)


async def test_a_refusal_is_nova_s_own_exception(cloud: Cloud, exchange: str) -> None:
    big = versioned("Flavor", "1.2", **{"name": "big", "vcpus": 999, "memory_mb": 1, "root_gb": 1, "ephemeral_gb": 0})
    async with running(cloud, exchange) as it:
        for changes in ({"flavor": big}, {"flavor": None}, {"a_new_field": "x"}, {"scheduler_hints": 7}):
            with pytest.raises(Exception, match="No valid host") as caught:
                await it.select(instance_uuid(1), **changes)
            kind = type(caught.value)
            assert (kind.__module__, kind.__name__) == ("nova.exception", "NoValidHost")
            assert set(vars(caught.value)["kwargs"]) == {"reason", "code"}
        assert await it.select(instance_uuid(1)), "the server goes on"


@pytest.mark.parametrize("version", ["4.0", "4.3", "4.4", "4.5"])
async def test_each_version_of_a_conductor_is_answered(cloud: Cloud, exchange: str, version: str) -> None:
    async with running(cloud, exchange) as it:
        assert await it.select(instance_uuid(1), version=version)


async def test_an_older_conductor_gets_dictionaries(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange) as it:
        call = partial(
            it.conductor.client.prepare(version="4.3").call,
            {},
            "select_destinations",
            spec_obj=request_spec(instance_uuid=instance_uuid(1)),
        )
        (found,) = await trio.to_thread.run_sync(call)
        assert set(found) == {"host", "nodename", "limits"}
        assert it.allocations(instance_uuid(1))


async def test_a_call_that_is_too_old_claims_nothing(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange, stale_seconds=60.0) as it:
        with pytest.raises(Exception, match="nobody waits"):
            await it.select(instance_uuid(1), age=90.0)
        assert it.allocations(instance_uuid(1)) == {}
        assert await it.select(instance_uuid(1), age=30.0)


async def test_a_call_that_came_while_nothing_waited_is_answered_whatever_the_clocks_say(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.drivers.openstack.bus.waiting.WaitBound.taken", lambda *_: 0.0)
    async with running(cloud, exchange, stale_seconds=60.0) as it:
        assert await it.select(instance_uuid(1), age=7_200.0)
        assert await it.select(instance_uuid(2), age=-7_200.0)


async def test_a_call_whose_turn_comes_too_late_claims_nothing(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange, call_seconds=1e-9) as it:
        with pytest.raises(Exception, match="No valid host"):
            await it.select(instance_uuid(1))
        assert it.allocations(instance_uuid(1)) == {}


async def test_a_repeated_call_replaces_the_claim_whose_answer_was_lost(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange) as it:
        first = await it.select(instance_uuid(1))
        again = await it.select(instance_uuid(1))
        assert len(it.allocations(instance_uuid(1))) == 1
        assert (len(first), len(again)) == (1, 1)
        used = [
            ServiceModel(it.service.state).provider_usages(node_uuid(number)).usages["VCPU"] for number in (1, 2, 3)
        ]
        assert sum(used) == 2


@pytest.mark.parametrize(
    ("mapped_to", "build_request", "states"),
    [
        (1, False, None),
        (None, False, None),
        (2, False, {"vm_state": "error"}),
        (2, False, {"vm_state": "shelved_offloaded"}),
        (2, False, {"vm_state": "building", "deleted": 7}),
    ],
    ids=["in cell0", "deleted before it was built", "failed", "not unshelved", "deleted"],
)
async def test_a_claim_whose_answer_was_lost_is_given_back(
    cloud: Cloud,
    exchange: str,
    monkeypatch: pytest.MonkeyPatch,
    mapped_to: int | None,
    build_request: bool,
    states: dict[str, Any] | None,
) -> None:
    monkeypatch.setattr("hostler.drivers.openstack.bus.following.SEEK_SECONDS", 0.05)
    lost = instance_uuid(1)
    waiting = in_flight(cloud)
    cloud.write(cloud.api, "build_requests", instance_uuid=lost)
    cloud.write(cloud.api, "instance_mappings", instance_uuid=lost, cell_id=None)
    async with running(cloud, exchange) as it:
        for uuid in (*waiting, lost):
            await it.select(uuid)
        if states is not None:
            at = moment(time.time())
            cloud.instance(1, None, None, updated_at=at, **states)
            if states["vm_state"] == "error":
                cloud.write(cloud.cell, "instance_faults", instance_uuid=lost, code=500, created_at=at, deleted=0)
        cloud.change(cloud.api, "UPDATE instance_mappings SET cell_id = ? WHERE instance_uuid = ?", mapped_to, lost)
        cloud.change(cloud.api, "DELETE FROM build_requests WHERE instance_uuid = ?", lost)
        await it.until(lambda: not it.allocations(lost))
        await it.until(lambda: released(it) == 1)
        assert all(map(it.allocations, waiting))
        usages = [ServiceModel(it.service.state).provider_usages(node_uuid(number)).usages for number in (1, 2, 3)]
        assert sum(each["VCPU"] for each in usages) == 2 * len(waiting)


def in_flight(cloud: Cloud) -> list[str]:
    """Instances for which a host may be awaited: Nova's own in each state, and one that Nova does not know."""
    cloud.write(cloud.api, "build_requests", instance_uuid=instance_uuid(2))
    for number, cell in ((2, None), (3, 2), (4, 2), (6, 2)):
        cloud.write(cloud.api, "instance_mappings", instance_uuid=instance_uuid(number), cell_id=cell)
    cloud.instance(3, None, None, vm_state="building")
    cloud.instance(4, None, None, vm_state="shelved_offloaded", task_state="unshelving")
    # nova reset-state while a compute has not begun with it, and once failed before
    cloud.instance(6, None, None, vm_state="error", updated_at=moment(time.time()))
    cloud.write(
        cloud.cell,
        "instance_faults",
        instance_uuid=instance_uuid(6),
        code=500,
        created_at=moment(time.time() - 3_600),
        deleted=0,
    )
    return [instance_uuid(number) for number in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize(("hours", "kept"), [(23, True), (25, False)])
async def test_a_claim_is_kept_for_as_long_as_a_compute_may_begin_with_its_guest(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch, hours: int, kept: bool
) -> None:
    """Builds wait for others of their host, without a host in Nova's databases."""
    waiting = in_flight(cloud)
    async with running(cloud, exchange) as it:
        for uuid in waiting:
            await it.select(uuid)
        begun = it.service.now()
        for at in (begun + 1, begun + 2 + hours * 3_600):
            await reported(it, monkeypatch, at)
        assert [bool(it.allocations(uuid)) for uuid in waiting] == [kept] * len(waiting)


async def reported(it: Running, monkeypatch: pytest.MonkeyPatch, at: float) -> None:
    """Have all hosts report at a time."""
    monkeypatch.setattr(it.service, "now", lambda: at)
    it.bus._following.note_all()
    await it.until(lambda: bool((it.service.state.fleet._store.row["reported"][:3] >= at).all()))


def released(it: Running) -> float:
    """Claims that were given back, as metrics say."""
    families = {family.name: family for family in it.bus.metrics.collect()}
    return families["hostler_nova_lost_claims"].samples[0].value


async def test_an_evacuation_holds_both_hosts_and_a_refused_one_only_the_old(cloud: Cloud, exchange: str) -> None:
    cloud.instance(1, 1, None)
    held = {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}
    async with running(cloud, exchange) as it:
        await claim(it, instance_uuid(1), node_uuid(1), held)
        ((chosen,),) = await it.select(instance_uuid(1), ignore_hosts=["cmp1"], alternates=False)
        target = chosen["nova_object.data"]["compute_node_uuid"]
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): held, target: held}
        with pytest.raises(Exception, match="No valid host"):
            await it.select(instance_uuid(1), ignore_hosts=["cmp1", "cmp2", "cmp3"])
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): held}, "the answer of the first was lost"


HELD = {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}


async def evacuated(it: Running, *, beside: str = "cmp1") -> str:
    """The provider that an instance is to be evacuated to."""
    ((chosen,),) = await it.select(instance_uuid(1), ignore_hosts=["cmp1", beside], alternates=False)
    return str(chosen["nova_object.data"]["compute_node_uuid"])


async def test_an_evacuation_that_is_asked_for_again_holds_what_the_lost_answer_named_no_longer(
    cloud: Cloud, exchange: str, tmp_path: Path
) -> None:
    """Also by the service that was killed meanwhile, from its journal or a snapshot."""
    cloud.instance(1, 1, None, task_state="rebuilding")
    async with running(cloud, exchange) as it:
        await claim(it, instance_uuid(1), node_uuid(1), HELD)
        await evacuated(it, beside="cmp3")
        state = it.service.state
        known = dict(state.requests.doubled)
        assert list(known) == [instance_uuid(1)]
        state.save(tmp_path)
        state.requests.doubled.clear()
        state.load(tmp_path)
        assert state.requests.doubled == known
        target = await evacuated(it, beside="cmp2")
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): HELD, target: HELD}
        assert target == node_uuid(3)
        usages = ServiceModel(it.service.state).provider_usages(node_uuid(2)).usages
        assert usages["VCPU"] == 0


def evacuation(cloud: Cloud, **changes: str) -> None:
    """The row of Nova's API of an instance's evacuation from cmp1, or with what became of it."""
    values = {"source_compute": "cmp1", "status": "accepted", "migration_type": "evacuation", **changes}
    cloud.write(cloud.cell, "migrations", instance_uuid=instance_uuid(1), **values)


@pytest.mark.parametrize("deleted", [0, 7])
async def test_what_an_evacuation_was_given_is_given_back_once_nova_moves_the_instance_no_longer(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch, deleted: int
) -> None:
    monkeypatch.setattr("hostler.drivers.openstack.bus.following.SEEK_SECONDS", 0.05)
    cloud.instance(1, 1, None, task_state="rebuilding")
    evacuation(cloud)
    evacuation(cloud, status="done", dest_node="cmp2")
    evacuation(cloud, status="confirmed", dest_node="cmp2", migration_type="resize")
    async with running(cloud, exchange) as it:
        await claim(it, instance_uuid(1), node_uuid(1), HELD)
        target = await evacuated(it, beside="cmp3")
        read = it.bus._following.claims.release
        assert await read() == 0, "Nova is still about it"
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): HELD, target: HELD}
        cloud.change(cloud.cell, "UPDATE instances SET task_state = NULL, deleted = ?", deleted)
        await it.until(lambda: it.allocations(instance_uuid(1)) == {node_uuid(1): HELD})
        await it.until(lambda: released(it) == 1)


@pytest.mark.parametrize(
    "states",
    [({"task_state": None},), ({"task_state": "powering-off"}, {"task_state": None, "vm_state": "stopped"})],
    ids=["active", "stopped"],
)
async def test_an_evacuation_without_a_task_that_the_new_host_knows_keeps_both_hosts(
    cloud: Cloud, exchange: str, states: tuple[dict[str, str | None], ...]
) -> None:
    """Nova 34's rebuild_instance ends the task, and stops the guest if it was stopped, before finish_evacuation names
    the new host."""
    cloud.instance(1, 1, None, task_state="rebuilding")
    evacuation(cloud)
    async with running(cloud, exchange) as it:
        await claim(it, instance_uuid(1), node_uuid(1), HELD)
        target = await evacuated(it, beside="cmp3")
        # _claim_existing_migration
        cloud.change(cloud.cell, "UPDATE migrations SET status = 'pre-migrating', dest_node = 'cmp2'")
        for each in states:
            for name, value in each.items():
                cloud.change(cloud.cell, f"UPDATE instances SET {name} = ?", value)
            assert await it.bus._following.claims.release() == 0
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): HELD, target: HELD}
        # _set_migration_status of an evacuation that failed there
        cloud.change(cloud.cell, "UPDATE migrations SET status = 'failed'")
        assert await it.bus._following.claims.release() == 1
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): HELD}


async def test_an_evacuation_that_has_come_keeps_both_hosts(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host that is dead is charged until its nova-compute is back, also if the instance is evacuated once more."""
    monkeypatch.setattr("hostler.drivers.openstack.bus.following.SEEK_SECONDS", 0.05)
    cloud.instance(1, 1, None, task_state="rebuilding")
    async with running(cloud, exchange) as it:
        await claim(it, instance_uuid(1), node_uuid(1), HELD)
        first = await evacuated(it, beside="cmp3")
        change = "UPDATE instances SET host = 'cmp2', node = 'cmp2', task_state = NULL, updated_at = ?"
        cloud.change(cloud.cell, change, moment(time.time() + 1))
        await it.until(lambda: not it.service.state.requests.doubled)
        assert await it.bus._following.claims.release() == 0
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): HELD, first: HELD}
        second = await evacuated(it, beside="cmp2")
        assert it.allocations(instance_uuid(1)) == {node_uuid(1): HELD, first: HELD, second: HELD}


@pytest.mark.parametrize("again", [False, True])
async def test_a_migration_whose_answer_was_lost_leaves_nothing_once_nova_reverts_it(
    cloud: Cloud, exchange: str, again: bool
) -> None:
    """A resize, cold or live migration: the conductor, whose call times out, gives the instance back what its migration
    held."""
    cloud.instance(1, 1, None, task_state="resize_prep")
    instance, migration = instance_uuid(1), "eeeeeeee-0000-4000-8000-000000000001"
    async with running(cloud, exchange) as it:
        await claim(it, instance, node_uuid(1), HELD)
        for _ in range(1 + again):
            await hold(it, {migration: {node_uuid(1): HELD}, instance: {}})
            target = await evacuated(it)
            assert (list(it.allocations(instance)), list(it.allocations(migration))) == ([target], [node_uuid(1)])
            await hold(it, {migration: {}, instance: {node_uuid(1): HELD}})
        assert (it.allocations(instance), it.allocations(migration)) == ({node_uuid(1): HELD}, {})
        used = [ServiceModel(it.service.state).provider_usages(node_uuid(each)).usages["VCPU"] for each in (1, 2, 3)]
        assert used == [2, 0, 0]


async def hold(it: Running, given: dict[str, dict[str, dict[str, int]]]) -> None:
    """One write of several consumers, as the conductor hands allocations over."""
    consumers = {
        uuid: api.ConsumerAllocations(allocations=held, project_id="p1", user_id="u1") for uuid, held in given.items()
    }
    write = api.SetAllocations(now=it.service.now(), consumers=consumers, infer_types=True)
    await it.service.writer.submit(Order(it.service.now(), "@local", PlacementWrite(command=write)))


async def test_a_migration_whose_allocation_was_moved_claims_the_new_host_only(cloud: Cloud, exchange: str) -> None:
    cloud.instance(1, 1, None)
    async with running(cloud, exchange) as it:
        assert instance_uuid(1) in it.view("cmp1").instances
        ((chosen,),) = await it.select(instance_uuid(1), ignore_hosts=["cmp1"], alternates=False)
        target = chosen["nova_object.data"]
        assert list(it.allocations(instance_uuid(1))) == [target["compute_node_uuid"]]
        assert instance_uuid(1) in it.view(target["nodename"]).instances


async def test_the_check_of_a_rebuild_claims_nothing(cloud: Cloud, exchange: str) -> None:
    cloud.instance(1, 2, None)
    async with running(cloud, exchange) as it:
        hints = {"_nova_check_type": ["rebuild"]}
        destination = versioned("Destination", "1.4", **{"host": "cmp2", "node": "cmp2"})
        answer = await it.select(instance_uuid(1), scheduler_hints=hints, requested_destination=destination)
        data = answer[0][0]["nova_object.data"]
        assert (data["nodename"], data["allocation_request"]) == ("cmp2", "null")
        assert it.allocations(instance_uuid(1)) == {}


async def claim(it: Running, uuid: str, provider: str, held: dict[str, int]) -> None:
    """Allocations as the Placement API writes them."""
    given = api.ConsumerAllocations(allocations={provider: held}, project_id="p1", user_id="u1")
    write = api.SetAllocations(now=it.service.now(), consumers={uuid: given}, infer_types=True)
    await it.service.writer.submit(Order(it.service.now(), "@local", PlacementWrite(command=write)))


async def test_what_changes_in_the_databases_is_followed(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange) as it:
        later = moment(time.time() + 1)
        cloud.change(cloud.cell, "UPDATE services SET disabled = 1, disabled_reason = 'x' WHERE host = 'cmp1'")
        cloud.change(cloud.cell, "UPDATE compute_nodes SET free_ram_mb = 100, updated_at = ? WHERE id = 2", later)
        cloud.host(4, seen=time.time())
        cloud.change(cloud.cell, "UPDATE compute_nodes SET deleted = 3 WHERE id = 3")
        await it.until(lambda: it.view("cmp1").service.disabled)
        await it.until(lambda: it.view("cmp2").free_ram_mb == 100)
        await it.until(lambda: it.service.state.fleet._names.find("cmp4") >= 0)
        await it.until(lambda: it.view("cmp3").service.disabled_reason == "its compute node is gone")


async def test_a_heartbeat_keeps_a_service_up(cloud: Cloud, exchange: str) -> None:
    cloud.change(cloud.cell, "UPDATE services SET last_seen_up = ? WHERE host = 'cmp1'", moment(time.time() - 3600))
    async with running(cloud, exchange) as it:
        fleet = it.service.state.fleet
        assert not fleet.column("service_up")[fleet.row("cmp1")]
        cloud.change(cloud.cell, "UPDATE services SET last_seen_up = ? WHERE host = 'cmp1'", moment(time.time()))
        await it.until(lambda: bool(fleet.column("service_up")[fleet.row("cmp1")]))


async def test_fan_outs_have_the_databases_read_at_once(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange, poll_seconds=3_600.0) as it:
        cloud.aggregate(1, "cmp1", availability_zone="az1")
        aggregate = versioned("Aggregate", "1.3", **{"uuid": node_uuid(8), "name": "a", "hosts": [], "metadata": {}})
        it.conductor.tell("update_aggregates", "4.1", aggregates=[aggregate])
        await it.until(lambda: len(it.view("cmp1").aggregates) == 1)
        cloud.change(cloud.api, "UPDATE aggregate_metadata SET value = 'az2'")
        it.conductor.tell("delete_aggregate", "4.1", aggregate=aggregate)
        await it.until(lambda: it.view("cmp1").aggregates[0].metadata["availability_zone"] == "az2")
        cloud.change(cloud.api, "DELETE FROM aggregate_hosts")
        it.conductor.tell("delete_aggregate", "4.1", aggregate=aggregate)
        await it.until(lambda: not it.known_aggregates())
        uuid = cloud.instance(1, 2, None)
        info = versioned("InstanceList", "2.6", objects=[versioned("Instance", "2.8", uuid=uuid, host="cmp2")])
        it.conductor.tell("update_instance_info", "4.2", host_name="cmp2", instance_info=info)
        await it.until(lambda: uuid in it.view("cmp2").instances)
        cloud.change(cloud.cell, "UPDATE instances SET deleted = id")
        it.conductor.tell("delete_instance_info", "4.2", host_name="cmp2", instance_uuid=uuid)
        await it.until(lambda: uuid not in it.view("cmp2").instances)
        it.conductor.tell("sync_instance_info", "4.2", host_name="cmp2", instance_uuids=[])
        assert await it.select(instance_uuid(5))


async def test_hosts_with_claims_are_reported_though_their_rows_are_as_they_were(cloud: Cloud, exchange: str) -> None:
    """Claims that no report has run out by reports."""
    async with running(cloud, exchange) as it:
        assert it.bus._following._with_claims() == set()
        ((chosen, *_),) = await it.select(instance_uuid(1))
        name = chosen["nova_object.data"]["service_host"] if isinstance(chosen, dict) else chosen.service_host
        assert it.bus._following._with_claims() == {name}
        cloud.instance(1, int(name.removeprefix("cmp")), None, updated_at=moment(time.time()))
        await it.until(lambda: not it.bus._following._with_claims())


async def test_a_database_that_fails_leaves_calls_answered(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange) as it:
        hidden = cloud.cell.with_suffix(".hidden")
        cloud.script(cloud.cell, "ALTER TABLE services RENAME TO hidden")
        assert await it.select(instance_uuid(1))
        cloud.script(cloud.cell, "ALTER TABLE hidden RENAME TO services")
        cloud.change(cloud.cell, "UPDATE services SET disabled = 1 WHERE host = 'cmp1'")
        await it.until(lambda: it.view("cmp1").service.disabled)
        assert not hidden.exists()


async def test_ping_and_unknown_methods_are_answered(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange) as it:
        ping = partial(it.conductor.client.prepare(namespace="baseapi", version="1.0").call, {}, "ping", arg="x")
        assert await trio.to_thread.run_sync(ping) == {"service": "scheduler", "arg": "x"}
        unknown = partial(it.conductor.client.prepare(version="4.5").call, {}, "no_such_method")
        with pytest.raises(Exception, match="no_such_method"):
            await trio.to_thread.run_sync(unknown)
        newer = partial(it.conductor.client.prepare(version="5.0").call, {}, "select_destinations")
        with pytest.raises(Exception, match="version"):
            await trio.to_thread.run_sync(newer)


async def test_a_call_under_way_is_answered_before_the_end(
    cloud: Cloud, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    async with running(cloud, exchange) as it:
        begun, ending, decided = trio.Event(), trio.Event(), it.bus._decided

        async def slowly(request: Any, patience: float, key: Any) -> Any:
            begun.set()
            await ending.wait()
            return await decided(request, patience)

        async def call() -> None:
            answers.append(await it.select(instance_uuid(1)))

        monkeypatch.setattr(it.bus, "_decided", slowly)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await begun.wait()
            nursery.start_soon(it.bus.drain)
            await trio.testing.wait_all_tasks_blocked()
            ending.set()
        assert it.allocations(instance_uuid(1))
    assert len(answers) == 1


async def test_a_claim_is_what_the_journal_repeats(cloud: Cloud, exchange: str) -> None:
    async with running(cloud, exchange) as it:
        orders: list[Order] = []
        it.service.writer.observers.append(lambda sequence, order, outcome: orders.append(order))
        await it.select(instance_uuid(1), alternates=False)
        made = [order for order in orders if isinstance(order.command, SelectDestinations)]
        machine = it.service.machine
        assert [machine.decode(machine.encode(order)) for order in made] == made
        assert len(made) == 1


def test_the_daemon_serves_the_bus_beside_rpc_and_ends_gracefully(cloud: Cloud, tmp_path: Path) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    config = f'[nova]\ndatabase = "{cloud.url("api")}"\nhost = "sched"\n'
    with Daemon(folder, "--nova", "fake://", config=config) as daemon:
        assert daemon.ready[-1] == "nova:nova/scheduler/sched"
        with daemon.client() as client:
            assert [line.name for line in client.call("providers")] == ["cmp1", "cmp2", "cmp3"]
        assert daemon.terminate() == 0


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("", "nova.database"),
        ('[nova]\ndatabase = "sqlite:///nowhere.sqlite"\n', "there is no file nowhere.sqlite"),
        ('[nova]\ndatabase = "x"\npoll_seconds = 0\n', "poll_seconds"),
    ],
)
def test_a_bus_that_cannot_be_served_is_one_clear_error(tmp_path: Path, config: str, problem: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config)
    command = [sys.executable, "-m", "hostler", "serve", "--rpc", f"unix:{tmp_path}/s", "--nova", "fake://"]
    done = subprocess.run([*command, "--config", str(path)], capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode != 0
    assert problem in done.stderr


def test_the_recorded_request_of_a_conductor_is_read() -> None:
    from hostler.drivers.openstack.bus.wire import read_request

    sent = json.loads((Path(__file__).parents[1] / "data" / "nova_select_destinations.json").read_text())
    request = read_request(sent["spec_obj"], sent["instance_uuids"], alternates=2, now=1.0)
    group = request.server_group
    assert group is not None
    assert not isinstance(group, str)
    assert (group.policy, group.max_server_per_host, group.hosts) == ("anti-affinity", 2, frozenset({"h1"}))
    (port,) = request.spec.requested_resources
    assert port.resources == {"NET_BW_EGR_KILOBIT_PER_SEC": 1000}
    assert request.spec.requested_destination is not None
    assert request.spec.requested_destination.aggregates == ("a1,a2",)
    assert request.spec.numa_topology is not None
    assert request.spec.numa_topology.cells[0].pcpuset == {1}
