"""The driver hmc passes the conformance suite on a stand-in for a console, behind a proxy that loses answers. It has
never been run on a console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

from hostler.drivers.compute import hmc
from hostler.drivers.conformance import ComputeBench, ComputeConformance
from hostler.drivers.protocol import DriverContext

from .fault_proxy import FaultProxy
from .hmc_console import Console


@pytest.fixture
def console() -> Console:
    return Console(ready=0.03)


@pytest.fixture
def proxy(console: Console) -> Iterator[FaultProxy]:
    with (
        console.served() as (host, port),
        FaultProxy(host, port, lambda request: request.method != "GET").running() as proxy,
    ):
        yield proxy


def opener(proxy: FaultProxy, **more: Any) -> Callable[[DriverContext], AbstractAsyncContextManager[hmc.HmcDriver]]:
    options = {
        "endpoint": proxy.endpoint,
        "username": "user",
        "password": "se<cr>et",
        "shutdown_seconds": 0.5,
        "look_seconds": 0.01,
        **more,
    }
    return lambda context: hmc.open_driver(options, context)


def bench_of(proxy: FaultProxy, console: Console, **more: Any) -> ComputeBench:
    async def make_stranger() -> str:
        return console.make("www", memory=2_048).key

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        found = console.of_uuid(uuid)
        if what == "stop":
            found.state = "not activated"
        else:
            del console.partitions[found.key]

    return ComputeBench(
        open=opener(proxy, **more),
        node="Server-1",
        memory_mb=1_024,
        other_size=(2, 2_048),
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
    )


class TestHmcComputes(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, console: Console) -> ComputeBench:
        return bench_of(proxy, console)


@pytest.fixture
def bench(proxy: FaultProxy, console: Console) -> ComputeBench:
    return bench_of(proxy, console)
