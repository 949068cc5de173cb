"""The model back end passes the conformance suite, in memory and in a file, with and without faults."""

from __future__ import annotations

import fcntl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

from hostler.drivers.conformance import ComputeBench, ComputeConformance, StorageBench, StorageConformance, new_uuid
from hostler.drivers.model.driver import Faults, ModelDriver, Options, Wire
from hostler.drivers.model.world import World
from hostler.drivers.protocol import Connection, DriverContext, Mark, Transient, Unknown, computes, find_driver

from ..patience import HANG_SECONDS
from .outages import Outages

FORMS = ("memory", "file", "slow")


class Bench:
    """A model and the way to it."""

    def __init__(self, form: str, folder: Path) -> None:
        file = folder / "model.json" if form == "file" else None
        self.clock = time.time if file is not None else trio.current_time
        self.options = Options(page=3, file=None if file is None else str(file))
        self.world = World(self.clock, file, build_seconds=0.02 if form == "slow" else 0.0)
        self.world.add(nodes=2, pools=1)
        faults = Faults(delay=0.002 if form == "slow" else 0.0)
        self.wire = Wire(self.world, faults, self.clock)
        self.outage = Outages()

    @asynccontextmanager
    async def open(self, context: DriverContext) -> AsyncIterator[ModelDriver]:
        driver = ModelDriver(self.wire, context.installation, self.options)
        carry_out = driver._done

        async def done(work: Callable[[], Any]) -> Any:
            lost, arrives = self.outage.fate()
            answer = await carry_out(work) if arrives else None
            if lost:
                raise (Unknown if arrives else Transient)("the model is gone")
            return answer

        driver._done = done  # type: ignore[method-assign]  # on its way, requests and answers are lost
        yield driver

    @contextmanager
    def hang(self) -> Iterator[None]:
        self.wire.hanging = trio.Event()
        yield
        self.wire.hanging.set()
        self.wire.hanging = None

    @contextmanager
    def lose_answers(self) -> Iterator[None]:
        self.wire.faults.lost_answers = 1.0
        yield
        self.wire.faults.lost_answers = 0.0

    @contextmanager
    def other_node_down(self) -> Iterator[None]:
        for state in ("down", "up"):
            with self.world.content() as there:
                there.nodes["node-1"].state = state
            if state == "down":
                yield

    async def make_stranger(self) -> str:
        return self.world.make_strangers_guest("node-1")

    async def make_volume(self) -> Connection:
        return Connection(volume=new_uuid(), protocol="model", address="volume")

    async def change_outside(self, uuid: str, what: Literal["stop", "remove"]) -> None:
        with self.world.content() as there:
            for guest in list(there.guests.values()):
                mark = Mark.parse(guest.mark)
                if mark is not None and mark.uuid == uuid and what == "stop":
                    guest.power = "off"
                elif mark is not None and mark.uuid == uuid:
                    del there.guests[guest.key]


class TestModelComputes(ComputeConformance):
    @pytest.fixture(params=FORMS)
    def bench(self, request: pytest.FixtureRequest, tmp_path: Path) -> ComputeBench:
        made = Bench(request.param, tmp_path)
        return ComputeBench(
            open=made.open,
            node="node-0",
            lose_answers=made.lose_answers,
            outage=made.outage,
            hang=made.hang,
            make_stranger=made.make_stranger,
            change_outside=made.change_outside,
            other_node="node-1",
            other_node_down=made.other_node_down,
            make_volume=made.make_volume,
            page=7,
        )


class TestModelStores(StorageConformance):
    @pytest.fixture(params=FORMS)
    def bench(self, request: pytest.FixtureRequest, tmp_path: Path) -> StorageBench:
        made = Bench(request.param, tmp_path)
        return StorageBench(
            open=made.open,
            pool="pool-0",
            node="node-0",
            lose_answers=made.lose_answers,
            outage=made.outage,
            hang=made.hang,
            page=7,
        )


async def test_a_model_is_found_by_its_entry_point_and_reads_its_options() -> None:
    opened = find_driver("model")
    async with opened({"nodes": 5, "prefix": "a-"}, DriverContext("a", "x")) as driver:
        assert computes(driver)
        nodes = [node.name async for page in driver.nodes() for node in page.items]
    assert nodes == [f"a-node-{number}" for number in range(5)]


async def test_a_request_given_up_on_its_way_may_arrive_later(tmp_path: Path) -> None:
    made = Bench("memory", tmp_path)
    made.wire.faults = Faults(seed=1, late=1.0, delay=1.0)
    bench = ComputeBench(open=made.open, node="node-0")
    async with bench.driver() as driver:
        with trio.move_on_after(0.001):
            await driver.create_guest(bench.spec())
        assert not made.world.creations
        made.wire.settle_all()
        assert len(made.world.creations) == 1


@pytest.mark.parametrize(("faults", "error"), [(Faults(lost_requests=1), Transient), (Faults(lost_answers=1), Unknown)])
async def test_lost_requests_are_transient_and_lost_answers_unknown(
    tmp_path: Path, faults: Faults, error: type[Exception]
) -> None:
    made = Bench("memory", tmp_path)
    made.wire.faults = faults
    bench = ComputeBench(open=made.open, node="node-0")
    async with bench.driver() as driver:
        with pytest.raises(error):
            await driver.create_guest(bench.spec())


async def test_a_call_on_a_file_that_was_given_up_before_its_turn_is_not_made_behind_later_ones(tmp_path: Path) -> None:
    made = Bench("file", tmp_path)
    bench = ComputeBench(open=made.open, node="node-0")
    spec = bench.spec()
    async with bench.driver() as driver:
        await driver.create_guest(spec)
        with (tmp_path / "model.lock").open("a") as lock:  # as another process has it
            fcntl.flock(lock, fcntl.LOCK_EX)
            with trio.move_on_after(0.05):
                await driver.set_power(spec.mark.uuid, "off")
        with trio.fail_after(HANG_SECONDS):
            while driver._threads.borrowed_tokens:  # type: ignore[attr-defined]  # noqa: ASYNC110  # its thread has no event
                await trio.sleep(0.01)
        assert (await driver.get_guest(spec.mark.uuid)).state == "on"
