"""A bench for the driver hmc: a stand-in for a console, behind a proxy that loses answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Literal

from hostler.drivers.compute import hmc
from hostler.drivers.conformance import ComputeBench
from hostler.drivers.protocol import DriverContext

from .fault_proxy import FaultProxy
from .hmc_console import Console


@contextmanager
def before(console: Console) -> Iterator[FaultProxy]:
    """A proxy before a console that answers."""
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
