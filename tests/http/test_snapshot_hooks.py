"""Hooks that get all they need in the request: a snapshot of OpenNebula, and allocations of Ironic."""

from __future__ import annotations

import base64
from typing import Any, Literal
from xml.etree import ElementTree

import pytest

from hostler.core.engine_commands import AddHosts, SetInventory, SetTraits
from hostler.core.http.config import StaticToken
from hostler.core.http.hooks.config import HooksConfig
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import PlacementWrite
from hostler.core.tenancy import commands as c
from hostler.placement.api import commands as api
from hostler.placement.fleet.inventories import Inventory

from ..core.orders import NOW, hosts, machine, order, place, uuid_of
from .test_hooks import NOVA, nova_request, post, used

PLACE, OPTIMIZE, ALLOCATIONS = "/opennebula/place", "/opennebula/optimize", "/ironic/allocations"


def host(number: int, cpu: int = 800, used: int = 0, state: int = 2, stores: str = "") -> str:
    share = (
        f"<MAX_CPU>{cpu}</MAX_CPU><CPU_USAGE>{used}</CPU_USAGE>"
        f"<MAX_MEM>{16 * 2**20}</MAX_MEM><MEM_USAGE>{used * 10 * 1024}</MEM_USAGE><DATASTORES>{stores}</DATASTORES>"
    )
    return f"<HOST><ID>{number}</ID><NAME>h</NAME><STATE>{state}</STATE><HOST_SHARE>{share}</HOST_SHARE></HOST>"


def vm(number: int, cpu: float = 1, on: int | None = None, role: str = "", size: int = 100, resched: int = 0) -> str:
    history = "" if on is None else f"<HISTORY_RECORDS><HISTORY><HID>{on}</HID></HISTORY></HISTORY_RECORDS>"
    group = f"<VMGROUP><VMGROUP_ID>5</VMGROUP_ID><ROLE>{role}</ROLE></VMGROUP>" if role else ""
    state = "<STATE>1</STATE>" if on is None else "<STATE>3</STATE><LCM_STATE>3</LCM_STATE>"
    template = f"<CPU>{cpu}</CPU><MEMORY>1024</MEMORY><DISK><SIZE>{size}</SIZE></DISK>{group}"
    return (
        f"<VM><ID>{number}</ID>{state}<RESCHED>{resched}</RESCHED><TEMPLATE>{template}</TEMPLATE>{history}"
        "<MONITORING/></VM>"
    )


def needs(
    number: int, *hosts: int, stores: tuple[int, ...] = (100,), nics: dict[int, tuple[int, ...]] | None = None
) -> str:
    def ids(found: tuple[int, ...]) -> str:
        return "".join(f"<ID>{each}</ID>" for each in found)

    networks = "".join(f"<NIC><ID>{nic}</ID><VNETS>{ids(nets)}</VNETS></NIC>" for nic, nets in (nics or {}).items())
    return f"<VM><ID>{number}</ID><HOSTS>{ids(hosts)}</HOSTS>{networks}<DATASTORES>{ids(stores)}</DATASTORES></VM>"


def snapshot(hosts: str, machines: str, needs: str, groups: str = "", cluster: str = "", networks: str = "") -> bytes:
    store = "<DATASTORE><ID>100</ID><FREE_MB>1000</FREE_MB><TEMPLATE><SHARED>YES</SHARED></TEMPLATE></DATASTORE>"
    local = "<DATASTORE><ID>101</ID><FREE_MB>0</FREE_MB><TEMPLATE><SHARED>NO</SHARED></TEMPLATE></DATASTORE>"
    return (
        f"<SCHEDULER_DRIVER_ACTION><VM_POOL>{machines}</VM_POOL><HOST_POOL>{hosts}</HOST_POOL>"
        f"<DATASTORE_POOL>{store}{local}</DATASTORE_POOL><VNET_POOL>{networks}</VNET_POOL>"
        f"<VM_GROUP_POOL>{groups}</VM_GROUP_POOL><CLUSTER_POOL>{cluster}</CLUSTER_POOL>"
        f"<REQUIREMENTS>{needs}</REQUIREMENTS></SCHEDULER_DRIVER_ACTION>"
    ).encode()


