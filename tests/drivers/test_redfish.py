"""The driver redfish passes the conformance suite on sushy-tools' emulator with fake machines, behind a proxy that
loses answers. The emulator reports no CPUs and memory of fake machines, takes no asset tags, sends no ETags and refuses
nothing for want of room; the seconds that its machines take to switch are left out here."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import trio

pytest.importorskip("sushy_tools", reason="sushy-tools is not installed")

from sushy_tools.emulator import main as emulator  # after the skip
from sushy_tools.emulator.resources.systems import fakedriver  # after the skip
from werkzeug.serving import make_server  # after the skip

from hostler.drivers.compute import redfish  # after the skip
from hostler.drivers.conformance import ComputeBench, ComputeConformance  # after the skip
from hostler.drivers.protocol import (  # after the skip
    Capacity,
    Denied,
    DriverContext,
    DriverError,
    NotFound,
    Permanent,
    Transient,
    Unknown,
)
from hostler.placement.types.errors import InvalidValue  # after the skip

from .fault_proxy import Answer, FaultProxy  # after the skip

NODES = 3


def system(number: int) -> str:
    return f"/redfish/v1/Systems/00000000-0000-4000-8000-{number:012d}"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    patch = pytest.MonkeyPatch()
    patch.setattr(fakedriver.random, "randint", lambda low, high: 0)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    systems = [
        {"uuid": system(each).rpartition("/")[2], "name": f"node-{each}", "power_state": "Off", "nics": []}
        for each in range(1, NODES + 1)
    ]
    emulator.app.configure(
        extra_config={
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_FAKE_SYSTEMS": systems,
            "SUSHY_EMULATOR_STATE_DIR": str(tmp_path_factory.mktemp("state")),
        }
    )
    server = make_server("127.0.0.1", 0, emulator.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield "127.0.0.1", server.server_port
    server.shutdown()
    thread.join()
    patch.undo()


@pytest.fixture
def proxy(machines: tuple[str, int]) -> Iterator[FaultProxy]:
    with FaultProxy(*machines, lambda request: request.method != "GET").running() as proxy:
        yield proxy


def options(proxy: FaultProxy, marks: Path, **more: Any) -> dict[str, Any]:
    return {"endpoint": proxy.endpoint, "marks": str(marks), "vcpus": 16, "memory_mb": 65_536, **more}


def reset(proxy: FaultProxy, number: int, kind: str) -> None:
    url = f"{proxy.endpoint}{system(number)}/Actions/ComputerSystem.Reset"
    httpx.post(url, json={"ResetType": kind}).raise_for_status()


def bench_of(proxy: FaultProxy, marks: Path) -> ComputeBench:
    async def make_stranger() -> str:
        await trio.to_thread.run_sync(reset, proxy, 3, "On")
        return "node-3"

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        if what == "stop":
            await trio.to_thread.run_sync(reset, proxy, 1, "ForceOff")
        else:
            (marks / "node-1.mark").unlink()

    return ComputeBench(
        open=lambda context: redfish.open_driver(options(proxy, marks), context),
        node="node-1",
        vcpus=16,
        memory_mb=65_536,
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        page=1,  # a machine takes one guest
    )


class TestRedfishComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, tmp_path: Path) -> ComputeBench:
        return bench_of(proxy, tmp_path)


async def test_a_machine_boots_once_from_the_device_of_its_image(proxy: FaultProxy, tmp_path: Path) -> None:
    bench = bench_of(proxy, tmp_path)
    async with bench.driver() as driver:
        spec = bench.spec()._replace(image="Cd")
        await driver.create_guest(spec)
        async with httpx.AsyncClient() as client:
            boot = (await client.get(proxy.endpoint + system(1))).json()["Boot"]
        assert boot["BootSourceOverrideTarget"] == "Cd"
        await driver.delete_guest(spec.mark.uuid)
        with pytest.raises(Permanent, match="no boot device"):
            await driver.create_guest(bench.spec()._replace(image="debian"))


async def test_a_machine_takes_one_guest(proxy: FaultProxy, tmp_path: Path) -> None:
    bench = bench_of(proxy, tmp_path)
    async with bench.driver() as driver:
        spec = bench.spec()
        await driver.create_guest(spec)
        with pytest.raises(Capacity, match="taken"):
            await driver.create_guest(bench.spec())
        await driver.delete_guest(spec.mark.uuid)


async def test_a_machine_that_is_on_without_a_mark_is_not_taken(proxy: FaultProxy, tmp_path: Path) -> None:
    bench = bench_of(proxy, tmp_path)
    async with bench.driver() as driver:
        reset(proxy, 2, "On")
        with pytest.raises(Capacity, match="is on"):
            await driver.create_guest(bench.spec()._replace(node="node-2"))
        assert not os.listdir(tmp_path)
        reset(proxy, 2, "ForceOff")


async def test_machines_with_services_of_their_own_may_be_silent(proxy: FaultProxy, tmp_path: Path) -> None:
    systems = {"rack-1/a": proxy.endpoint + system(1), "rack-1/b": "http://127.0.0.1:9/redfish/v1/Systems/1"}
    chosen = {**options(proxy, tmp_path), "endpoint": "", "systems": systems}
    async with redfish.open_driver(chosen, DriverContext("a", "conformance-a")) as driver:
        nodes = {node.name: node.state async for page in driver.nodes() for node in page.items}
        assert nodes == {"rack-1/a": "up", "rack-1/b": "down"}
        spec = bench_of(proxy, tmp_path).spec()._replace(node="rack-1/a")
        assert (await driver.create_guest(spec)).state == "on"
        await driver.delete_guest(spec.mark.uuid)


def error_body(message: str) -> bytes:
    return f'{{"error": {{"code": "Base.1.8.{message}", "message": "no"}}}}'.encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(503, {"Retry-After": "30"}, b"<html>"), Transient),
        (Answer(500, {}, b"<html>"), Unknown),
        (Answer(401, {}, b""), Denied),
        (Answer(400, {}, error_body("InsufficientPrivilege")), Denied),
        (Answer(400, {}, error_body("ResourceInUse")), Transient),
        (Answer(400, {}, error_body("PropertyValueNotInList")), Permanent),
        (Answer(404, {}, b""), NotFound),
    ],
)
async def test_a_refused_reset_is_an_error_of_its_class(
    proxy: FaultProxy, tmp_path: Path, answer: Answer, expected: type[DriverError]
) -> None:
    bench = bench_of(proxy, tmp_path)
    async with bench.driver() as driver:
        spec = bench.spec()
        proxy.instead = lambda request: answer if request.method == "POST" else None
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(spec)
        assert type(caught.value) is expected
        proxy.instead = lambda request: None
        await driver.delete_guest(spec.mark.uuid)


@pytest.mark.parametrize("body", [b"{}", b'{"Members": null}', b'{"Members": [{}]}'])
async def test_another_document_is_no_empty_listing(proxy: FaultProxy, tmp_path: Path, body: bytes) -> None:
    async with bench_of(proxy, tmp_path).driver() as driver:
        proxy.instead = lambda request: Answer(200, {}, body)
        for listing in (driver.guests, driver.nodes):
            with pytest.raises(Transient, match="no list of systems"):
                [page async for page in listing()]


async def test_a_mark_file_that_cannot_be_read_is_said(proxy: FaultProxy, tmp_path: Path) -> None:
    async with bench_of(proxy, tmp_path).driver() as driver:
        (tmp_path / "node-1.mark").write_text("something else")
        with pytest.raises(Permanent, match="no mark file"):
            await driver.create_guest(bench_of(proxy, tmp_path).spec())


@pytest.mark.parametrize("wrong", [{"endpoint": ""}, {"systems": {"a": "http://b"}}, {"marks": "/no/such/folder"}])
async def test_wrong_options_are_refused(proxy: FaultProxy, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        async with redfish.open_driver({**options(proxy, tmp_path), **wrong}, DriverContext("a", "b")):
            pass
