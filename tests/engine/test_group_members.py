"""Server groups while members move or are reported by two hosts: the hosts chosen against Nova's rules on sets of
uuids, for groups that the fleet keeps and those that the caller does."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from hostler import (
    Destination,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostReport,
    Policy,
    Request,
    RequestSpec,
    RunningInstance,
    ServerGroup,
    add_hosts,
    report_hosts,
)
from tests.seeds import seeds

GROUP = "00000000-0000-4000-8000-000000000500"
POLICY = Policy.from_mapping(
    {
        "filter_scheduler": {
            "enabled_filters": ["ComputeFilter", "ServerGroupAntiAffinityFilter", "ServerGroupAffinityFilter"],
            "weight_classes": ["ServerGroupSoftAffinityWeigher", "ServerGroupSoftAntiAffinityWeigher"],
        }
    }
)
FLAVOR = Flavor(name="m", vcpus=1, memory_mb=1_024, root_gb=1)


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


@dataclass
class Cloud:
    """An engine on a few nodes, some of which may share a service host, and where its guests stand."""

    draw: random.Random
    policy: str
    nodes: dict[str, str] = field(default_factory=dict)
    """Service host of each node."""
    stands: dict[str, set[str]] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    moving: set[str] = field(default_factory=set)
    most: int = 1

    def __post_init__(self) -> None:
        shared = self.draw.random() < 0.3
        for number, node in enumerate("abcdef"[: self.draw.randint(3, 6)]):
            self.nodes[node] = f"s{number // 2}" if shared else node
        self.most = self.draw.randint(1, 3) if self.policy == "anti-affinity" else 1
        fleet = Fleet()
        add_hosts(fleet, [self.host(node) for node in self.nodes])
        fleet.add_server_group(GROUP, self.policy, max_server_per_host=self.most)
        self.engine = Engine(fleet, POLICY)

    def host(self, node: str, **fields: object) -> Host:
        sizes = {"vcpus_total": 64, "total_usable_ram_mb": 65_536, "total_usable_disk_gb": 500}
        return Host(host=self.nodes[node], nodename=node, **sizes, **fields)  # type: ignore[arg-type]  # one dict

    def to(self, node: str | None) -> Destination | None:
        return None if node is None else Destination(host=self.nodes[node], node=node)

    def request(self, *uuids: str, node: str | None = None, group: ServerGroup | str | None = None) -> Request:
        spec = RequestSpec(flavor=FLAVOR, requested_destination=self.to(node), prepare=False)
        return Request(spec=spec, instance_uuids=uuids, server_group=group)

    def fill(self) -> None:
        for number in range(1, self.draw.randint(3, 12)):
            uuid, node = uuid_of(number), self.draw.choice(list(self.nodes))
            group = GROUP if self.draw.random() < 0.7 else None
            if self.engine.place(self.request(uuid, node=node, group=group)).placed:
                self.stands[uuid] = {node}
                self.members |= {uuid} if group else set()

    def begin_moves(self) -> None:
        for uuid, (source,) in list(self.stands.items()):
            node = self.draw.choice(list(self.nodes))
            if self.draw.random() < 0.3 and self.engine.begin_resize(uuid, self.request(node=node)).placed:
                self.stands[uuid] = {source, node}
                self.moving.add(uuid)

    def report_twice(self) -> None:
        """A host reports, beside its own guests, one that stands on another."""
        apart = [uuid for uuid in self.stands if uuid not in self.moving]
        node = self.draw.choice(list(self.nodes))
        if not apart or self.draw.random() < 0.5 or any(node in self.stands[uuid] for uuid in self.moving):
            return
        self.stands[self.draw.choice(apart)].add(node)
        held = {
            uuid: RunningInstance(flavor=FLAVOR, server_group=GROUP if uuid in self.members else None)
            for uuid, nodes in self.stands.items()
            if node in nodes
        }
        report_hosts(self.engine.fleet, [HostReport(host=self.host(node, instances=held), at=10.0)])

    def on(self, node: str) -> set[str]:
        """Guests on a node's service host."""
        host = self.nodes[node]
        return {uuid for uuid, nodes in self.stands.items() if host in {self.nodes[each] for each in nodes}}

    def best(self, uuid: str | None, left_out: set[str]) -> str | None:
        """The node that Nova's rules choose, the first of equals."""
        hosts = {self.nodes[node] for member in self.members for node in self.stands[member]}
        values: dict[str, int] = {}
        for node, host in self.nodes.items():
            here = self.on(node)
            count = len(here & self.members)
            full = self.policy == "anti-affinity" and uuid not in here and count >= self.most
            apart = self.policy == "affinity" and hosts and host not in hosts
            if host not in left_out and not full and not apart:
                values[node] = {"soft-affinity": count, "soft-anti-affinity": -count}.get(self.policy, 0)
        return max(values, key=values.__getitem__, default=None)

    def as_value(self) -> ServerGroup:
        return ServerGroup(
            uuid=GROUP,
            policy=self.policy,
            max_server_per_host=self.most,
            members=frozenset(self.members),
            hosts=frozenset(self.nodes[node] for member in self.members for node in self.stands[member]),
        )


@pytest.mark.parametrize("policy", ["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"])
@pytest.mark.parametrize("seed", seeds(6))
def test_members_count_once_on_every_service_host_that_they_stand_on(policy: str, seed: int) -> None:
    cloud = Cloud(random.Random(seed), policy)
    cloud.fill()
    cloud.begin_moves()
    cloud.report_twice()
    engine = cloud.engine
    groups: tuple[ServerGroup | str, ...] = (GROUP, cloud.as_value())
    for group in groups:
        new = cloud.request(uuid_of(99), group=group)
        want = cloud.best(None, set())
        placed = [engine.what_if().place(new), engine.what_if().place_many([new])[0]]
        assert [each.selected.node if each.placed else None for each in placed] == [want, want]
        ranked = engine.rank(new).rows
        assert (engine.fleet.name(ranked[0]) if len(ranked) else None) == want
    for uuid in sorted(cloud.members - cloud.moving)[:2]:
        (source, *others) = cloud.stands[uuid]
        if others:
            continue
        host = cloud.nodes[source]
        down = engine.what_if()
        down.fleet.set_service([node for node, each in cloud.nodes.items() if each == host], forced_down=True)
        for of_kind, kind, left_out in (
            (engine, "cold_migrate", {host}),
            (engine, "resize", set()),
            (down, "evacuate", {host}),
        ):
            want = cloud.best(uuid, left_out)
            for given in (None, cloud.as_value()):
                decision = of_kind.what_if().begin_move(uuid, cloud.request(group=given), kind=kind)  # type: ignore[arg-type]  # one of them
                assert (decision.selected.node if decision.placed else None) == want, kind
