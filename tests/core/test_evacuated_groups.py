"""Members of a server group that Nova evacuates one after the other: what an evacuation gave counts at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hostler.core import engine_commands as p
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import SelectDestinations
from hostler.core.machine.report_columns import columns_of
from hostler.placement.policy.policy import Policy
from hostler.placement.types.host import Host
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.request import Destination, Flavor, Request, RequestSpec, ServerGroup
from tests.core.orders import NOW, order, uuid_of

FLAVOR = Flavor(name="m", vcpus=1, memory_mb=1_024)
MEMBERS = (uuid_of(1), uuid_of(2))


def host(name: str, memory_mb: int = 65_536) -> Host:
    return Host(host=name, vcpus_total=32, total_usable_ram_mb=memory_mb)


def asks(policy: str, uuid: str, hosts: frozenset[str], **spec: Any) -> SelectDestinations:
    group = ServerGroup(uuid=uuid_of(500), policy=policy, members=frozenset(MEMBERS), hosts=hosts)
    asked = RequestSpec(flavor=FLAVOR, prepare=False, **spec)
    request = Request(spec=asked, instance_uuids=(uuid,), project_id="p", server_group=group)
    return SelectDestinations(request=p.asked(request), replaces=True)


@pytest.mark.parametrize(
    ("policy", "targets"),
    [("anti-affinity", ["c", "d"]), ("soft-anti-affinity", ["c", "d"]), ("soft-affinity", ["c", "c"])],
)
def test_an_evacuated_member_counts_on_its_new_host_before_that_reports_it(policy: str, targets: list[str]) -> None:
    """Host c has more memory than d after an evacuation too, so only the group keeps the second member off it."""
    made = ServiceMachine()

    def do(command: Any) -> Any:
        (answer,) = made.apply_batch([made.decode(made.encode(order(command, now=NOW)))])
        return answer

    do(p.AddHosts(hosts=(host("a"), host("b"), host("c"), host("d", 16_384))))
    for uuid, at in zip(MEMBERS, "ab", strict=True):
        do(asks(policy, uuid, frozenset(), requested_destination=Destination(host=at)))
        known = replace(host(at), instances={uuid: {}})
        do(columns_of([HostReport(host=known, at=NOW + 1, includes=frozenset({uuid}))]))
        do(p.SetService(name=at, forced_down=True))
    found = [
        do(asks(policy, uuid, frozenset("ab"), ignore_hosts=(at,))).host for uuid, at in zip(MEMBERS, "ab", strict=True)
    ]
    assert found == targets
    fleet = made.state.fleet
    on_c = {uuid for uuid, target in zip(MEMBERS, targets, strict=True) if target == "c"}
    assert fleet.instances(fleet.row("c")).keys() == on_c
    hints = Policy.from_mapping({"filter_scheduler": {"enabled_filters": ["ComputeFilter", "SameHostFilter"]}})
    near = RequestSpec(flavor=FLAVOR, scheduler_hints={"same_host": (MEMBERS[0],)})
    assert made.state.engine.what_if(hints).place(Request(spec=near)).host == "c"
    fleet.check()
