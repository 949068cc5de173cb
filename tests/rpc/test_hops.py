"""How many functions of Hostler a placement enters between its message and its answer. Each call costs some 50 ns, so
that a layer which converts, checks or looks up once more shows here and not in any time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import pytest
import trio

from hostler import Host
from hostler.core.engine_commands import AddHosts
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.rpc.messages import encode
from hostler.core.rpc.server import RpcServer
from hostler.core.rpc.session import Session
from hostler.core.service import Identity, Service
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import open_writer


class _Outlet:
    waiting_bytes = 0

    def __init__(self) -> None:
        self.missing = 0
        self.complete = trio.Event()

    def expect(self, answers: int) -> None:
        self.missing, self.complete = answers, trio.Event()

    def send(self, data: bytes, *, soon: bool = False) -> None:
        self.missing -= 1
        if not self.missing:
            sys.setprofile(None)
            self.complete.set()

    def settled(self) -> None:
        raise AssertionError("each call expects an answer")

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        raise AssertionError("placements are not answered aside")


def _place(number: int) -> bytes:
    flavor = {"name": "small", "vcpus": 1, "memory_mb": 512}
    return encode((0, number, "place", [{"request": {"spec": {"flavor": flavor}, "project_id": "p"}}]))


async def _calls_of(placements: int) -> int:
    """Functions entered for so many placements that arrive together."""
    entered = 0

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal entered
        if event == "call" and "/hostler/" in frame.f_code.co_filename:
            entered += 1

    machine = ServiceMachine()
    async with open_writer(machine) as writer:
        service, outlet = Service(machine, writer, open_to_all=True), _Outlet()
        hosts = [
            Host(host=f"n{i}", vcpus_total=64, total_usable_ram_mb=10**6, total_usable_disk_gb=10**4)
            for i in range(1000)
        ]
        await writer.submit(Order(1.0, LOCAL, AddHosts(hosts=tuple(hosts))))
        session = Session(service, RpcServer(service).watchers, Identity(LOCAL), outlet, answer_bytes=1 << 26)
        outlet.expect(1)
        session.feed(_place(1))
        await outlet.complete.wait()
        outlet.expect(placements)
        frames = [_place(number) for number in range(2, 2 + placements)]
        sys.setprofile(count)
        try:
            for frame in frames:
                session.feed(frame)
            await outlet.complete.wait()
        finally:
            sys.setprofile(None)
    return entered


@pytest.mark.parametrize(("placements", "most"), [(1, 120), (1024, 25.5)])
async def test_a_placement_enters_few_functions(placements: int, most: float) -> None:
    assert await _calls_of(placements) / placements <= most
