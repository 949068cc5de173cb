"""Which instances there are: filtered, paged, and only those that one may see."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core.machine.group_queries import ServerGroups, server_groups
from hostler.core.machine.instance_queries import InstanceLine, Instances, instances
from hostler.core.machine.machine import ServiceMachine
from hostler.placement.types.errors import InvalidValue
from tests.core.orders import place, uuid_of

from .worlds import asking, do, two_domains


def world(count: int = 12) -> ServiceMachine:
    """Guests of a1, b1 and the cloud in turn, in no order of their uuids; one is gone; a group of two."""
    made = two_domains()
    do(made, p.AddServerGroup(uuid=uuid_of(99), policy="soft-affinity", project_id="a1"))
    numbers = list(range(1, count + 1))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        project = ("a1", "b1", "")[number % 3]
        do(made, place(number, project=project))
    do(made, p.Place(request=asking("a1", 40, 41, group=uuid_of(99), user="ann")), user="ann")
    do(made, p.Release(uuids=(uuid_of(5),)))
    return made


def listed(made: ServiceMachine, asker: str, /, **query: Any) -> list[InstanceLine]:
    return instances(made.state, asker, Instances(**query))


def test_readers_of_the_cloud_see_all_and_others_those_of_their_projects() -> None:
    made = world()
    everything = [uuid_of(number) for number in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 40, 41)]
    assert [line.uuid for line in listed(made, "root")] == everything
    assert {line.project_id for line in listed(made, "ann")} == {"a1"}
    assert len(listed(made, "ann")) == 6
    assert {line.project_id for line in listed(made, "bea")} == {"b1"}


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_pages_follow_each_other_without_holes_and_repeats(limit: int) -> None:
    made, found, after = world(), list[str](), None
    while page := listed(made, "root", limit=limit, after=after):
        found += [line.uuid for line in page]
        after = found[-1]
    assert found == [line.uuid for line in listed(made, "root")]


def test_filters_hold_together() -> None:
    made = world()
    lines = listed(made, "root")
    for node in ("node-0", "node-1", "unheard"):
        assert listed(made, "root", node=node) == [line for line in lines if line.node == node]
        both = [line for line in lines if line.node == node and line.project_id == "a1"]
        assert listed(made, "root", node=node, project="a1") == both
    assert [line.uuid for line in listed(made, "ann", server_group=uuid_of(99))] == [uuid_of(40), uuid_of(41)]
    assert [line.uuid for line in listed(made, "ann", user="ann")] == [uuid_of(40), uuid_of(41)]
    assert listed(made, "ann", user="nobody") == listed(made, "ann", server_group=uuid_of(98)) == []
    assert listed(made, "bob", server_group=uuid_of(99)) == []


def test_a_line_says_what_the_guest_holds() -> None:
    (line,) = listed(world(), "ann", server_group=uuid_of(99), limit=1)
    assert (line.project_id, line.user_id, line.server_group, line.building) == ("a1", "ann", uuid_of(99), True)
    assert line.resources == {"VCPU": 1, "MEMORY_MB": 1_024}


def test_what_is_no_uuid_is_refused() -> None:
    with pytest.raises(InvalidValue, match="after is no uuid"):
        listed(world(), "root", after="x")


def test_a_service_without_guests_has_none() -> None:
    assert listed(two_domains(), "root") == []


def test_server_groups_are_listed_with_their_members_to_those_who_may_read_them() -> None:
    made = world()
    do(made, p.AddServerGroup(uuid=uuid_of(97), policy="anti-affinity", project_id="b1"))
    do(made, p.AddServerGroup(uuid=uuid_of(98), policy="affinity", max_server_per_host=3))

    def shown(asker: str, /, **query: Any) -> list[tuple[Any, ...]]:
        return [msgspec.structs.astuple(each) for each in server_groups(made.state, asker, ServerGroups(**query))]

    of_a, of_b = (uuid_of(99), "soft-affinity", 1, "a1", 2), (uuid_of(97), "anti-affinity", 1, "b1", 0)
    of_none = (uuid_of(98), "affinity", 3, "", 0)
    assert shown("root") == [of_b, of_none, of_a]
    assert (shown("ann"), shown("bea")) == ([of_a], [of_b])
    assert shown("root", project="b1") == shown("root", limit=1) == [of_b]
    assert shown("root", after=uuid_of(98)) == [of_a]
    do(made, p.RemoveServerGroup(uuid=uuid_of(99)))
    assert shown("ann") == []