async def planned(path: str, body: bytes) -> tuple[int, list[dict[str, Any]]]:
    """Id and actions of a plan, whose elements are those of plan.xsd in their order."""
    status, answer = await post(path, base64.b64encode(body))
    assert status == 200
    if not answer:
        return 0, []
    plan = ElementTree.fromstring(answer)
    assert plan.tag == "PLAN"
    assert [each.tag for each in plan] == ["ID"] + ["ACTION"] * (len(plan) - 1)
    actions = []
    for each in plan.findall("ACTION"):
        order = [part.tag for part in each]
        assert order == sorted(order, key=["VM_ID", "OPERATION", "HOST_ID", "DS_ID", "NIC"].index)
        action: dict[str, Any] = {part.tag: part.text for part in each if part.tag != "NIC"}
        nics = [(nic.findtext("NIC_ID"), nic.findtext("NETWORK_ID")) for nic in each.findall("NIC")]
        actions.append(action | ({"NIC": nics} if nics else {}))
    return int(plan.findtext("ID") or 0), actions


def deploy(number: int, host: int, store: int = 100) -> dict[str, str]:
    return {"VM_ID": str(number), "OPERATION": "deploy", "HOST_ID": str(host), "DS_ID": str(store)}


async def test_pending_machines_are_deployed_on_hosts_of_their_requirements() -> None:
    body = snapshot(host(1) + host(2, used=700) + host(3), vm(7) + vm(8), needs(7, 2, 3) + needs(8, 2))
    assert await planned(PLACE, body) == (-1, [deploy(7, 3), deploy(8, 2)])


async def test_what_was_placed_counts_and_what_does_not_fit_is_left_out() -> None:
    body = snapshot(host(1, cpu=200), vm(7, 1.5) + vm(8, 1) + vm(9, 0.5), needs(7, 1) + needs(8, 1) + needs(9, 1))
    assert (await planned(PLACE, body))[1] == [deploy(7, 1), deploy(9, 1)]


async def test_hosts_that_are_not_monitored_take_nothing() -> None:
    assert (await planned(PLACE, snapshot(host(1, state=4) + host(2, state=3), vm(7), needs(7, 1, 2))))[1] == []


async def test_a_machine_to_be_scheduled_again_leaves_its_host() -> None:
    body = snapshot(host(1, used=100) + host(2), vm(7, on=1, resched=1), needs(7, 1, 2))
    assert (await planned(PLACE, body))[1] == [{**deploy(7, 2), "OPERATION": "migrate"}]


async def test_disks_go_to_the_datastore_with_most_room_and_take_it() -> None:
    stores = "<DS><ID>101</ID><FREE_MB>5000</FREE_MB></DS>"
    machines = vm(7, size=900) + vm(8, size=900) + vm(9, size=4500)
    wanted = needs(7, 1, 2) + needs(8, 1, 2) + needs(9, 1, 2, stores=(100, 101))
    body = snapshot(host(1) + host(2, used=400, stores=stores), machines, wanted)
    assert (await planned(PLACE, body))[1] == [deploy(7, 1), deploy(9, 2, 101)]


async def test_each_nic_gets_a_network_of_its_own_where_there_is_one_with_addresses() -> None:
    def network(number: int, size: int) -> str:
        return (
            f"<VNET><ID>{number}</ID><USED_LEASES>1</USED_LEASES><AR_POOL><AR><SIZE>{size}</SIZE></AR></AR_POOL></VNET>"
        )

    networks = network(30, 100) + network(31, 3) + network(32, 1)
    wanted = needs(7, 1, nics={0: (30, 31), 1: (30, 31, 32)}) + needs(8, 1, nics={0: (32,)})
    _, actions = await planned(PLACE, snapshot(host(1), vm(7) + vm(8), wanted, networks=networks))
    assert actions == [{**deploy(7, 1), "NIC": [("0", "30"), ("1", "31")]}]


def group(policies: dict[str, str], template: str = "", more: str = "") -> str:
    roles = "".join(
        f"<ROLE><NAME>{name}</NAME>{f'<POLICY>{policy}</POLICY>' if policy else ''}{more}</ROLE>"
        for name, policy in policies.items()
    )
    return f"<VM_GROUP><ID>5</ID><ROLES>{roles}</ROLES><TEMPLATE>{template}</TEMPLATE></VM_GROUP>"


