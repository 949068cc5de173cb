"""The Placement API and the service see one state: what is written through one, the other decides by."""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from hostler.bench.free_ports import free_ports
from hostler.core.engine_commands import Release
from hostler.core.http.identity import NOBODY, SENDER
from hostler.core.http.identity import Identity as SentBy
from hostler.core.http.placement_writer import ServiceWriter
from hostler.core.http.refusals import as_http
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order, PlacementWrite
from hostler.core.machine.placement_writes import ServiceModel
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed, QuotaExceeded
from hostler.placement.api import commands as api
from hostler.placement.types.errors import HostlerError

from ..core.orders import NOW, machine, order, place, uuid_of
from ..daemon.processes import Daemon
from ..patience import HANG_SECONDS


def write(made: ServiceMachine, command: api.PlacementCommand) -> Any:
    return made.apply(order(PlacementWrite(command=command)))


def hold(made: ServiceMachine, consumer: int, node: str, project: str, **resources: int) -> None:
    uuid = made.state.fleet.uuid(made.state.fleet.row(node))
    asked = api.ConsumerAllocations(allocations={uuid: resources} if resources else {}, project_id=project, user_id="u")
    write(made, api.SetAllocations(now=NOW, consumers={uuid_of(consumer): asked}))


def claims(project: str, *held: tuple[int, str, str, int]) -> PlacementWrite:
    """A write of a user of ``project``: (consumer, node, its project, VCPUs) of each claim."""
    made = machine(3)
    row = made.state.fleet.row
    consumers = {
        uuid_of(consumer): api.ConsumerAllocations(
            allocations={made.state.fleet.uuid(row(node)): {"VCPU": vcpus}} if vcpus else {},
            project_id=owner,
            user_id="u",
        )
        for consumer, node, owner, vcpus in held
    }
    return PlacementWrite(command=api.SetAllocations(now=NOW, consumers=consumers), project=project)


@pytest.mark.parametrize(
    ("held", "code"),
    [
        ([(5, "node-1", "a1", 4)], None),
        ([(5, "node-1", "a1", 2), (6, "node-1", "a1", 2)], None),
        ([(1, "node-1", "a1", 5)], None),  # holds one of them already
        ([(1, "node-1", "a1", 0), (5, "node-1", "a1", 5)], None),
        ([(5, "node-1", "a1", 5)], "quota_exceeded"),
        ([(5, "node-1", "a1", 3), (6, "node-1", "a1", 2)], "quota_exceeded"),
        ([(5, "node-1", "b1", 1)], "not_allowed"),
        ([(2, "node-1", "a1", 1)], "not_allowed"),  # another's
        ([(5, "node-0", "a1", 1)], "not_allowed"),  # in an exclusive pool
    ],
)
def test_a_user_of_a_project_claims_within_its_limits_and_pools(held: Any, code: str | None) -> None:
    made = machine(3)
    for domain in "ab":
        made.apply(order(c.CreateDomain(id=domain)))
        made.apply(order(c.CreateProject(id=f"{domain}1", domain=domain)))
    hold(made, 1, "node-1", "a1", VCPU=1)
    hold(made, 2, "node-1", "b1", VCPU=1)
    made.apply(order(c.SetLimits(scope="domain:a", limits={"VCPU": 5})))
    made.apply(order(c.CreatePool(id="gold", hosts=("node-0",), exclusive=True)))
    before = msgspec.msgpack.encode(made.state.usage)
    (outcome,) = made.apply_batch([order(claims("a1", *held))])
    assert (outcome.code if isinstance(outcome, HostlerError) else None) == code
    assert (msgspec.msgpack.encode(made.state.usage) == before) == (code is not None)
    made.apply(order(msgspec.structs.replace(claims("a1", *held), project=None)))  # a service may do it all


