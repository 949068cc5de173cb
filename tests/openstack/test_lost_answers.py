"""Answers that Nova's conductors never learn of: what was claimed is replaced, given back or kept, never lost or
doubled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hostler.core.machine.orders import Order, PlacementWrite
from hostler.core.machine.placement_writes import ServiceModel
from hostler.placement.api import commands as api

from ..patience import HANG_SECONDS
from .clouds import Cloud, instance_uuid, moment, node_uuid
from .in_memory_bus import Running, claim, running

oslo_messaging = pytest.importorskip("oslo_messaging", reason="the extra openstack is not installed")


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PATIENCE = HANG_SECONDS


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
