"""Every change that can be made to a fleet, each from three numbers, so that random numbers make random histories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from hostler.ext.tables import format_uuid
from hostler.placement.devices.pci import supports, taken
from hostler.placement.fleet.fleet import Extras, Fleet, Inventory
from hostler.placement.load.bulk import add_hosts, load_hosts
from hostler.placement.load.reports import report_hosts
from hostler.placement.numa.fit import FittedNuma, fit
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Aggregate, PciPool, RunningInstance, Service
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.request import Flavor, InstanceNumaCell, InstanceNumaTopology, PciRequest

from .dump import dump, live_rows
from .values import NOW, POOLS, aggregate, host, uuid_of

FIGURES = ("free_ram_mb", "free_disk_mb", "vcpus_used", "num_io_ops", "num_instances", "failed_builds")
WANTED = InstanceNumaTopology(
    cells=tuple(
        InstanceNumaCell(
            id=cell,
            cpuset=frozenset({2 * cell}),
            pcpuset=frozenset({2 * cell + 1}),
            memory=512,
            pagesize=2048,
            cpu_policy="mixed",
        )
        for cell in range(2)
    )
)
DEVICES = (PciRequest(count=1, spec=({"vendor_id": "8086"},)),)
ADD_HOSTS, LOAD_HOSTS = add_hosts, load_hosts


class Commands:
    """What three numbers make of a fleet. Numbers that mean nothing are no command."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def do(self, command: tuple[str, int, int, int]) -> bool:
        """Carry out a command; False if it failed, and then nothing has changed."""
        name, *numbers = command
        act: Callable[[int, int, int], None] = getattr(self, name)
        before = dump(self.fleet)
        try:
            act(*numbers)
        except HostlerError:
            after = dump(self.fleet)
            assert [key for key in before if after[key] != before[key]] == [], command
            return False
        return True

    # who is meant

    def name(self, number: int) -> str:
        names = [self.fleet.name(row) for row in live_rows(self.fleet)]
        return names[number % len(names)] if names else "nobody"

    def guest(self, number: int) -> int | None:
        consumers = [c for row in live_rows(self.fleet) for c in self.fleet._kernel.consumers_on(row)]
        return consumers[number % len(consumers)] if consumers else None

    def known(self, a: int, b: int) -> tuple[Aggregate, ...]:
        """Some aggregates; new ones, and ones that are known otherwise, among them."""
        aggregates = [aggregate(a % 4, b % 3 if b % 5 == 4 else 0)] if a % 3 else []
        return (*aggregates, aggregate(4 + b % 2)) if b % 2 else tuple(aggregates)

    # coming and going

    def add_host(self, a: int, b: int, c: int) -> None:
        shared = {"nodename": f"n{a % 16}"} if b % 3 == 0 else {}
        uuids = {"uuid": uuid_of(c % 8)} if c % 4 == 3 else {}
        name = f"s{c % 3}" if shared else f"n{a % 16}"
        aggregates = {"aggregates": self.known(a, b)} if b % 4 else {}
        add_hosts(self.fleet, [host(name, c, **shared, **uuids, **aggregates)])

    def add_hosts(self, a: int, b: int, c: int) -> None:
        first = 16 + a % 8
        hosts = [host(f"n{first + i}", b + c * i, aggregates=self.known(b, c)) for i in range(c % 4)]
        add_hosts(self.fleet, [*hosts, host("", 0)] if b % 9 == 8 else hosts)

    def load_hosts(self, a: int, b: int, c: int) -> None:
        templates = [host("t", 6 * number, aggregates=self.known(a, b)) for number in (b, c)]
        templates = [template for template in templates if not (template.numa_topology or template.pci_pools)]
        names = [f"n{24 + (a + i) % 12}" for i in range(c % 5)]
        seen = NOW - np.arange(len(names), dtype=np.float64) * (b % 40) if a % 2 else None
        if templates:
            which = np.arange(len(names)) % len(templates)
            load_hosts(self.fleet, names, templates, which, last_seen_up=seen, num_io_ops=which)

    def add_provider(self, a: int, b: int, c: int) -> None:
        self.fleet.add_provider(
            f"p{a % 6}",
            uuid=uuid_of(100 + a % 6) if b % 3 == 0 else None,
            parent=self.name(b) if b % 2 else None,
            traits=("MISC_SHARES_VIA_AGGREGATE",) if c % 3 == 0 else ("CUSTOM_B",) if c % 3 == 1 else ("NO_TRAIT",),
            aggregates=self.known(b, c),
        )

    def remove_provider(self, a: int, b: int, c: int) -> None:
        self.fleet.remove_provider(self.name(a))

    def set_parent(self, a: int, b: int, c: int) -> None:
        self.fleet.set_parent(self.name(a), self.name(b) if c % 4 else None)

    # providers

    def set_traits(self, a: int, b: int, c: int) -> None:
        traits = [("CUSTOM_A",), (), ("MISC_SHARES_VIA_AGGREGATE",), ("CUSTOM_A", "custom")][b % 4]
        self.fleet.set_traits(self.name(a), traits)

    def set_aggregates(self, a: int, b: int, c: int) -> None:
        self.fleet.set_aggregates(self.name(a), self.known(b, c))

    def update_aggregate(self, a: int, b: int, c: int) -> None:
        self.fleet.update_aggregate(aggregate(a % 6, b % 3))

    def remove_aggregate(self, a: int, b: int, c: int) -> None:
        self.fleet.remove_aggregate(aggregate(a % 6).uuid)

    def set_inventory(self, a: int, b: int, c: int) -> None:
        inventories = {
            "VCPU": Inventory(total=1 + b % 8, reserved=c % 3, min_unit=1 + c % 2, step_size=1 + c % 2),
            "MEMORY_MB": Inventory(total=1024 * (1 + c % 8), allocation_ratio=1.5),
            f"CUSTOM_{c % 3}": Inventory(total=10),
            "VGPU": Inventory(total=c % 2, max_unit=1),
        }
        chosen = {name: value for i, (name, value) in enumerate(inventories.items()) if b >> i & 1}
        self.fleet.set_inventory(self.name(a), chosen)

    # hosts

    def set_service(self, a: int, b: int, c: int) -> None:
        flags = (None, False, True)
        reason = "why" if b % 2 else None
        self.fleet.set_service(self.name(a), disabled=flags[b % 3], disabled_reason=reason, forced_down=flags[c % 3])

    def heartbeat(self, a: int, b: int, c: int) -> None:
        self.fleet.heartbeat(self.name(a), NOW + b % 200 - 100)

    def heartbeats(self, a: int, b: int, c: int) -> None:
        rows = np.flatnonzero(self.fleet.is_host)[a % 3 :: 1 + b % 3]
        self.fleet.heartbeats(rows, NOW + c % 50 if b % 2 else NOW + np.arange(len(rows), dtype=np.float64) * (c % 40))

    def report(self, a: int, b: int, c: int) -> None:
        self.fleet.report(self.name(a), **{FIGURES[b % 6]: c % 50, FIGURES[c % 6]: b % 3})

    def report_hosts(self, a: int, b: int, c: int) -> None:
        """Complete reports: of known hosts, of providers that become hosts, of new ones; with guests and without."""
        reports = []
        for number in range(1 + c % 3):
            name = self.name(a + number) if b % 4 else f"n{(a + number) % 16}"
            row = self.fleet._names.find(name)
            guests = (
                [format_uuid(*self.fleet._kernel.consumer(i)[:2]) for i in self.fleet._kernel.consumers_on(row)]
                if row >= 0
                else []
            )
            instances: dict[str, Any] = {uuid: {"os_distro": "ubuntu"} for uuid in guests[: b % 4]}
            if c % 5 == 1:
                instances[uuid_of(300 + b % 12)] = {}
            if c % 5 == 2:
                flavor = Flavor(name="f", vcpus=1, memory_mb=512, root_gb=1)
                instances[uuid_of(500 + b % 3)] = RunningInstance(
                    flavor=flavor, pci_devices=POOLS[:1] if b % 3 == 0 else ()
                )
            uuids = (
                {"uuid": uuid_of(c % 8)} if c % 6 == 5 else {"uuid": self.fleet.uuid(row)} if row >= 0 and c % 2 else {}
            )
            service_host = {"nodename": name, "host": f"s{b % 3}"} if a % 5 == 4 else {}
            made = host(
                name, b + c, **{"instances": instances, "aggregates": self.known(b, c), **uuids, **service_host}
            )
            service = Service(disabled=True, last_seen_up=NOW) if a % 7 == 3 else None
            inventories = {"CUSTOM_0": {"total": 1 + b % 2}} if a % 7 == 4 else None
            reports.append(HostReport(host=made, at=NOW + 400 * (a % 4), service=service, inventories=inventories))
        report_hosts(self.fleet, reports)

    def advance(self, a: int, b: int, c: int) -> None:
        self.fleet.advance(NOW + a % 300 - 100)

    # consumers

    def add_server_group(self, a: int, b: int, c: int) -> None:
        policies = ("affinity", "anti-affinity", "soft-affinity", "no-policy")
        self.fleet.add_server_group(uuid_of(200 + a % 5), policies[b % 4], max_server_per_host=1 + c % 2)

    def remove_server_group(self, a: int, b: int, c: int) -> None:
        self.fleet.remove_server_group(uuid_of(200 + a % 5))

    def claim(self, a: int, b: int, c: int) -> None:
        hosts = np.flatnonzero(self.fleet.is_host)
        if not len(hosts):
            return
        row, memory = int(hosts[a % len(hosts)]), 512 * (1 + b % 3)
        groups = list(self.fleet._groups.values())
        self.fleet.claim(
            uuid_of(300 + c % 12),
            row,
            self.fleet._shape({0: 1, 1: memory}, 1, memory, 0),
            project_id=f"p{b % 3}",
            user_id=f"u{c % 2}",
            group=groups[b % len(groups)] if groups and c % 2 else -1,
            building=b % 2 == 1,
            extras=self.extras(row, a, b, c) if c % 3 else None,
            image_properties={"os_distro": "ubuntu"} if a % 3 == 0 else None,
        )

    def extras(self, row: int, a: int, b: int, c: int) -> Extras | None:
        """Something of other providers, NUMA cells and devices, as far as there are any; at times more than there
        are."""
        others = [other for other in live_rows(self.fleet) if not self.fleet.is_host[other]]
        elsewhere = tuple((other, 1, 1 + a % 5) for other in others[: b % 3]) if b % 2 else ()
        fitted: FittedNuma | None = None
        here = self.fleet._numa.get_row(row)
        if here is not None:
            fitted = fit(here, WANTED)
        pools, devices = self.fleet.pci_pools(row), tuple[PciPool, ...]()
        if pools:
            devices = taken(pools, DEVICES) if c % 5 and supports(pools, DEVICES) else pools * (1 + c % 2)
        return Extras(elsewhere, fitted, devices) if elsewhere or fitted or devices else None

    def place_many(self, a: int, b: int, c: int) -> None:
        """What a batch kernel does: consumers without extras, noted all at once."""
        hosts = np.flatnonzero(self.fleet.is_host)
        free = [uuid_of(400 + i) for i in range(8) if self.fleet._kernel.consumers.get(uuid_of(400 + i)) < 0]
        if not len(hosts):
            return
        ids, shape = [], self.fleet._shape({0: 1}, 1, 0, 0)
        for i, uuid in enumerate(free[: a % 4]):
            words = int(uuid.replace("-", ""), 16)
            row, project = int(hosts[(b + i * c) % len(hosts)]), self.fleet._projects.id("p")
            user = self.fleet._users.id("u")
            high, low = words >> 64, words & (2**64 - 1)
            ids.append(self.fleet._kernel.add_consumer(high, low, row, shape, project, user, -1, 1))
        self.fleet._placed(np.array(ids, np.int32))
        for consumer in ids[:1]:
            self.fleet._image_properties[consumer] = {"os_distro": "debian"}

    def release(self, a: int, b: int, c: int) -> None:
        guests = [guest for number in (a, b, c)[: 1 + c % 3] if (guest := self.guest(number)) is not None]
        self.fleet.release(guests if c % 7 == 0 else dict.fromkeys(guests))

    def release_uuids(self, a: int, b: int, c: int) -> None:
        self.fleet._release_uuids([uuid_of(300 + number % 12) for number in (a, b)[: 1 + c % 2]])

    def set_building(self, a: int, b: int, c: int) -> None:
        guest = self.guest(a)
        if guest is not None:
            self.fleet._set_building(guest, b % 2 == 1)


NAMES = [name for name in vars(Commands) if name not in ("do", "name", "guest", "known", "extras") and name[0] != "_"]
numbers = st.integers(0, 10_000)
commands = st.tuples(st.sampled_from(NAMES), numbers, numbers, numbers)