def test_pools_that_a_project_is_granted_are_its_only_hosts_through_the_api() -> None:
    made = machine(3)
    made.apply(order(c.CreateDomain(id="a")))
    made.apply(order(c.CreateProject(id="a1", domain="a")))
    made.apply(order(c.CreatePool(id="gold", hosts=("node-0",), exclusive=True)))
    made.apply(order(c.GrantPool(id="gold", scope="domain:a")))
    made.apply(order(claims("a1", (1, "node-0", "a1", 1))))
    (outcome,) = made.apply_batch([order(claims("a1", (2, "node-1", "a1", 1)))])
    assert isinstance(outcome, NotAllowed)


def test_a_consumer_of_another_project_is_not_deleted() -> None:
    made = machine(1)
    hold(made, 1, "node-0", "b1", VCPU=1)
    delete = api.DeleteAllocations(now=NOW, consumer=uuid_of(1))
    (outcome,) = made.apply_batch([order(PlacementWrite(command=delete, project="a1"))])
    assert isinstance(outcome, NotAllowed)
    made.apply(order(PlacementWrite(command=delete, project="b1")))


@pytest.mark.parametrize(
    ("sender", "project"),
    [
        (NOBODY, None),
        (SentBy(user="nova", project="service", roles=frozenset({"service"})), None),
        (SentBy(user="root", project="p", roles=frozenset({"admin", "member"})), None),
        (SentBy(user="ann", project="a1", roles=frozenset({"member"})), "a1"),
        (SentBy(user="ann", roles=frozenset({"reader"}), system=True), ""),
    ],
)
def test_who_is_no_service_and_no_admin_claims_for_the_project_of_the_token(
    sender: SentBy, project: str | None
) -> None:
    orders: list[Order] = []

    class Told:
        async def submit(self, given: Order, *, lane: str) -> None:
            orders.append(given)
            assert lane

    async def main() -> None:
        SENDER.set(sender)
        service: Any = SimpleNamespace(now=lambda: NOW, writer=Told())
        await ServiceWriter(service).submit(api.DeleteAllocations(now=NOW, consumer=uuid_of(1)))

    trio.run(main)
    (given,) = orders
    assert isinstance(given.command, PlacementWrite)
    assert given.command.project == project


@pytest.mark.parametrize("error", [NotAllowed("no"), QuotaExceeded("no")])
def test_what_tenants_may_not_claim_is_forbidden(error: HostlerError) -> None:
    assert as_http(error).status == 403


def test_a_claim_through_the_api_takes_room_from_the_scheduler() -> None:
    made = machine(1)
    hold(made, 1, "node-0", "p1", MEMORY_MB=65_536)  # all there is
    assert not made.apply(order(place(2))).placed
    write(made, api.DeleteAllocations(now=NOW, consumer=uuid_of(1)))
    assert made.apply(order(place(2))).placed
    made.state.fleet.check()


def test_a_guest_of_the_scheduler_is_a_consumer_of_the_api() -> None:
    made = machine(1)
    made.apply(order(place(1, project="p1", vcpus=3)))
    held = ServiceModel(made.state).allocations(uuid_of(1))
    assert held is not None
    (resources, _) = next(iter(held.allocations.values()))
    assert (held.project_id, resources["VCPU"]) == ("p1", 3)
    made.apply(order(Release(uuids=(uuid_of(1),))))
    assert ServiceModel(made.state).allocations(uuid_of(1)) is None


def test_what_the_apis_consumers_hold_counts_as_their_projects_usage() -> None:
    made = machine(2)
    hold(made, 1, "node-0", "p1", VCPU=4)
    assert made.state.usage.of("project:p1") == {"instances": 1, "VCPU": 4}
    hold(made, 1, "node-1", "p2", VCPU=6, MEMORY_MB=512)
    assert made.state.usage.of("project:p1") == {}
    assert made.state.usage.of("project:p2") == {"instances": 1, "VCPU": 6, "MEMORY_MB": 512}
    hold(made, 1, "node-1", "p2")
    assert made.state.usage.of("project:p2") == {}


