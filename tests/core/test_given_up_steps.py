"""Commands in steps that are given up between two of them, while others look at versions of their own, leave the state
as it was before."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as l
from hostler.core import storage_commands as s
from hostler.core.cluster.state_digest import state_digest
from hostler.core.machine import arrivals, backend_changes, storage_backends
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.report_columns import columns_of
from hostler.placement.load import adding_in_steps
from hostler.placement.load.adding import add_hosts
from hostler.placement.storage import groups
from hostler.placement.storage.pools import pools as pools_of_backends
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec
from hostler.placement.types.host import Host, RunningInstance
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.steps import finished
from tests.core.orders import NOW, order, uuid_of
from tests.core.test_reports_in_steps import reports_a_step
from tests.core.test_reports_in_steps import world as with_hosts
from tests.core.test_several_in_steps import GROUPS, look, providers, steps_of, wish
from tests.core.test_several_in_steps import world as with_groups
from tests.fleet.values import aggregate, host
from tests.volumes.values import do, storage_machine
from tests.volumes.values import report as of_backend
from tests.volumes.values import reports as reports_of
from tests.volumes.values import wish as volume

Made = tuple[ServiceMachine, Any]


def _several(group: str | None) -> Made:
    chance = random.Random(1)
    request = msgspec.structs.replace(wish(chance), instance_uuids=tuple(map(uuid_of, range(1, 10))))
    return with_groups(chance), p.Place(request=msgspec.structs.replace(request, server_group=group))


def _candidates() -> Made:
    chance = random.Random(1)
    offers: dict[str, tuple[p.AllocationCandidate, ...]] = {
        each: (p.AllocationCandidate(allocations={each: p.ProviderResources({"VCPU": 1})}),) * 4 for each in providers()
    }
    request = msgspec.structs.replace(wish(chance), instance_uuids=(uuid_of(1),))
    return with_groups(chance), p.PlaceCandidates(request=request, candidates=offers)


def _reports() -> Made:
    known = [
        Host(host=f"node-{number}", vcpus_total=16, total_usable_ram_mb=4_096, stats={"at": f"{number}"})
        for number in range(7)
    ]
    command: Any = columns_of([HostReport(host=host, at=NOW) for host in known])
    return with_hosts(), p.ReportHosts(each=command.each, same=command.same, claim_timeout=60.0)


def _volume_group() -> Made:
    return storage_machine(), s.PlaceVolumeGroup(volumes=tuple(volume(size_gb=1) for _ in range(4)), project_id="")


def _backends() -> Made:
    return storage_machine(), reports_of(*(of_backend(f"node-{n}@lvm", ("a", n), at=NOW) for n in range(5)))


BACKEND = "cloud"


def _with_backend() -> ServiceMachine:
    made = storage_machine()
    do(
        made,
        l.ReportBackend(name=BACKEND, at=NOW, nodes=tuple(l.NodeReport(f"n{each}", 8, 8_192, 90) for each in range(7))),
        l.ReportPools(
            name=BACKEND, kind="lvm", at=NOW, pools=tuple(l.PoolReport(f"p{each}", 90, 80, 10) for each in range(7))
        ),
    )
    return made


def _nodes_of_a_backend() -> Made:
    nodes = tuple(l.NodeReport(f"n{each}", 16, 4_096, 80, used_vcpus=2) for each in range(3, 9))
    return _with_backend(), l.ReportBackend(name=BACKEND, at=NOW + 1, nodes=nodes)


def _pools_of_a_backend() -> Made:
    pools = tuple(l.PoolReport(f"p{each}", 70, 60, 10) for each in range(3, 9))
    return _with_backend(), l.ReportPools(name=BACKEND, kind="lvm", at=NOW + 1, pools=pools)


def _disabled_backend() -> Made:
    return _with_backend(), l.SetBackend(name=BACKEND, enabled=False, reason="repair")


def _disabled_volume_backend() -> Made:
    return _with_backend(), s.SetVolumeBackend(host=f"{BACKEND}@lvm", disabled=True)


def _hosts() -> Made:
    return with_hosts(), p.AddHosts(hosts=tuple(host(f"new-{number}", number) for number in range(12)))


def _hosts_with_guests() -> Made:
    """They are counted in the last steps."""
    guest = RunningInstance(resources={"VCPU": 1}, project_id="p")
    coming = (host(f"new-{at}", at, instances={uuid_of(900 + at): guest}) for at in range(9))
    return with_hosts(), p.AddHosts(hosts=tuple(coming))


KINDS: dict[str, Callable[[], Made]] = {
    "instances": lambda: _several(None),
    "instances of a group": lambda: _several(GROUPS["soft-anti-affinity"]),
    "candidates": _candidates,
    "reports of hosts": _reports,
    "hosts that are added": _hosts,
    "hosts with guests": _hosts_with_guests,
    "volume group": _volume_group,
    "reports of volume backends": _backends,
    "nodes of a back end": _nodes_of_a_backend,
    "pools of a back end": _pools_of_a_backend,
    "back end that is disabled": _disabled_backend,
    "volume backend that is disabled": _disabled_volume_backend,
}


def _look(made: ServiceMachine, chance: random.Random) -> Any:
    """Use a version of one's own, at which the state is left."""
    look(made, chance)
    storage = made.state.storage.what_if()
    storage.place(VolumeRequest(spec=VolumeSpec(size_gb=1), now=NOW))
    if not made.state.fleet.rows:
        return storage
    fork = made.state.engine.what_if()
    fork.fleet.set_service(fork.fleet.name(0), disabled=True)
    return chance.choice([fork, storage, None])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_are_given_up_leave_the_state_as_it_was(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, given_up = random.Random(4), 0
    monkeypatch.setattr(groups, "STEP", 1)
    monkeypatch.setattr(storage_backends, "POOLS", 0)
    monkeypatch.setattr(pools_of_backends, "POOLS", 2)
    monkeypatch.setattr(adding_in_steps, "FEW", 2)
    monkeypatch.setattr(arrivals, "COUNTED", 1)
    for name in ("LOOKED_AT", "READ", "FEW_POOLS", "SERVICES"):
        monkeypatch.setattr(backend_changes, name, 2)
    for end in (1, 2, 3, 4, 5, 8, 13):
        made, command = KINDS[kind]()
        before, pools = state_digest(made.state), made.state.storage.pools.columns["free"].tolist()
        with steps_of(3), reports_a_step(2):
            steps = made.carry_out([order(command)])
            if any(next(steps, steps) is steps for _ in range(end)):
                break
            kept = [_look(made, chance) for _ in range(chance.randint(0, 2))]
            if end % 2:
                with pytest.raises(MemoryError):
                    steps.throw(MemoryError())
            else:
                steps.close()
        del kept
        given_up += 1
        assert state_digest(made.state) == before, end
        assert made.state.storage.pools.columns["free"].tolist() == pools
        made.state.fleet.check()
    assert given_up > 2


@pytest.mark.parametrize("refused", [False, True])
def test_versions_of_others_outlive_hosts_that_are_given_up(refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding_in_steps, "FEW", 2)
    made = with_hosts()
    coming = [host(f"new-{number}", number, aggregates=(aggregate(number),)) for number in range(6)]
    before = state_digest(made.state)
    steps = made.carry_out([order(p.AddHosts(hosts=(*coming, coming[0]) if refused else tuple(coming)))])
    while made.state.fleet._names.find("new-1") < 0:
        next(steps)
    half, fork = made.state.engine.what_if(), made.state.engine.what_if()
    add_hosts(fork.fleet, [host("forked", 9, aggregates=(aggregate(9),))])
    if refused:
        finished(steps)
    else:
        steps.close()
    assert state_digest(made.state) == before
    add_hosts(made.state.fleet, [host("other", 8, aggregates=(aggregate(8),))])
    for engine, name, number in ((half, "new-1", 1), (fork, "forked", 9), (made.state.engine, "other", 8)):
        engine.fleet.check()
        fleet = engine.fleet
        shown = [fleet.aggregates[index] for index in fleet._host_class(fleet.row(name)).aggregates]
        assert shown == [aggregate(number)]
