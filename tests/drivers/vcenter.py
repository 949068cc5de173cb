"""vcsim behind a proxy that loses answers, and an independent client of it. vcsim is found as the program of that name,
or where the variable VCSIM says."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import pytest

pytest.importorskip("pyVmomi", reason="pyvmomi is not installed")

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from hostler.bench.free_ports import free_ports
from hostler.drivers.compute import vsphere
from hostler.drivers.conformance import ComputeBench
from hostler.drivers.conformance.bench import OURS, new_uuid
from hostler.drivers.protocol import Connection, DriverContext, Mark, VolumeSpec

from ..patience import HANG_SECONDS
from .fault_proxy import FaultProxy, Request

VCSIM = os.environ.get("VCSIM") or shutil.which("vcsim")
if VCSIM is None:
    pytest.skip("vcsim is not installed", allow_module_level=True)

STORE = "LocalDS_0"
CLUSTER, HOST = "DC0_C0", "DC0_H0"
"""A cluster of three hosts, and a host outside of clusters, each with two virtual machines."""


def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    (port,) = free_ports(1)
    environment = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("vcsim"))}
    process = subprocess.Popen([str(VCSIM), "-l", f"127.0.0.1:{port}"], env=environment, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + HANG_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "vcsim ended"
                assert time.monotonic() < until, "vcsim does not listen"
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def independent_client(port: int) -> Iterator[Any]:
    """An independent client."""
    context = ssl._create_unverified_context()
    instance = SmartConnect(host="127.0.0.1", port=port, user="user", pwd="pass", sslContext=context)
    yield instance.content
    Disconnect(instance)


def changes(request: Request) -> bool:
    """Whether a request begins a task: it names the method in its body."""
    return b"_Task " in request.body or b"_Task>" in request.body


def losing_proxy(port: int) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", port, changes, tls=True).running() as proxy:
        yield proxy


def opener(address: str, **more: Any) -> Callable[[DriverContext], AbstractAsyncContextManager[vsphere.VsphereDriver]]:
    options = {"endpoint": address, "username": "user", "password": "pass", "shutdown_seconds": 0.0, **more}
    return lambda context: vsphere.open_driver(options, context)


def machine(client: Any, uuid: str) -> Any:
    return client.searchIndex.FindByUuid(None, uuid, True, True)


def done(task: Any) -> Any:
    while task.info.state not in ("success", "error"):
        time.sleep(0.01)
    assert task.info.state == "success", task.info.error
    return task.info.result


def disks(devices: Any) -> list[int]:
    """Sizes of disks, in KiB."""
    return [each.capacityInKB for each in devices if isinstance(each, vim.vm.device.VirtualDisk)]


def bench_of(proxy: FaultProxy, client: Any, **more: Any) -> ComputeBench:
    async def make_stranger() -> str:
        center = client.rootFolder.childEntity[0]
        pool = next(each for each in center.hostFolder.childEntity if each.name == CLUSTER).resourcePool
        files = vim.vm.FileInfo(vmPathName=f"[{center.datastore[0].name}]")
        spec = vim.vm.ConfigSpec(name=f"theirs-{new_uuid()}", numCPUs=1, memoryMB=32, guestId="otherGuest", files=files)
        return str(done(center.vmFolder.CreateVM_Task(config=spec, pool=pool))._moId)

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        found = machine(client, uuid)
        if found.runtime.powerState == "poweredOn":
            done(found.PowerOffVM_Task())
        if what == "remove":
            done(found.Destroy_Task())

    async def make_volume() -> Connection:
        async with opener(proxy.endpoint, **more)(DriverContext("volumes", OURS)) as driver:
            spec = VolumeSpec(Mark(OURS, new_uuid(), 1), "volume", STORE, 1)
            await driver.create_volume(spec)
            return await driver.connect(spec.mark.uuid, CLUSTER)

    return ComputeBench(
        open=opener(proxy.endpoint, **more),
        make_volume=make_volume,
        node=CLUSTER,
        other_node=HOST,
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        page=5,
        disk_gb=1,
    )


def guests_bench(proxy: FaultProxy, client: Any) -> ComputeBench:
    return bench_of(proxy, client, page=2)
