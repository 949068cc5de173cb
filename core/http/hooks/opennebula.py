"""The hook of OpenNebula 7 for scheduler drivers: a snapshot of the whole cloud in, a plan out. Nothing of the
service's own state is read or changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final
from xml.etree import ElementTree

from ....placement.decide.engine import Engine
from ....placement.fleet.fleet import Fleet
from ....placement.load.bulk import add_hosts
from ....placement.plan.goals import Balance, Consolidate
from ....placement.policy.policy import Policy
from ....placement.types.host import Host, RunningInstance
from ....placement.types.request import Flavor, Request, RequestSpec
from .calling import Answer, Call
from .opennebula_snapshot import ACTIVE, PENDING, RUNNING, Machine, Needs, Role, Snapshot, read

PLACEMENT: Final = -1
"""Id of a plan that is no cluster's."""
THRESHOLD: Final = 0.05
"""How much fuller than the mean a host is, as a share of it, before machines leave it."""
_NAMESPACE: Final = uuid.UUID("5d1f7c1e-3c5a-4d0b-9c0e-6f2f0a1c7a11")


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a plan; ``nics``: (id of the NIC, id of the network)."""

    machine: int
    operation: str
    host: int
    datastore: int | None = None
    nics: tuple[tuple[int, int], ...] = ()


async def place(call: Call) -> Answer:
    """A plan for the pending machines of a snapshot, and for those to be scheduled again; an empty answer where none
    can be placed. HttpError 400."""
    return Answer(await call.asking.aside(partial(_placement, call.body)), media_type="application/xml")


async def optimize(call: Call) -> Answer:
    """A plan of migrations within the cluster of a snapshot; an empty answer where none helps. HttpError 400."""
    return Answer(await call.asking.aside(partial(_optimization, call.body)), media_type="application/xml")


def _placement(body: bytes) -> bytes:
    return plan_xml(PLACEMENT, Placing(read(body)).plan())


def _optimization(body: bytes) -> bytes:
    snapshot = read(body)
    return plan_xml(snapshot.cluster, optimized(snapshot))


def plan_xml(plan_id: int, actions: Iterable[Action]) -> bytes:
    """A plan as OpenNebula's plan.xsd has it; nothing for a plan without actions, which the schema does not have."""
    plan = ElementTree.Element("PLAN")
    _add(plan, "ID", plan_id)
    for each in actions:
        action = ElementTree.SubElement(plan, "ACTION")
        _add(action, "VM_ID", each.machine)
        _add(action, "OPERATION", each.operation)
        _add(action, "HOST_ID", each.host)
        if each.datastore is not None:
            _add(action, "DS_ID", each.datastore)
        for nic, network in each.nics:
            element = ElementTree.SubElement(action, "NIC")
            _add(element, "NIC_ID", nic)
            _add(element, "NETWORK_ID", network)
    return ElementTree.tostring(plan) if len(plan) > 1 else b""


