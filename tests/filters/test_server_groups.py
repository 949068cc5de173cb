"""ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter, SameHostFilter, DifferentHostFilter."""

from typing import Any

import pytest

from hostler.placement.filters.base import Selection
from hostler.placement.filters.instance_affinity import DifferentHostFilter, SameHostFilter
from hostler.placement.filters.server_group import ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter
from hostler.placement.types.request import Request, ServerGroup

from .values import build, host, request


def holding(*uuids: str) -> dict[str, dict[str, Any]]:
    return {uuid: {} for uuid in uuids}


def in_group(
    policy: str, *, max_server_per_host: int = 1, hosts: frozenset[str] = frozenset(), **changes: Any
) -> Request:
    group = ServerGroup(
        uuid="g1",
        policy=policy,
        max_server_per_host=max_server_per_host,
        members=frozenset({"own", "i1", "i2"}),
        hosts=hosts,
    )
    return request(server_group=group, **changes)


@pytest.mark.parametrize(
    ("instances", "most", "passes"),
    [
        ((), 1, True),
        (("other",), 1, True),
        (("i1",), 1, False),
        (("i1", "other"), 2, True),
        (("i1", "i2"), 2, False),
        (("i1", "own"), 1, True),
        (("own",), 1, True),
    ],
)
def test_anti_affinity_admits_so_many_members_per_host(instances: tuple[str, ...], most: int, passes: bool) -> None:
    asked = in_group("anti-affinity", max_server_per_host=most)
    assert build(ServerGroupAntiAffinityFilter).host_passes(host(instances=holding(*instances)), asked) is passes


def test_new_instances_asked_for_together_keep_apart_from_each_other() -> None:
    asked = in_group("anti-affinity", instance_uuids=("own", "i1"))
    assert not build(ServerGroupAntiAffinityFilter).host_passes(host(instances=holding("own")), asked)


def test_anti_affinity_leaves_out_the_hosts_that_are_full() -> None:
    asked = in_group("anti-affinity", max_server_per_host=2, instance_uuids=())
    full = Selection(keep=False, instances=frozenset({"own", "i1", "i2"}), at_least=2)
    assert build(ServerGroupAntiAffinityFilter).selection(asked) == full


@pytest.mark.parametrize(
    ("hosts", "passes"),
    [(frozenset(), True), (frozenset({"h1", "h2"}), True), (frozenset({"h2"}), False), (frozenset({"H1"}), False)],
)
def test_affinity_keeps_a_group_on_its_hosts_once_it_has_any(hosts: frozenset[str], passes: bool) -> None:
    judge, asked = build(ServerGroupAffinityFilter), in_group("affinity", hosts=hosts)
    assert judge.host_passes(host(), asked) is passes
    assert judge.applies(asked) is bool(hosts)
    assert judge.selection(asked) == (Selection(keep=True, hosts=hosts) if hosts else None)


@pytest.mark.parametrize("judge", [build(ServerGroupAffinityFilter), build(ServerGroupAntiAffinityFilter)])
@pytest.mark.parametrize(
    "asked", [request(), request(server_group="g1"), in_group("soft-affinity"), in_group("soft-anti-affinity")]
)
def test_without_a_hard_policy_every_host_passes(
    judge: ServerGroupAffinityFilter | ServerGroupAntiAffinityFilter, asked: Request
) -> None:
    assert not judge.applies(asked)
    assert judge.host_passes(host(host="h9", instances=holding("i1")), asked)


def test_the_reasons_name_the_group_and_its_limit() -> None:
    apart, together = build(ServerGroupAntiAffinityFilter), build(ServerGroupAffinityFilter)
    assert apart.reason(host(instances=holding("i1", "i2")), in_group("anti-affinity")) == (
        "holds 2 members of server group g1, whose policy anti-affinity admits 1 per host"
    )
    four = frozenset({"a", "b", "c", "d"})
    assert together.reason(host(), in_group("affinity", hosts=four)) == (
        "the server group's policy affinity keeps it on a, b, c, ..."
    )


@pytest.mark.parametrize(
    ("named", "same", "different"),
    [
        ((), True, True),
        (("",), True, True),
        (("i1",), True, False),
        (("i9",), False, True),
        (("i9", "i2"), True, False),
    ],
)
def test_the_hints_name_instances_to_be_with_or_without(named: tuple[str, ...], same: bool, different: bool) -> None:
    of = host(instances=holding("i1", "i2"))
    assert build(SameHostFilter).host_passes(of, request(hints={"same_host": named})) is same
    assert build(DifferentHostFilter).host_passes(of, request(hints={"different_host": named})) is different


def test_the_hints_select_hosts_by_their_instances() -> None:
    named = frozenset({"i1", "i2"})
    same = build(SameHostFilter).selection(request(hints={"same_host": ("i1", "i2")}))
    different = build(DifferentHostFilter).selection(request(hints={"different_host": ("i1", "i2")}))
    assert same == Selection(keep=True, instances=named)
    assert different == Selection(keep=False, instances=named)


def test_the_reasons_name_the_instances() -> None:
    of = host(instances=holding("i1", "i2"))
    assert build(SameHostFilter).reason(of, request(hints={"same_host": ("i8", "i9")})) == (
        "holds none of the 2 instances of the hint same_host"
    )
    assert build(DifferentHostFilter).reason(of, request(hints={"different_host": ("i9", "i2")})) == (
        "holds instance i2 of the hint different_host"
    )