async def test_affined_machines_share_the_host_that_takes_them_all() -> None:
    machines = vm(7, 4, role="db") + vm(8, 4, role="db")
    wanted = needs(7, 1, 2) + needs(8, 1, 2)
    body = snapshot(host(1, cpu=600) + host(2, used=0), machines, wanted, group({"db": "AFFINED"}))
    assert (await planned(PLACE, body))[1] == [deploy(7, 2), deploy(8, 2)]
    body = snapshot(host(1, cpu=600), machines, needs(7, 1) + needs(8, 1), group({"db": "AFFINED"}))
    assert (await planned(PLACE, body))[1] == []


async def test_anti_affined_machines_share_no_host() -> None:
    machines = vm(6, on=1, role="web") + vm(7, role="web") + vm(8, role="web")
    body = snapshot(host(1) + host(2), machines, needs(7, 1, 2) + needs(8, 1, 2), group({"web": "ANTI_AFFINED"}))
    assert (await planned(PLACE, body))[1] == [deploy(7, 2)]


async def test_roles_may_be_affined_to_each_other_and_to_hosts() -> None:
    machines = vm(6, on=1, role="db") + vm(7, role="app") + vm(8, role="web")
    rules = "<AFFINED>db, app</AFFINED><ANTI_AFFINED>db, web</ANTI_AFFINED>"
    wanted = needs(7, 1, 2) + needs(8, 1, 2)
    found = group({"db": "", "app": "", "web": ""}, rules)
    assert (await planned(PLACE, snapshot(host(1) + host(2), machines, wanted, found)))[1] == [
        deploy(7, 1),
        deploy(8, 2),
    ]
    only = group({"app": "", "web": ""}, more="<HOST_ANTI_AFFINED>2</HOST_ANTI_AFFINED>")
    assert (await planned(PLACE, snapshot(host(1) + host(2), machines, wanted, only)))[1] == [
        deploy(7, 1),
        deploy(8, 1),
    ]


async def test_migrations_even_out_a_cluster_within_requirements_and_threshold() -> None:
    machines = "".join(vm(number, on=1) for number in range(6)) + vm(6, on=1, role="db")
    wanted = needs(6, 1, 2) + "".join(needs(number, 1, 2) for number in range(3)) + needs(3, 1)
    drs = "<ONE_DRS><MIGRATION_THRESHOLD>2</MIGRATION_THRESHOLD></ONE_DRS>"
    cluster = f"<CLUSTER><ID>9</ID><TEMPLATE>{drs}</TEMPLATE></CLUSTER>"
    body = snapshot(host(1, used=700) + host(2), machines, wanted, cluster=cluster)
    plan, actions = await planned(OPTIMIZE, body)
    assert plan == 9
    assert 1 <= len(actions) <= 2
    assert {(each["OPERATION"], each["HOST_ID"]) for each in actions} == {("migrate", "2")}
    assert {int(each["VM_ID"]) for each in actions} <= {0, 1, 2}


async def test_a_balanced_cluster_has_no_plan() -> None:
    body = snapshot(host(1, used=100) + host(2, used=100), vm(1, on=1) + vm(2, on=2), needs(1, 1, 2) + needs(2, 1, 2))
    assert (await planned(OPTIMIZE, body))[1] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<",
        b"****",
        b"<VM_POOL/>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><SCHEDULER_DRIVER_ACTION/>',
        b"<SCHEDULER_DRIVER_ACTION><HOST_POOL><HOST><ID>x</ID></HOST></HOST_POOL></SCHEDULER_DRIVER_ACTION>",
        b"<SCHEDULER_DRIVER_ACTION><HOST_POOL><HOST><ID>nan</ID></HOST></HOST_POOL></SCHEDULER_DRIVER_ACTION>",
    ],
)
@pytest.mark.parametrize("path", [PLACE, OPTIMIZE])
async def test_what_is_no_snapshot_is_400(path: str, body: bytes) -> None:
    status, answer = await post(path, body)
    assert status == 400
    assert answer["error"]


# Ironic


def metal() -> ServiceMachine:
    """Three nodes of the resource class baremetal; node-2 has a trait."""
    made = ServiceMachine()
    made.apply(order(AddHosts(hosts=hosts(3))))
    for number in range(3):
        inventories = {"CUSTOM_BAREMETAL": Inventory(total=1)}
        made.apply(order(SetInventory(name=f"node-{number}", inventories=inventories)))
    made.apply(order(SetTraits(name="node-2", traits=("CUSTOM_RAID",))))
    return made