def _add(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = str(value)


def engine_of(snapshot: Snapshot) -> Engine:
    """An engine on the hosts of a snapshot that take machines, each named by its id. O(hosts + machines)."""
    there: dict[int, dict[str, RunningInstance]] = {}
    for machine in snapshot.machines.values():
        if machine.host is not None:
            there.setdefault(machine.host, {})[uuid_of(machine.id)] = RunningInstance(flavor=flavor_of((machine,)))
    fleet = Fleet()
    add_hosts(
        fleet,
        [
            Host(
                host=str(host.id),
                vcpus_total=host.cpu,
                vcpus_used=host.cpu_used,
                cpu_allocation_ratio=1.0,
                total_usable_ram_mb=host.memory_mb,
                free_ram_mb=host.memory_mb - host.memory_used_mb,
                instances=there.get(host.id, {}),
            )
            for host in snapshot.hosts.values()
            if host.usable and host.cpu and host.memory_mb
        ],
    )
    return Engine(fleet, Policy.nova_default())


def uuid_of(machine: int) -> str:
    """The uuid that a machine has in the engine."""
    return str(uuid.uuid5(_NAMESPACE, str(machine)))


def flavor_of(machines: Iterable[Machine]) -> Flavor:
    """What machines take together: a vCPU is a percent of a core."""
    several = tuple(machines)
    cpu, memory = sum(each.cpu for each in several), sum(each.memory_mb for each in several)
    extra = {} if cpu else {"resources:VCPU": "0"}
    return Flavor(name=f"{cpu}x{memory}", vcpus=max(cpu, 1), memory_mb=max(memory, 1), extra_specs=extra)


class Placing:
    """Machines placed one after the other; those that must share a host together. What was placed counts for those
    that come after."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._engine = snapshot, engine_of(snapshot)
        self._known = frozenset(int(self._engine.fleet.name(row)) for row in range(self._engine.fleet.rows))
        self._shared = dict(snapshot.datastores)
        self._local = {host.id: dict(host.datastores) for host in snapshot.hosts.values()}
        self._networks = dict(snapshot.networks)
        self._at: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for machine in snapshot.machines.values():
            if machine.host is not None and machine.role is not None:
                self._at.setdefault(machine.role, []).append((machine.id, machine.host))

    def plan(self) -> list[Action]:
        """The actions, in the order of the requirements. O(machines * hosts)."""
        machines = self._snapshot.machines
        waiting = {
            each.machine: each
            for each in self._snapshot.needs
            if (found := machines.get(each.machine)) is not None and (found.state == PENDING or found.resched)
        }
        actions: list[Action] = []
        done = set[int]()
        for number in waiting:
            if number not in done:
                unit = self._unit(number, waiting)
                done.update(unit)
                actions += self._place([waiting[each] for each in unit])
        return actions

    def _unit(self, number: int, waiting: dict[int, Needs]) -> list[int]:
        """The machine, and all that wait and must be on one host with it."""
        unit, left = [number], [number]
        while left:
            roles = self._affined(self._snapshot.machines[left.pop()])
            for other in waiting:
                if other not in unit and self._snapshot.machines[other].role in roles:
                    unit.append(other)
                    left.append(other)
        return unit

    def _affined(self, machine: Machine) -> frozenset[tuple[int, str]]:
        """Roles whose machines share a host with this one."""
        role = machine.role
        if role is None:
            return frozenset()
        own = {role} if self._role(machine).policy == "AFFINED" else set()
        return frozenset(own).union(*(each for each in self._snapshot.affined if role in each))

    def _role(self, machine: Machine) -> Role:
        found = None if machine.role is None else self._snapshot.roles.get(machine.role)
        return found if found is not None else Role("", (), ())

    def _allowed(self, needs: Needs) -> frozenset[int]:
        """Hosts that a machine may go to by what is said of hosts, groups and disks."""
        machine = self._snapshot.machines[needs.machine]
        allowed = self._known.intersection(needs.hosts)
        if machine.host is not None:
            allowed -= {machine.host}
        role = self._role(machine)
        if role.affined_hosts:
            allowed = allowed.intersection(role.affined_hosts)
        allowed = allowed.difference(role.anti_affined_hosts)
        for kind in self._affined(machine):
            mates = {host for number, host in self._at.get(kind, ()) if number != machine.id}
            allowed = allowed & mates if mates else allowed
        apart = [{machine.role}] if role.policy == "ANTI_AFFINED" and machine.role is not None else []
        others = [each - {machine.role} for each in self._snapshot.anti_affined if machine.role in each]
        for kind in frozenset[tuple[int, str]]().union(*apart, *others):
            allowed -= {host for number, host in self._at.get(kind, ()) if number != machine.id}
        return frozenset(host for host in allowed if self._datastore(needs, host) is not None)

    def _datastore(self, needs: Needs, host: int) -> int | None:
        """The datastore with most room for a machine on a host; -1 where it needs none, None where none has room."""
        if needs.datastores is None:
            return -1
        wanted = self._snapshot.machines[needs.machine].disk_mb
        local = self._local[host]
        room = [(self._shared.get(each, local.get(each, -1)), -each) for each in needs.datastores]
        free, least = max(room, default=(-1, 0))
        return -least if free >= wanted else None

    def _nics(self, needs: Needs) -> tuple[tuple[int, int], ...] | None:
        """A network with a free address for each NIC, another one for each where that can be; None where there is
        none."""
        free, chosen = dict(self._networks), list[tuple[int, int]]()
        for nic, networks in needs.nics.items():
            used = {network for _, network in chosen}
            fit = [(each not in used, free.get(each, 0), -each) for each in networks if free.get(each, 0) > 0]
            if not fit:
                return None
            network = -max(fit)[2]
            free[network] -= 1
            chosen.append((nic, network))
        return tuple(chosen)

    def _place(self, unit: list[Needs]) -> list[Action]:
        """The actions for machines that share a host; none where they do not fit together."""
        machines = [self._snapshot.machines[each.machine] for each in unit]
        allowed = self._known.intersection(*(self._allowed(each) for each in unit))
        together = self._request(machines, allowed)
        ranked = self._engine.rank(together)
        for row in ranked.rows.tolist():
            host = int(self._engine.fleet.name(row))
            actions = self._actions(unit, host)
            if actions is not None:
                for machine in machines:
                    if machine.host is not None:
                        self._engine.release(uuid_of(machine.id))
                    self._engine.place(self._request([machine], frozenset({host}), uuid_of(machine.id)))
                return actions
        return []

    def _request(self, machines: list[Machine], allowed: frozenset[int], uuid: str | None = None) -> Request:
        ignored = tuple(str(host) for host in sorted(self._known - allowed))
        spec = RequestSpec(flavor=flavor_of(machines), ignore_hosts=ignored, prepare=False)
        return Request(spec=spec, instance_uuids=() if uuid is None else (uuid,))

    def _actions(self, unit: list[Needs], host: int) -> list[Action] | None:
        """Actions that bring machines to a host, whose disks and addresses are taken; None, and nothing taken, where
        one has none."""
        before = dict(self._shared), dict(self._local[host]), dict(self._networks)
        actions = []
        for needs in unit:
            machine, store, nics = (
                self._snapshot.machines[needs.machine],
                self._datastore(needs, host),
                self._nics(needs),
            )
            if store is None or nics is None:
                self._shared, self._local[host], self._networks = before
                return None
            for free in (self._shared, self._local[host]):
                if store in free:
                    free[store] -= machine.disk_mb
                    break
            for _, network in nics:
                self._networks[network] -= 1
            operation = "deploy" if machine.host is None else "migrate"
            actions.append(Action(machine.id, operation, host, None if store < 0 else store, nics))
        for needs in unit:
            machine = self._snapshot.machines[needs.machine]
            if machine.role is not None:
                others = [each for each in self._at.get(machine.role, ()) if each[0] != machine.id]
                self._at[machine.role] = [*others, (machine.id, host)]
        return actions


def optimized(snapshot: Snapshot) -> list[Action]:
    """Migrations that even out the CPU of the hosts (policy BALANCE), or empty hosts (PACK), in the order in which they
    can be made. Machines of groups stay where they are. O(machines * hosts) at worst."""
    engine = engine_of(snapshot)
    known = frozenset(int(engine.fleet.name(row)) for row in range(engine.fleet.rows))
    asked, numbers = dict[str, RequestSpec](), dict[str, int]()
    for needs in snapshot.needs:
        machine = snapshot.machines.get(needs.machine)
        if machine is None or machine.role is not None or machine.state != ACTIVE or machine.lcm_state != RUNNING:
            continue
        ignored = tuple(str(host) for host in sorted(known.difference(needs.hosts)))
        name = uuid_of(machine.id)
        asked[name] = RequestSpec(flavor=flavor_of((machine,)), ignore_hosts=ignored, prepare=False)
        numbers[name] = machine.id
    pinned = frozenset(uuid_of(number) for number in snapshot.machines) - asked.keys()
    goal = (
        Consolidate() if snapshot.cluster_policy == "PACK" else Balance(resource="VCPU", threshold=THRESHOLD, most=1.0)
    )
    plan = engine.plan(goal, asked=asked, pinned=pinned, kind="live_migrate", most_moves=snapshot.most_moves)
    return [Action(numbers[move.instance], "migrate", int(move.target)) for wave in plan.waves for move in wave.moves]
