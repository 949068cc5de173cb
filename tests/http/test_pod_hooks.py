"""The extender of kube-scheduler beyond filter and prioritize: pods held, bound and preempted for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import msgspec
import pytest
import trio

from hostler.core.engine_commands import AddHosts
from hostler.core.http.config import StaticToken
from hostler.core.http.hooks.config import HooksConfig
from hostler.core.machine.machine import ServiceMachine

from ..core.orders import NOW, hosts, order, place, uuid_of
from .test_hooks import CORES, pod, post, used

POD = uuid_of(77)


class Api:
    """A stand-in for the Kubernetes API: what it was sent, the status that it answers with, and the node of its pod."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Bindings."""
        self.tokens: list[str] = []
        self.status = 201
        self.status_of_reads = 200
        self.hangs_up = False
        """True: a binding has no answer."""
        self.bound_to = ""
        self.uid = POD
        self.told: Callable[[], None] = lambda: None
        """Called with each binding, before it is answered."""
        self.url = ""

    async def answer(self, stream: trio.SocketStream) -> None:
        connection, target, method, body = h11.Connection(h11.SERVER), "", b"", b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(4096))
            elif isinstance(event, h11.Request):
                target, method = event.target.decode(), event.method
                self.tokens.append(dict(event.headers).get(b"authorization", b"").decode())
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                break
        status, answer = self.status_of_reads, b"{}"
        if method == b"GET":
            pod = {"metadata": {"name": "web-1", "uid": self.uid}, "spec": {"nodeName": self.bound_to}}
            answer = json.dumps(pod).encode()
        else:
            status = self.status
            self.asked.append((target, json.loads(body)))
            self.told()
            if self.hangs_up:
                await stream.aclose()
                return
        length = str(len(answer))
        start = h11.Response(status_code=status, headers=[("content-length", length), ("connection", "close")])
        for part in (start, h11.Data(data=answer), h11.EndOfMessage()):
            await stream.send_all(connection.send(part) or b"")
        await stream.aclose()


@asynccontextmanager
async def kubernetes() -> AsyncIterator[Api]:
    api = Api()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        api.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, api.answer, [listener])
        yield api
        nursery.cancel_scope.cancel()


def asked(name: str = "1", **more: Any) -> dict[str, Any]:
    made = pod(name, **more)
    made["metadata"]["uid"] = POD
    return made


def binding(node: str) -> dict[str, str]:
    return {"PodName": "web-1", "PodNamespace": "default", "PodUID": POD, "Node": node}


async def prioritized(on: ServiceMachine, config: HooksConfig) -> None:
    request = {"Pod": asked(), "NodeNames": ["node-1", "node-3"]}
    assert (await post("/kubernetes/prioritize", request, on=on, config=config))[0] == 200


def node_of(on: ServiceMachine, uuid: str = POD) -> str:
    return on.state.fleet.consumer(uuid).provider