async def allocated(on: ServiceMachine, **wanted: Any) -> dict[str, Any]:
    status, answer = await post(ALLOCATIONS, {"resource_class": "baremetal", **wanted}, on=on)
    assert status == 201, answer
    return dict(answer)


async def test_an_allocation_takes_a_candidate_node_with_the_traits_and_is_held() -> None:
    on = metal()
    found = await allocated(on, traits=["CUSTOM_RAID"], candidate_nodes=["node-1", "node-2"], uuid=uuid_of(1), name="a")
    assert (found["node_uuid"], found["state"], found["held"], found["name"]) == ("node-2", "active", True, "a")
    again = await allocated(on, traits=["CUSTOM_RAID"])
    assert (again["node_uuid"], again["state"]) == (None, "error")
    assert again["last_error"]
    assert (await allocated(on, candidate_nodes=["node-1"]))["node_uuid"] == "node-1"
    assert (await allocated(on, candidate_nodes=["node-1"]))["state"] == "error"


async def test_an_allocation_is_shown_confirmed_and_given_back() -> None:
    on = metal()
    uuid = (await allocated(on, uuid=uuid_of(1)))["uuid"]
    where = f"{ALLOCATIONS}/{uuid}"
    assert (await post(where, b"", on=on, method="GET"))[1]["held"] is True
    assert await post("/holds/confirm", {"uuids": [uuid]}, on=on) == (200, {"confirmed": 1})
    assert (await post(where, b"", on=on, method="GET"))[1]["held"] is False
    assert (await post("/holds/confirm", {"uuids": [uuid]}, on=on))[0] == 400
    assert (await post(ALLOCATIONS, {"resource_class": "baremetal", "uuid": uuid}, on=on))[0] == 409
    assert (await post(where, b"", on=on, method="DELETE"))[0] == 204
    assert (await post(where, b"", on=on, method="GET"))[0] == 404
    assert (await post(where, b"", on=on, method="DELETE"))[0] == 404


@pytest.mark.parametrize("body", [{}, {"resource_class": ""}, {"resource_class": "x", "uuid": "y"}, [], b"{"])
async def test_a_malformed_allocation_is_400(body: Any) -> None:
    assert (await post(ALLOCATIONS, body, on=metal()))[0] == 400


async def test_a_held_allocation_that_nobody_confirms_ends() -> None:
    on = metal()
    await allocated(on, uuid=uuid_of(1))
    on.apply(order(place(5), now=NOW + 301))
    assert on.state.fleet._kernel.consumers.get(uuid_of(1)) < 0


# holds of Nova's hook, and rights

HOLDING = HooksConfig(hold_nova=True)


def create(*hosts: str, **more: Any) -> dict[str, Any]:
    request = nova_request(*hosts, **more)
    data = request["spec"]["nova_object.data"]
    data |= {"instance_uuid": uuid_of(50), "scheduler_hints": {}}
    return request


async def test_nova_s_first_host_is_held_until_the_claim_replaces_the_hold() -> None:
    on = used()
    _, answer = await post(NOVA, create("node-1", "node-3"), on=on, config=HOLDING)
    assert answer["hosts"][0] == on.state.fleet.consumer(uuid_of(50)).provider == "node-3"
    assert uuid_of(50) in on.state.holds
    await post(NOVA, create("node-1", "node-3"), on=on, config=HOLDING)  # asked again
    claims = {on.state.fleet.uuid(on.state.fleet.row("node-1")): {"VCPU": 2, "MEMORY_MB": 2_032}}
    given = api.ConsumerAllocations(allocations=claims, project_id="p", user_id="u", generation=None)
    on.apply(order(PlacementWrite(command=api.SetAllocations(consumers={uuid_of(50): given}, now=NOW))))
    assert on.state.fleet.consumer(uuid_of(50)).provider == "node-1"
    assert len(on.state.holds) == 0


async def test_only_creates_of_one_guest_are_held() -> None:
    on = used()
    move = nova_request("node-1", "node-3")
    move["spec"]["nova_object.data"]["instance_uuid"] = uuid_of(50)
    await post(NOVA, move, on=on, config=HOLDING)
    await post(NOVA, create("node-3"), on=on)
    assert len(on.state.holds) == 0


