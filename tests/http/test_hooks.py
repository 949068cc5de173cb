"""Hooks of other schedulers, with requests in the form that their own clients send."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any, Literal

import jsonschema
import pytest

from hostler.core.engine_commands import AddHosts, RemoveHost, SetInventory
from hostler.core.http.config import StaticToken
from hostler.core.http.errors import HttpError
from hostler.core.http.hooks.api import HooksApi
from hostler.core.http.hooks.asking import Asking
from hostler.core.http.hooks.config import HooksConfig, check
from hostler.core.http.hooks.pods import Pod, PodSpec, amounts_of, quantity
from hostler.core.http.messages import Request
from hostler.core.machine.machine import ServiceMachine
from hostler.core.service import Service
from hostler.core.writer.writer import open_writer
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.types.errors import InvalidValue

from ..core.orders import NOW, hosts, machine, order, place

# The answer as SAP's client for Nova validates it.
ANSWER = {
    "type": "object",
    "properties": {"hosts": {"type": "array", "items": {"type": "string"}}},
    "required": ["hosts"],
    "additionalProperties": False,
}


def wrapped(kind: str, **data: Any) -> dict[str, Any]:
    return {
        "nova_object.name": kind,
        "nova_object.namespace": "nova",
        "nova_object.version": "1.0",
        "nova_object.data": data,
        "nova_object.changes": [],
    }


def nova_request(*hosts: str, vcpus: int = 2, **more: Any) -> dict[str, Any]:
    flavor = wrapped("Flavor", vcpus=vcpus, memory_mb=2_032, root_gb=64, ephemeral_gb=0, swap=0, extra_specs={})
    image = wrapped("ImageMeta", id="i", properties=wrapped("ImageMetaProps", hw_cpu_cores=None, hw_disk_bus="virtio"))
    spec = wrapped(
        "RequestSpec",
        project_id="p",
        user_id="u",
        availability_zone=None,
        num_instances=1,
        is_bfv=False,
        scheduler_hints={"_nova_check_type": ["live_migrate"]},
        ignore_hosts=None,
        force_hosts=None,
        image=image,
        flavor=flavor,
        numa_topology=None,
    )
    return {
        "spec": spec,
        "context": {"user": "u", "project_id": "p", "request_id": "req-1"},
        "rebuild": False,
        "resize": False,
        "live": True,
        "vmware": False,
        "hosts": [{"host": host, "hypervisor_hostname": host} for host in hosts],
        "weights": {host: float(len(hosts) - position) for position, host in enumerate(hosts)},
        **more,
    }


async def post(
    path: str,
    body: Any,
    *,
    on: ServiceMachine | None = None,
    config: HooksConfig | None = None,
    method: str = "POST",
    **headers: str,
) -> tuple[int, Any]:
    m = on if on is not None else machine(4)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def read() -> bytes:
        return raw

    async with open_writer(m) as writer:
        service = Service(m, writer, clock=lambda: NOW)
        api = HooksApi(service, config or HooksConfig(), clock=lambda: NOW)
        response, exchange = await api.respond(
            Request(method, path, "", {k.replace("_", "-"): v for k, v in headers.items()}, read)
        )
    assert not exchange.problem, exchange.problem
    given = response.body
    return response.status, json.loads(given) if given and response.content_type == "application/json" else given


NOVA = "/scheduler/nova/external"


def used() -> ServiceMachine:
    """Four nodes of 16 CPUs: node 0 is the fullest, node 3 is empty."""
    m = ServiceMachine()
    m.apply(order(AddHosts(hosts=hosts(4, cpu_allocation_ratio=1.0))))
    for number in range(3):
        m.apply(order(place(number + 1, vcpus=12 - 4 * number, force_hosts=[f"node-{number}"])))
    return m


async def test_nova_gets_the_hosts_of_its_request_best_first() -> None:
    status, answer = await post(NOVA, nova_request("node-0", "node-2", "node-1"), on=used())
    assert status == 200
    jsonschema.validate(answer, ANSWER)
    assert answer == {"hosts": ["node-2", "node-1", "node-0"]}


async def test_hosts_that_are_refused_or_not_known_come_last_in_novas_order() -> None:
    request = nova_request("nowhere", "node-0", "node-3", vcpus=8)
    status, answer = await post(NOVA, request, on=used())
    assert (status, answer) == (200, {"hosts": ["node-3", "nowhere", "node-0"]})


async def test_hosts_that_are_refused_are_left_out_where_that_is_asked_for() -> None:
    request = nova_request("nowhere", "node-0", "node-3", vcpus=8)
    status, answer = await post(NOVA, request, on=used(), config=HooksConfig(refuse=True))
    assert (status, answer) == (200, {"hosts": ["node-3", "nowhere"]})


async def test_an_empty_list_is_believed_so_nova_is_told_400_where_no_host_is_known() -> None:
    status, answer = await post(NOVA, nova_request("a", "b"))
    assert status == 400
    assert "keep your own order" in answer["error"]


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"node-0": 1.0}},
        {"weights": {"node-0": 1.0, "node-1": 1.0, "node-2": 1.0}},
        {"hosts": [{"host": "node-0"}, {"host": "node-0"}]},
        {"spec": {"nova_object.data": {}}},
        {"spec": []},
        {"hosts": None},
    ],
)
async def test_a_malformed_request_of_nova_is_400(change: dict[str, Any]) -> None:
    status, answer = await post(NOVA, {**nova_request("node-0", "node-1"), **change})
    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 10_000])
@pytest.mark.parametrize("path", [NOVA, "/kubernetes/filter", "/kubernetes/prioritize"])
async def test_what_is_no_json_is_400(path: str, body: bytes) -> None:
    status, _ = await post(path, body)
    assert status == 400


async def test_a_request_without_hosts_is_answered_without_hosts() -> None:
    assert await post(NOVA, nova_request()) == (200, {"hosts": []})


async def test_another_path_or_method_is_named() -> None:
    status, answer = await post("/nothing", {})
    assert status == 404
    assert NOVA in answer["error"]
    status, _ = await post(NOVA, {}, method="GET")
    assert status == 405


async def test_callers_show_a_token_where_tokens_are_asked_for() -> None:
    token = StaticToken(sha256=hashlib.sha256(b"secret").hexdigest(), user="nova")
    config = HooksConfig(auth="static", tokens=(token,))
    request = nova_request("node-0")
    assert (await post(NOVA, request, config=config))[0] == 401
    assert (await post(NOVA, request, config=config, x_auth_token="wrong"))[0] == 401
    assert (await post(NOVA, request, config=config, x_auth_token="secret"))[0] == 200
    assert (await post(NOVA, request, config=config, authorization="Bearer secret"))[0] == 200


def test_a_configuration_that_cannot_be_is_refused() -> None:
    for config in (
        HooksConfig(listen="nowhere"),
        HooksConfig(listen="127.0.0.1:1", auth="static"),
        HooksConfig(listen="127.0.0.1:1", prefix="x"),
    ):
        with pytest.raises(InvalidValue):
            check(config)
    check(HooksConfig(listen="127.0.0.1:1"))


# Kubernetes


def pod(cpu: str = "500m", memory: str = "1Gi", **more: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {}}}
    return {"metadata": {"name": "web-1", "uid": "u"}, "spec": {"containers": [container], **more}}


CORES = HooksConfig(kubernetes_cpu="cores")


async def test_kubernetes_filters_by_names() -> None:
    request = {"Pod": pod("14"), "Nodes": None, "NodeNames": ["node-0", "node-3", "gone"]}
    status, answer = await post("/kubernetes/filter", request, on=used(), config=CORES)
    assert status == 200
    assert answer["NodeNames"] == ["node-3"]
    assert answer["Nodes"] is None
    assert set(answer["FailedNodes"]) == {"node-0"}
    assert answer["FailedAndUnresolvableNodes"] == {"gone": "Hostler does not know this node"}
    assert answer["Error"] == ""


async def test_nodes_that_would_have_too_little_without_any_pod_need_no_eviction() -> None:
    m = used()
    amounts = {"VCPU": 16, "MEMORY_MB": 2**20, "DISK_GB": 2**20}
    inventories = {name: Inventory(total=total) for name, total in amounts.items()}
    gpus = {"CUSTOM_X_GPU": Inventory(total=4, max_unit=1)}
    m.apply(order(SetInventory(name="node-0", inventories=inventories | gpus)))
    names, config = ["node-0", "node-1", "node-3"], HooksConfig(kubernetes_cpu="cores")
    for requests, failed, helpless in (
        ({"cpu": "14"}, {"node-0", "node-1"}, set[str]()),  # each has 16, of which some are taken
        ({"cpu": "17"}, set[str](), {"node-0", "node-1", "node-3"}),
        ({"x/gpu": "1"}, set[str](), {"node-1", "node-3"}),
        ({"x/gpu": "2"}, set[str](), {"node-0", "node-1", "node-3"}),
    ):
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"resources": {"requests": requests}}]}}
        status, answer = await post("/kubernetes/filter", {"Pod": pod, "NodeNames": names}, on=m, config=config)
        assert status == 200
        assert (set(answer["FailedNodes"]), set(answer["FailedAndUnresolvableNodes"])) == (failed, helpless), requests


async def test_a_node_that_is_removed_while_pods_are_filtered_needs_no_eviction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranked = Asking.rank

    async def rank(self: Asking, *given: Any) -> Any:
        found = await ranked(self, *given)
        self._service.machine.apply(order(RemoveHost(name="node-3")))
        return found

    monkeypatch.setattr(Asking, "rank", rank)
    request = {"Pod": pod("17"), "NodeNames": ["node-1", "node-3"]}
    status, answer = await post("/kubernetes/filter", request, on=used(), config=CORES)
    assert (status, answer["Error"]) == (200, "")
    assert set(answer["FailedAndUnresolvableNodes"]) == {"node-1", "node-3"}


async def test_kubernetes_filters_nodes_in_full() -> None:
    items = [{"metadata": {"name": name}, "status": {"x": 1}} for name in ("node-0", "node-3")]
    request = {"Pod": pod("14"), "Nodes": {"items": items}, "NodeNames": None}
    _, answer = await post("/kubernetes/filter", request, on=used(), config=CORES)
    assert answer["Nodes"] == {"items": [items[1]]}
    assert answer["NodeNames"] is None


async def test_kubernetes_scores_from_0_to_10() -> None:
    request = {"Pod": pod("2"), "NodeNames": ["node-0", "node-1", "node-2", "node-3", "gone"]}
    _, answer = await post("/kubernetes/prioritize", request, on=used(), config=CORES)
    scores = {each["Host"]: each["Score"] for each in answer}
    assert scores["node-3"] == 10
    assert scores["gone"] == 0
    assert 0 <= scores["node-0"] <= scores["node-1"] <= scores["node-2"] <= 10


async def test_a_pod_that_cannot_be_judged_is_an_error_of_the_extender() -> None:
    request = {"Pod": pod(nodeSelector={"topology.kubernetes.io/zone": "z" * 300}), "NodeNames": ["node-0"]}
    status, answer = await post("/kubernetes/filter", request, config=CORES)
    assert status == 200
    assert answer["NodeNames"] in (None, [])


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        ("1Gi", str(2**30)),
        ("1k", "1000"),
        ("1e3", "1000"),
        ("0.5Mi", str(2**19)),
        (3, "3"),
    ],
)
def test_quantities_of_kubernetes(text: str | int, amount: str) -> None:
    assert quantity(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "x", "1Zi", "--1", "1..2", "1e", "9" * 65])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(HttpError, match="not a quantity"):
        quantity(text)


@pytest.mark.parametrize("text", ["1e9999999", "1e200000", "1e99999", "1e-200000"])
def test_a_quantity_with_a_long_exponent_is_refused_before_it_is_converted(text: str) -> None:
    with pytest.raises(HttpError, match="not a quantity"):
        quantity(text)


@pytest.mark.parametrize("text", ["-1", "-5Gi", "1e999", "9223372036854775808", "8Ei", 1e300, -0.5])
def test_a_quantity_that_is_negative_or_above_that_of_kubernetes_is_refused(text: str | float) -> None:
    with pytest.raises(HttpError, match=r"from 0 to 2\^63-1"):
        quantity(text)


@pytest.mark.parametrize("amount", ["1e200000", "1e9999999", "-5Gi", "4Ei", "1e400", "7" * 6_000])
@pytest.mark.parametrize("name", ["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"])
@pytest.mark.parametrize("path", ["filter", "prioritize", "preempt"])
async def test_a_pod_that_requests_too_much_or_less_than_nothing_is_400(path: str, name: str, amount: str) -> None:
    """Also where only the sum of its containers is too much; also where it is a number of JSON."""
    form = amount if amount.isdigit() or amount == "1e400" else f'"{amount}"'
    container = f'{{"resources": {{"requests": {{"{name}": {form}}}}}}}'
    spec = f'{{"containers": [{container}, {container}]}}'
    body = f'{{"Pod": {{"spec": {spec}}}, "NodeNames": ["node-0"], "NodeNameToMetaVictims": {{"node-0": {{}}}}}}'
    status, answer = await post(f"/kubernetes/{path}", body.encode(), on=machine(1))
    assert status == 400, answer


@pytest.mark.parametrize("cpu", ["cores", "millicores"])
@pytest.mark.parametrize("name", ["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"])
async def test_the_greatest_quantity_fits_nowhere(name: str, cpu: Literal["cores", "millicores"]) -> None:
    pod = {"spec": {"containers": [{"resources": {"requests": {name: str(2**63 - 1)}}}]}}
    request = {"Pod": pod, "NodeNames": ["node-0"]}
    status, answer = await post("/kubernetes/filter", request, on=machine(1), config=HooksConfig(kubernetes_cpu=cpu))
    assert status == 200
    assert not answer["NodeNames"]


def test_init_containers_count_where_they_need_more_than_the_containers() -> None:
    def container(cpu: str, restart: str = "") -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu}}, "restartPolicy": restart}

    import msgspec

    spec = msgspec.convert(
        {
            "containers": [container("1"), container("2")],
            "initContainers": [container("1", "Always"), container("5"), container("2")],
            "overhead": {"cpu": "100m"},
        },
        PodSpec,
    )
    assert amounts_of(spec) == {"cpu": Decimal("6.1")}
    assert amounts_of(Pod().spec) == {}