async def test_a_pod_is_held_on_the_best_node_and_bound_where_it_goes(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    async with kubernetes() as api:
        on = used()
        token = str(tmp_path / "token")
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url, kubernetes_token_file=token)
        await prioritized(on, config)
        assert node_of(on) == "node-3"
        assert POD in on.state.holds
        await prioritized(on, config)  # asked again: it is held once
        assert await post("/kubernetes/bind", binding("node-1"), on=on, config=config) == (200, {"Error": ""})
        assert node_of(on) == "node-1"
        assert POD not in on.state.holds
        ((target, body),) = api.asked
        assert target == "/api/v1/namespaces/default/pods/web-1/binding"
        assert body["target"] == {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
        assert body["metadata"]["uid"] == POD
        assert api.tokens == ["Bearer secret"]


@pytest.mark.parametrize("status", [403, 404, 409, 422])
async def test_what_the_kubernetes_api_refuses_is_an_error_and_holds_nothing(status: int) -> None:
    async with kubernetes() as api:
        on, api.status = used(), status
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        await prioritized(on, config)
        _, answer = await post("/kubernetes/bind", binding("node-3"), on=on, config=config)
        assert f"answered {status}" in answer["Error"]
        assert on.state.fleet._kernel.consumers.get(POD) < 0


def is_charged(on: ServiceMachine) -> bool:
    return on.state.fleet._kernel.consumers.get(POD) >= 0


async def test_the_hold_is_confirmed_before_the_kubernetes_api_is_asked() -> None:
    async with kubernetes() as api:
        on, held = used(), list[bool]()
        api.told = lambda: held.append(POD in on.state.holds)
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        await prioritized(on, config)
        assert (await post("/kubernetes/bind", binding("node-3"), on=on, config=config))[1] == {"Error": ""}
        assert held == [False]


async def test_a_token_that_may_only_ask_binds_nothing() -> None:
    async with kubernetes() as api:
        on = used()
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        await prioritized(on, config)
        token = StaticToken(sha256=hashlib.sha256(b"s").hexdigest(), user="u", roles=("reader",))
        reading = msgspec.structs.replace(config, auth="static", tokens=(token,))
        for node in ("node-3", "node-1"):
            _, answer = await post("/kubernetes/bind", binding(node), on=on, config=reading, x_auth_token="s")
            assert "may only ask" in answer["Error"]
        assert api.asked == []
        assert POD in on.state.holds


@pytest.mark.parametrize("status", [409, 500, 504, None])
async def test_a_binding_without_a_clear_answer_is_read_back(status: int | None) -> None:
    async with kubernetes() as api:
        on = used()
        api.status, api.hangs_up, api.bound_to = status or 500, status is None, "node-3"
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        await prioritized(on, config)
        assert (await post("/kubernetes/bind", binding("node-3"), on=on, config=config))[1] == {"Error": ""}
        assert is_charged(on)
        assert POD not in on.state.holds


async def test_a_pod_that_is_read_back_unbound_is_charged_for_a_while() -> None:
    async with kubernetes() as api:
        on, api.status = used(), 503
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        await prioritized(on, config)
        _, answer = await post("/kubernetes/bind", binding("node-3"), on=on, config=config)
        assert "answered 503" in answer["Error"]
        assert POD in on.state.holds


async def test_a_pod_whose_binding_is_not_known_stays_charged_and_the_next_attempt_reads_it_back() -> None:
    async with kubernetes() as api:
        on = used()
        api.hangs_up, api.status_of_reads = True, 500
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        await prioritized(on, config)
        _, answer = await post("/kubernetes/bind", binding("node-3"), on=on, config=config)
        assert "did not answer" in answer["Error"]
        assert is_charged(on)
        assert POD not in on.state.holds
        _, answer = await post("/kubernetes/bind", binding("node-1"), on=on, config=config)
        assert "answered 500" in answer["Error"], "still not known"
        api.hangs_up, api.status_of_reads, api.bound_to = False, 200, "node-3"
        _, answer = await post("/kubernetes/bind", binding("node-1"), on=on, config=config)
        assert "is bound to node-3" in answer["Error"]
        assert node_of(on) == "node-3"
        assert len(api.asked) == 1
        api.bound_to = ""
        assert (await post("/kubernetes/bind", binding("node-1"), on=on, config=config))[1] == {"Error": ""}
        assert node_of(on) == "node-1"
        assert POD not in on.state.holds


async def test_a_guest_that_is_not_held_and_not_a_pod_stays() -> None:
    async with kubernetes() as api:
        on, api.uid = used(), "another"
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        other = {**binding("node-3"), "PodUID": uuid_of(1)}
        _, answer = await post("/kubernetes/bind", other, on=on, config=config)
        assert "no pod of that uid" in answer["Error"]
        assert node_of(on, uuid_of(1)) == "node-0"
        assert api.asked == []


async def test_a_pod_that_does_not_fit_or_is_not_held_is_not_bound() -> None:
    async with kubernetes() as api:
        on = used()
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        _, answer = await post("/kubernetes/bind", binding("node-3"), on=on, config=config)
        assert "is not held" in answer["Error"]
        request = {"Pod": asked("14"), "NodeNames": ["node-3"]}
        await post("/kubernetes/prioritize", request, on=on, config=config)
        _, answer = await post("/kubernetes/bind", binding("node-0"), on=on, config=config)
        assert answer["Error"]
        assert api.asked == []


async def test_an_api_that_cannot_be_reached_is_an_error() -> None:
    on = used()
    config = HooksConfig(kubernetes_cpu="cores", kubernetes_api="http://127.0.0.1:1")
    await prioritized(on, config)
    _, answer = await post("/kubernetes/bind", binding("node-3"), on=on, config=config)
    assert "cannot be reached" in answer["Error"]


async def test_pods_are_neither_held_nor_bound_without_an_api() -> None:
    on = used()
    await prioritized(on, CORES)
    assert len(on.state.holds) == 0
    _, answer = await post("/kubernetes/bind", binding("node-3"), on=on, config=CORES)
    assert "kubernetes_api" in answer["Error"]


async def test_filter_releases_what_an_earlier_attempt_held() -> None:
    async with kubernetes() as api:
        on = used()
        config = HooksConfig(kubernetes_cpu="cores", kubernetes_api=api.url)
        request = {"Pod": asked("14"), "NodeNames": ["node-3"]}
        await post("/kubernetes/prioritize", request, on=on, config=config)
        _, answer = await post("/kubernetes/filter", request, on=on, config=config)
        assert answer["NodeNames"] == ["node-3"]


def full() -> ServiceMachine:
    """Two nodes of 16 CPUs: on each a guest of 12."""
    made = ServiceMachine()
    made.apply(order(AddHosts(hosts=hosts(2, cpu_allocation_ratio=1.0))))
    for number in range(2):
        made.apply(order(place(number + 1, vcpus=12, force_hosts=[f"node-{number}"]), now=NOW))
    return made


async def test_nodes_are_left_where_the_pod_fits_without_the_victims() -> None:
    on = full()
    victims = {
        "node-0": {"Pods": [{"UID": uuid_of(1)}], "NumPDBViolations": 2},
        "node-1": {"Pods": [{"UID": "static-pod"}, {"UID": uuid_of(9)}], "NumPDBViolations": 0},
        "gone": {"Pods": [], "NumPDBViolations": 0},
    }
    request = {"Pod": asked("8"), "NodeNameToMetaVictims": victims}
    status, answer = await post("/kubernetes/preempt", request, on=on, config=CORES)
    assert (status, answer) == (200, {"NodeNameToMetaVictims": {"node-0": victims["node-0"]}})
    assert node_of(on, uuid_of(1)) == "node-0"


async def test_victims_in_full_are_read_by_their_uids() -> None:
    victims = {"node-1": {"Pods": [{"metadata": {"name": "x", "uid": uuid_of(2)}, "spec": {}}]}}
    request = {"Pod": asked("8"), "NodeNameToVictims": victims}
    _, answer = await post("/kubernetes/preempt", request, on=full(), config=CORES)
    assert answer["NodeNameToMetaVictims"]["node-1"]["Pods"] == [{"UID": uuid_of(2)}]


@pytest.mark.parametrize("path", ["/kubernetes/bind", "/kubernetes/preempt"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 10_000])
async def test_a_malformed_request_is_400(path: str, body: bytes) -> None:
    assert (await post(path, body))[0] == 400