async def test_the_services_own_tokens_carry_the_rights_of_their_users() -> None:
    on, config = machine(3), HooksConfig(auth="tokens")
    on.apply(order(c.CreateDomain(id="d")))
    secrets = {}
    people: tuple[tuple[str, Literal["reader", "member"], str], ...]
    people = (("ann", "reader", "cloud"), ("bob", "member", "project:p"))
    for user, role, scope in people:
        if scope != "cloud":
            on.apply(order(c.CreateProject(id="p", domain="d")))
        on.apply(order(c.CreateUser(id=user, domain="d")))
        on.apply(order(c.Grant(user=user, role=role, scope=scope)))
        secrets[user] = await token(on, user)
    assert (await post(NOVA, nova_request("node-0"), on=on, config=config))[0] == 401
    assert (await post(NOVA, nova_request("node-0"), on=on, config=config, x_auth_token="hst_no_no"))[0] == 401
    assert (await post(NOVA, nova_request("node-0"), on=on, config=config, x_auth_token=secrets["bob"]))[0] == 403
    assert (await post(NOVA, nova_request("node-0"), on=on, config=config, x_auth_token=secrets["ann"]))[0] == 200
    wanted = {"resource_class": "x"}
    assert (await post(ALLOCATIONS, wanted, on=on, config=config, x_auth_token=secrets["ann"]))[1]["state"] == "error"


async def token(on: ServiceMachine, user: str) -> str:
    from hostler.core.service import Service
    from hostler.core.writer.writer import open_writer

    async with open_writer(on) as writer:
        command, made = Service(on, writer, clock=lambda: NOW).new_token(user)
    on.apply(order(command))
    return made.token


async def test_an_allocation_of_a_foreign_project_is_answered_like_one_that_is_not_there() -> None:
    on, config = metal(), HooksConfig(auth="tokens")
    on.apply(order(c.CreateDomain(id="d")))
    secrets = {}
    people: tuple[tuple[str, Literal["reader", "member"]], ...] = (("own", "member"), ("other", "member"))
    for project, role in people:
        on.apply(order(c.CreateProject(id=project, domain="d")))
        on.apply(order(c.CreateUser(id=f"of-{project}", domain="d")))
        on.apply(order(c.Grant(user=f"of-{project}", role=role, scope=f"project:{project}")))
        secrets[project] = await token(on, f"of-{project}")
    on.apply(order(c.CreateUser(id="reader", domain="d")))
    on.apply(order(c.Grant(user="reader", role="reader", scope="project:own")))
    secrets["reader"] = await token(on, "reader")
    await allocated(on, uuid=uuid_of(1), owner="own", traits=["CUSTOM_RAID"])

    async def asked(method: str, number: int, user: str) -> tuple[int, Any]:
        where = f"{ALLOCATIONS}/{uuid_of(number)}"
        status, answer = await post(where, b"", on=on, config=config, method=method, x_auth_token=secrets[user])
        return status, str(answer).replace(uuid_of(number), "UUID")

    for method in ("GET", "DELETE"):
        foreign, missing = [await asked(method, number, "other") for number in (1, 2)]
        assert foreign == missing
        assert foreign[0] == 404
    assert (await asked("GET", 1, "reader"))[0] == 200
    assert (await asked("DELETE", 1, "reader"))[0] == 403
    assert (await asked("DELETE", 1, "own"))[0] == 204


async def test_static_tokens_without_a_role_that_may_change_only_ask() -> None:
    import hashlib

    def config(*roles: str) -> HooksConfig:
        digest = hashlib.sha256(b"s").hexdigest()
        return HooksConfig(auth="static", tokens=(StaticToken(sha256=digest, user="u", roles=roles),))

    on, wanted = metal(), {"resource_class": "baremetal"}
    assert (await post(ALLOCATIONS, wanted, on=on, config=config("reader"), x_auth_token="s"))[0] == 403
    assert (await post(ALLOCATIONS, wanted, on=on, config=config("admin"), x_auth_token="s"))[0] == 201


async def test_a_path_of_one_thing_needs_its_name_and_other_methods_are_named() -> None:
    assert (await post(f"{ALLOCATIONS}/", b"", method="GET"))[0] == 404
    assert (await post(f"{ALLOCATIONS}/x/y", b"", method="GET"))[0] == 404
    assert (await post(ALLOCATIONS, b"", method="PUT"))[0] == 405
