"""What a tenant's request may specify: every field of a request, by what a member gives in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, Final

import msgspec
import pytest
import trio

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as f
from hostler.core import region_commands as g
from hostler.core import storage_commands as s
from hostler.core.machine import catalog_queries as k
from hostler.core.machine import queries as q
from hostler.core.machine.orders import Order
from hostler.core.service import Identity, Service
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.admission import TenancyOptions
from hostler.core.tenancy.errors import NotAllowed
from hostler.core.writer.writer import open_writer
from hostler.placement.storage.pools.request import VolumeType
from hostler.placement.types.options import FilterSchedulerOptions
from hostler.placement.types.request import Flavor, Image, RequestSpec, ServerGroup
from tests.core.orders import NOW, uuid_of
from tests.volumes.values import wish

from .worlds import asking, do, node_of, placed, refused, replayed, two_domains

ALLOWED: Final[dict[str, list[Any]]] = {
    "flavor": [{"vcpus": 4}, {"memory_mb": 2_048}, {"root_gb": 1, "ephemeral_gb": 1, "swap": 512}, {"name": "mine"}],
    "image": [{"disk_format": "qcow2"}, {"properties": {"hw_architecture": "x86_64", "os_distro": "debian"}}, {}],
    "availability_zone": [None, "nova"],
    "scheduler_hints": [{}, {"same_host": [uuid_of(1)]}, {"different_host": [uuid_of(1)]}],
    "is_bfv": [True, False],
    "ignore_hosts": [[]],
    "force_hosts": [[]],
    "force_nodes": [[]],
    "requested_destination": [None],
    "pci_requests": [[]],
    "numa_topology": [None],
    "requested_resources": [[]],
    "request_level_params": [None],
    "requested_networks": [[]],
    "network_metadata": [None],
    "prepare": [None],
}
CELL: Final = {"id": 0, "cpuset": [0], "memory": 1_024}
REFUSED: Final[dict[str, list[Any]]] = {
    "flavor": [
        {"vcpus": 0},
        {"memory_mb": 0},
        {"extra_specs": {"resources:VCPU": "1"}},
        {"extra_specs": {"resources:VCPU": "0", "resources:MEMORY_MB": "0"}},
        {"extra_specs": {"resources1:VCPU": "64", "resources:VCPU": "0"}},
        {"extra_specs": {"hw:cpu_policy": "dedicated"}},
        {"extra_specs": {"aggregate_instance_extra_specs:hostler:exclusive": "true"}},
        {"extra_specs": {"trait:CUSTOM_GOLD": "required"}},
        {"extra_specs": {"anything": "x"}},
    ],
    "image": [
        {"id": "isolated"},
        {"properties": {"hw_cpu_policy": "dedicated"}},
        {"properties": {"trait:CUSTOM_GOLD": "required"}},
        {"properties": {"anything": "x"}},
    ],
    "availability_zone": ["nova:node-0", "nova:node-77", "nova::node-0", ":node-0", "nova:"],
    "scheduler_hints": [
        {"same_host": [uuid_of(2)]},
        {"same_host": [uuid_of(99)]},
        {"different_host": [uuid_of(2)]},
        {"query": ['["=","$host","node-0"]']},
        {"build_near_host_ip": ["10.0.0.1"]},
        {"_nova_check_type": ["rebuild"]},
        {"_hostler_pools": ["x"]},
        {"hostler:resource_pools": ["x"]},
        {"anything": ["x"]},
    ],
    "is_bfv": [],
    "ignore_hosts": [["node-0"]],
    "force_hosts": [["node-0"]],
    "force_nodes": [["node-0"]],
    "requested_destination": [{"host": "node-0"}, {}],
    "pci_requests": [[{"count": 1, "spec": [{"vendor_id": "1"}]}]],
    "numa_topology": [{"cells": [CELL]}],
    "requested_resources": [[{"resources": {"VCPU": 1}}]],
    "request_level_params": [{}],
    "requested_networks": [[{}]],
    "network_metadata": [{}],
    "prepare": [True, False],
}
EVERY_SPEC: Final = [(name, value) for name in REFUSED for value in REFUSED[name]]
EVERY_ALLOWED: Final = [(name, value) for name in ALLOWED for value in ALLOWED[name]]


def world() -> Any:
    """Guest 1 is ann's in a1, guest 2 bob's in b1."""
    made = two_domains()
    filters = [*FilterSchedulerOptions().enabled_filters, "SameHostFilter", "DifferentHostFilter"]
    do(made, p.SetPolicy(policy={"filter_scheduler": {"enabled_filters": filters}}))
    placed(made, "ann", "a1", 1)
    placed(made, "bob", "b1", 2)
    return made


def test_the_tables_name_every_field_of_a_spec() -> None:
    assert set(ALLOWED) == set(REFUSED) == {field.name for field in fields(RequestSpec)}


@pytest.mark.parametrize(("name", "value"), EVERY_SPEC)
def test_a_member_is_refused_what_leads_to_a_host_or_changes_what_a_guest_counts_as(name: str, value: Any) -> None:
    made = world()
    request = asking("a1", **{name: value})
    for command in (
        p.Place(request=request),
        p.PlaceMany(requests=(asking("a1"), request)),
        p.Resize(uuid=uuid_of(1), request=request),
    ):
        code, text = refused(made, command, "ann")
        assert code in ("not_allowed", "invalid_value"), text
        assert "bob" not in text
        assert "b1" not in text


@pytest.mark.parametrize(("name", "value"), EVERY_SPEC)
def test_fits_tells_a_reader_nothing_of_what_its_members_could_not_place(name: str, value: Any) -> None:
    made = world()
    with pytest.raises(Exception, match=r"only cloud admins|no instance|must be between"):
        q.answer(made.state, "ann", q.Fits(request=asking("a1", **{name: value})))


@pytest.mark.parametrize(("name", "value"), EVERY_ALLOWED)
def test_a_member_may_give_the_rest(name: str, value: Any) -> None:
    placed(world(), "ann", "a1", **{name: value})


def naming(zone: str, *uuids: int) -> p.Asked:
    return asking("a1", *uuids, availability_zone=zone)


DOORS: Final[dict[str, Callable[[str], Any]]] = {
    "hold": lambda zone: p.Hold(request=naming(zone), expires_in=9.0),
    "begin_move": lambda zone: p.BeginMove(uuid=uuid_of(1), kind="resize", request=naming(zone)),
    "create_guest": lambda zone: f.CreateGuest(request=naming(zone, 9)),
    "place_together": lambda zone: s.PlaceTogether(request=naming(zone), volumes=(wish(project="a1"),)),
    "place_across": lambda zone: g.PlaceAcross(requests=(naming(zone),)),
    "claim_in_region": lambda zone: g.ClaimInRegion(id="c", region="r", request=naming(zone)),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_lets_a_member_choose_the_host_by_its_zone_or_learn_of_hosts(door: str) -> None:
    made = world()
    told = {refused(made, DOORS[door](f"nova:{host}"), "ann") for host in ("node-0", "node-77", ":node-1")}
    assert told == {("not_allowed", "only cloud admins may specify a host in spec.availability_zone")}


def test_a_member_cannot_choose_the_host_that_a_guest_is_resized_on() -> None:
    made = world()
    for target in ("node-0", "node-77"):
        move = p.BeginMove(uuid=uuid_of(1), kind="resize", request=asking("a1"), target=target)
        assert refused(made, move, "ann") == ("not_allowed", "only cloud admins may specify target")
    do(made, p.BeginMove(uuid=uuid_of(1), kind="resize", request=asking("a1")), user="ann")
    do(made, p.BeginMove(uuid=uuid_of(2), kind="resize", request=asking("b1"), target="node-2"), user="root")


def test_orders_of_before_still_name_a_host_by_its_zone() -> None:
    made = world()
    outcome, *_ = replayed(made, msgspec.msgpack.encode(Order(NOW, "ann", p.Place(request=naming("nova:node-2")), 5)))
    assert node_of(outcome) == "node-2"
    together = s.PlaceTogether(request=naming("nova:node-1"), volumes=())
    outcome, *_ = replayed(made, msgspec.msgpack.encode(Order(NOW, "ann", together, 5)))
    assert "only cloud admins" not in str(outcome)


def test_a_hint_that_is_unknown_brings_no_hint_of_the_services_own_to_mind() -> None:
    told = refused(two_domains(), p.Place(request=asking("a1", scheduler_hints={"region": ["x"]})), "ann")
    assert told[0] == "unknown_name"
    assert " _" not in told[1]


FORCED: Final = ("ignore_hosts", "force_hosts", "force_nodes")


@pytest.mark.parametrize("name", FORCED)
def test_a_cloud_admin_may_give_everything(name: str) -> None:
    placed(world(), "root", "a1", **{name: ["node-0"]})


# fields of a request beside its spec

BESIDE: Final[dict[str, tuple[list[Any], list[Any]]]] = {
    "spec": ([], []),  # above
    "instance_uuids": ([(), (uuid_of(7),)], []),
    "project_id": ([], ["b1", "", "unheard"]),
    "user_id": (["", "ann"], ["bob", "somebody"]),
    "server_group": (
        [None],
        [
            uuid_of(99),
            ServerGroup(uuid=uuid_of(9), policy="affinity"),
            ServerGroup(uuid=uuid_of(9), policy="affinity", hosts=frozenset({"node-0"})),
            ServerGroup(uuid=uuid_of(9), policy="affinity", members=frozenset({uuid_of(2)})),
        ],
    ),
    "alternates": ([0, 2], []),
    "request_id": (["req-1", None], []),
    "claim": ([""], ["c1"]),
}
"""Field -> values that a member may give, and those that they may not."""


def test_the_table_names_every_field_of_a_request() -> None:
    assert tuple(BESIDE) == p.Asked.__struct_fields__


@pytest.mark.parametrize("name", BESIDE)
def test_each_field_of_a_request_is_for_members_or_is_not(name: str) -> None:
    allowed, others = BESIDE[name]
    for value in allowed:
        do(world(), p.Place(request=msgspec.structs.replace(asking("a1"), **{name: value})), user="ann")
    for value in others:
        command = p.Place(request=msgspec.structs.replace(asking("a1"), **{name: value}))
        assert refused(world(), command, "ann")[0] == "not_allowed"


# flavors and images that the service keeps

SMALL: Final = Flavor(name="m1.small", vcpus=2, memory_mb=2_048, extra_specs={"hw:cpu_policy": "shared"})


def test_a_member_names_a_flavor_and_an_image_that_the_service_keeps() -> None:
    made = world()
    do(made, c.CreateFlavor(flavor=SMALL), c.CreateImage(name="debian", image=Image(id="i", disk_format="raw")))
    decision = placed(made, "ann", "a1", 5, flavor="m1.small", image="debian")
    node_of(decision)
    assert made.state.holding(uuid_of(5))[1] == {"instances": 1, "VCPU": 2, "MEMORY_MB": 2_048}


def test_a_flavor_may_say_what_members_may_not() -> None:
    made = world()
    light = Flavor(name="light", vcpus=64, memory_mb=1_024, extra_specs={"resources:VCPU": "1"})
    do(made, c.CreateFlavor(flavor=light))
    placed(made, "ann", "a1", 5, flavor="light")
    assert made.state.holding(uuid_of(5))[1]["VCPU"] == 1


def test_a_flavor_of_some_projects_is_for_these_and_those_below_and_to_others_as_if_it_were_not_there() -> None:
    made = world()
    do(made, c.CreateFlavor(flavor=SMALL, projects=("a1",)), c.CreateProject(id="a2", parent="a1"))
    do(made, c.Grant(user="ann", role="member", scope="project:a2"))
    placed(made, "ann", "a1", flavor="m1.small")
    placed(made, "ann", "a2", flavor="m1.small")
    of_others = refused(made, p.Place(request=asking("b1", flavor="m1.small")), "bob")
    of_none = refused(made, p.Place(request=asking("b1", flavor="m1.smell")), "bob")
    assert of_others[1].replace("small", "smell") == of_none[1]
    assert of_others[0] == of_none[0] == "unknown_name"
    for user, names in (("ann", ["m1.small"]), ("bob", []), ("root", ["m1.small"])):
        assert [line.name for line in q.answer(made.state, user, k.Flavors())] == names
    with pytest.raises(Exception, match=r"unknown flavor 'm1\.small'") as error:
        q.answer(made.state, "bob", k.ShowFlavor(name="m1.small"))
    assert "closest" not in str(error.value)


@pytest.mark.parametrize("kind", ["flavor", "image", "volume type"])
def test_names_of_others_are_told_as_none_whatever_else_is_wrong(kind: str) -> None:
    made = world()
    do(made, c.CreateFlavor(flavor=SMALL, projects=("a1",)))
    do(made, c.CreateImage(name="m1.small", image=Image(), projects=("a1",)))
    do(made, c.CreateVolumeType(volume_type=VolumeType(name="m1.small"), projects=("a1",)))
    told = []
    for name in ("m1.small", "m1.smell"):
        command: Any = s.PlaceVolume(request=wish(project="b1", volume_type=name, resource_backend="x"))
        if kind != "volume type":
            command = p.Place(request=asking("b1", **{kind: name}, force_hosts=["node-0"]))
        told.append(refused(made, command, "bob"))
    assert told[0][1].replace("small", "smell") == told[1][1]
    assert told[0][0] == told[1][0] == "unknown_name"


def test_a_flavor_is_for_nobody_once_its_only_project_is_gone() -> None:
    made = two_domains()
    do(made, c.CreateFlavor(flavor=SMALL, projects=("a1",)), c.DeleteProject(id="a1"))
    assert refused(made, p.Place(request=asking("b1", flavor="m1.small")), "bob")[0] == "unknown_name"
    do(made, c.CreateProject(id="a1", domain="b"), c.Grant(user="bob", role="member", scope="project:a1"))
    assert refused(made, p.Place(request=asking("a1", flavor="m1.small")), "bob")[0] == "unknown_name"


def test_a_member_cannot_pass_a_size_of_their_own_off_as_a_flavor_that_is_kept() -> None:
    made = world()
    do(made, c.CreateFlavor(flavor=SMALL))
    assert refused(made, p.Place(request=asking("a1", flavor={"name": "m1.small"})), "ann")[0] == "not_allowed"


def test_a_flavor_that_was_deleted_or_made_again_is_read_anew() -> None:
    made = world()
    do(made, c.CreateFlavor(flavor=SMALL))
    placed(made, "ann", "a1", 5, flavor="m1.small")
    do(made, c.DeleteFlavor(name="m1.small"))
    refused(made, p.Place(request=asking("a1", flavor="m1.small")), "ann")
    do(made, c.CreateFlavor(flavor=Flavor(name="m1.small", vcpus=4, memory_mb=512)))
    placed(made, "ann", "a1", 6, flavor="m1.small")
    assert made.state.holding(uuid_of(6))[1]["VCPU"] == 4


@pytest.mark.parametrize(
    ("flavor", "code"),
    [
        (Flavor(name="x", vcpus=0, memory_mb=1), "invalid_value"),
        (Flavor(name="x", vcpus=1, memory_mb=0), "invalid_value"),
        (Flavor(name="", vcpus=1, memory_mb=1), "invalid_value"),
        (Flavor(name="x", vcpus=1, memory_mb=1, extra_specs={"trait:NO_SUCH": "required"}), "unknown_name"),
        (Flavor(name="x", vcpus=1, memory_mb=1, extra_specs={"resources:NO_SUCH": "1"}), "unknown_name"),
        (Flavor(name="m1.small", vcpus=1, memory_mb=1), "duplicate_name"),
    ],
)
def test_a_flavor_that_no_request_could_have_is_refused(flavor: Flavor, code: str) -> None:
    made = world()
    do(made, c.CreateFlavor(flavor=SMALL))
    assert refused(made, c.CreateFlavor(flavor=flavor), "root")[0] == code


def test_kept_flavors_images_and_groups_outlive_a_snapshot(tmp_path: Any) -> None:
    made = world()
    do(made, c.CreateFlavor(flavor=SMALL, projects=("a1",)), c.CreateImage(name="debian", image=Image(id="i")))
    do(made, p.AddServerGroup(uuid=uuid_of(9), policy="affinity", project_id="a1"))
    made.save(tmp_path)
    loaded = type(made)()
    loaded.load(tmp_path)
    assert loaded.state.catalog == made.state.catalog
    assert loaded.state.group_owners == made.state.group_owners
    placed(loaded, "ann", "a1", flavor="m1.small", image="debian", group=uuid_of(9))


def named(flavor: Any) -> p.Place:
    return p.Place(request=asking("a1", flavor=flavor))


@pytest.mark.parametrize("inline", [True, False])
def test_the_operator_may_turn_flavors_of_members_own_off(inline: bool) -> None:
    async def main() -> None:
        made = two_domains()
        do(made, c.CreateFlavor(flavor=Flavor(name="kept", vcpus=1, memory_mb=512)))
        told: list[Any] = []
        async with open_writer(made) as writer:
            service = Service(made, writer, tenancy=TenancyOptions(inline_flavors=inline))
            many = p.PlaceMany(requests=(asking("a1", flavor="kept"), asking("a1")))
            for call in (named({}), many, q.Fits(request=asking("a1"))):
                for user in ("ann", "root"):
                    identity = Identity(user, serial=made.state.tenants.serial_of(user))
                    if isinstance(call, q.Fits):
                        ask: Callable[[], Any] = partial(service.ask, identity, call)
                    else:
                        ask = partial(service.order, identity, call, told.append)
                    if inline or user == "root":
                        ask()
                    else:
                        with pytest.raises(NotAllowed, match=r"of their own .*that the service keeps"):
                            ask()
            service.order(Identity("ann", serial=made.state.tenants.serial_of("ann")), named("kept"), told.append)
        assert len(told) == (5 if inline else 3)
        assert all(pending.error is None for pending in told)

    trio.run(main)