def test_the_journal_keeps_the_apis_writes_among_the_others(tmp_path: Path) -> None:
    made, again = machine(2), machine(2)
    uuid = made.state.fleet.uuid(0)
    orders: list[Order] = [
        order(place(1, project="p1")),
        order(PlacementWrite(command=api.CreateTrait(now=NOW, name="CUSTOM_X"))),
        order(PlacementWrite(command=api.SetTraits(now=NOW, provider=uuid, generation=1, traits=("CUSTOM_X",)))),
        order(place(2)),
    ]
    for each in orders:
        encoded = made.encode(each)
        assert made.decode(encoded) == each
        result = made.apply(each)
        assert result == again.apply(again.decode(encoded))
        assert made.decode_result(made.encode_result(result)) == result
    made.save(tmp_path)
    loaded = ServiceMachine()
    loaded.load(tmp_path)
    assert ServiceModel(loaded.state).provider_traits(uuid) == ServiceModel(again.state).provider_traits(uuid)


def test_who_wrote_through_the_api_is_audited(tmp_path: Path) -> None:
    token, uuid = "a-token", uuid_of(7)
    config = f"""[placement]
auth = "static"
[[placement.tokens]]
sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"
user = "nova"
project = "service"
"""
    (port,) = free_ports(1)
    with Daemon(tmp_path, "--placement", f"127.0.0.1:{port}", config=config) as daemon:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
        headers = {"x-auth-token": token, "content-type": "application/json", "openstack-api-version": "placement 1.39"}
        for status in (200, 409):
            body = json.dumps({"name": "node-1", "uuid": uuid})
            connection.request("POST", "/resource_providers", body, headers)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, True)
        connection.close()
        assert daemon.terminate() == 0
    lines = [json.loads(line) for line in (tmp_path / "data" / "audit.jsonl").read_text().splitlines()]
    assert [(line["user"], line["command"], line["on"]) for line in lines] == [
        ("@placement:nova", "placement.CreateProvider", [uuid, "node-1"])
    ] * 2
    assert [line["outcome"] == "ok" for line in lines] == [True, False]


def test_one_process_serves_both(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Daemon(tmp_path, "--insecure", "--placement", f"127.0.0.1:{port}") as daemon, daemon.client() as client:
        client.call("add_hosts", {"hosts": [{"host": "node-1", "vcpus_total": 8, "total_usable_ram_mb": 4096}]})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
        connection.request("GET", "/resource_providers")
        (provider,) = json.loads(connection.getresponse().read())["resource_providers"]
        assert provider["name"] == "node-1"
        connection.request("DELETE", f"/resource_providers/{provider['uuid']}")
        assert connection.getresponse().status == 204
        connection.close()
        assert daemon.terminate() == 0


def test_a_request_under_way_at_sigterm_is_answered_and_kept(tmp_path: Path) -> None:
    (port,), body = free_ports(1), b'{"name": "late"}'
    head = f"POST /resource_providers HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with Daemon(tmp_path, "--insecure", "--placement", f"127.0.0.1:{port}") as daemon:
        process = daemon.process
        assert process is not None
        with (
            socket.create_connection(("127.0.0.1", port), HANG_SECONDS) as idle,
            socket.create_connection(idle.getpeername()) as s,
        ):
            s.settimeout(HANG_SECONDS)
            s.sendall(f"{head}Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n".encode())
            assert s.recv(65_536).startswith(b"HTTP/1.1 100")  # so the request is under way
            s.sendall(body[:5])
            process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""  # the connection without a request is closed: the end has begun
            s.sendall(body[5:])
            answer = b""
            while chunk := s.recv(65_536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 201"), answer
        assert b"connection: close" in answer.lower()
        assert process.wait(HANG_SECONDS) == 0
        daemon.start()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
        connection.request("GET", "/resource_providers")
        (provider,) = json.loads(connection.getresponse().read())["resource_providers"]
        assert provider["name"] == "late"
        connection.close()


def test_a_request_that_never_comes_to_its_end_does_not_keep_the_service_from_its_own(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = "[placement.limits]\ndrain_seconds = 0.5\n"
    with (
        Daemon(tmp_path, "--insecure", "--placement", f"127.0.0.1:{port}", config=config) as daemon,
        socket.create_connection(("127.0.0.1", port), HANG_SECONDS) as half,
    ):
        half.sendall(b"GET /traits HTTP/1.1\r\nHost:")
        assert daemon.terminate() == 0
