"""Nova's scheduler RPC on a service: a client of oslo.messaging sends what Nova's conductor sends, over the library's
own in-memory bus."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order, SelectDestinations
from hostler.core.tenancy.tenants import LOCAL
from hostler.drivers.openstack.bus.waiting import age_of
from hostler.placement.types.errors import HostlerError
from tests.daemon.processes import Daemon

from ..patience import HANG_SECONDS
from ..replacing import OTHERS, paths, replaced
from .clouds import CELL, Cloud, instance_uuid, moment, node_uuid, request_spec, versioned
from .in_memory_bus import running

oslo_messaging = pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PATIENCE = HANG_SECONDS


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


async def test_the_check_of_a_rebuild_claims_nothing(cloud: Cloud, exchange: str) -> None:
    cloud.instance(1, 2, None)
    async with running(cloud, exchange) as it:
        hints = {"_nova_check_type": ["rebuild"]}
        destination = versioned("Destination", "1.4", **{"host": "cmp2", "node": "cmp2"})
        answer = await it.select(instance_uuid(1), scheduler_hints=hints, requested_destination=destination)
        data = answer[0][0]["nova_object.data"]
        assert (data["nodename"], data["allocation_request"]) == ("cmp2", "null")
        assert it.allocations(instance_uuid(1)) == {}


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


@pytest.mark.parametrize("timestamp", [None, 7, "", "yesterday", "9999-12-31T23:59:59-23:59"])
def test_what_is_no_time_of_the_past_says_no_age(timestamp: object) -> None:
    assert age_of({"timestamp": timestamp}, 1.0) is None


def test_no_value_of_a_request_is_an_error_of_another_kind_or_cannot_be_read_from_the_journal() -> None:
    from hostler.drivers.openstack.bus.wire import command_of, read_request

    sent = json.loads((Path(__file__).parents[1] / "data" / "nova_select_destinations.json").read_text())
    sent = {"spec_obj": sent["spec_obj"], "instance_uuids": sent["instance_uuids"]}
    other_object = {"nova_object.name": "X", "nova_object.version": "1.0", "nova_object.data": {}}
    machine, commands = ServiceMachine(), 0
    for where in paths(sent):
        for other in (*OTHERS, other_object):
            given = replaced(sent, where, other)
            try:
                request = read_request(given["spec_obj"], given["instance_uuids"], alternates=2, now=1.0)
                order = Order(1.0, LOCAL, command_of(request))
            except HostlerError:
                continue
            assert machine.decode(machine.encode(order)) == order
            commands += 1
    assert commands > 1_000
