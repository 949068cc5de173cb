"""Back ends that go away in the midst of their work, by the number of their requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import trio

from hostler.drivers.conformance import Outage
from hostler.drivers.protocol import DriverError


class Fate(NamedTuple):
    """What becomes of a request: no answer comes (``lost``); it is carried out (``arrives``)."""

    lost: bool
    arrives: bool


class Outages:
    """Counts requests and decides what becomes of each. It may be asked in any thread."""

    def __init__(self) -> None:
        self._lock, self._outage = threading.Lock(), Outage()
        self._left, self._carried_out = 0, False
        self.under_way = False
        self._going_on = threading.Event()
        self._going_on.set()

    def fate(self) -> Fate:
        """That of one more request."""
        with self._lock:
            if not self.under_way:
                return Fate(lost=False, arrives=True)
            self._outage.requests += 1
            self._left -= 1
            self._outage.reached |= self._left < 0
            arrives = self._left >= 0 or (self._left == -1 and self._carried_out)
            return Fate(self._left < 0, arrives)

    @property
    def gone(self) -> bool:
        """True while nothing is answered."""
        return self.under_way and self._outage.reached

    @property
    def hangs(self) -> bool:
        """True within ``hang``."""
        return not self._going_on.is_set()

    def wait(self) -> None:
        """In a thread: return once nothing hangs."""
        self._going_on.wait()

    @contextmanager
    def hang(self) -> Iterator[None]:
        """Within it, nothing is answered; what was asked is carried out at its end."""
        self._going_on.clear()
        try:
            yield
        finally:
            self._going_on.set()

    @contextmanager
    def __call__(self, requests: int, carried_out: bool) -> Iterator[Outage]:
        """Within it, so many requests are answered, and none after that. ``carried_out``: the first of those is."""
        with self._lock:
            self._outage, self._left, self._carried_out, self.under_way = Outage(), requests, carried_out, True
        try:
            yield self._outage
        finally:
            with self._lock:
                self.under_way = False


def of_programs(monkeypatch: pytest.MonkeyPatch, *modules: Any, outages: Outages | None = None) -> Outages:
    """Outages of the programs that modules run: each run is a request, and one that is lost was killed, before its work
    or after it. While they hang, a real program runs that does not end, and after that the one that was asked for."""
    found = Outages() if outages is None else outages
    run = modules[0].run_program

    async def run_program(line: list[str], failed: Callable[[int, str], type[DriverError]], **options: Any) -> str:
        lost, arrives = found.fate()
        if found.hangs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_run_until, nursery.cancel_scope, found)
                await run(["sleep", "600"], failed, **options)
        printed = await run(line, failed, **options) if arrives else ""
        if lost:
            raise failed(-9, "")(f"{line[0]} ended with -9", backend_code="-9")
        return str(printed)

    for module in modules:
        monkeypatch.setattr(module, "run_program", run_program)
    return found


async def _run_until(scope: trio.CancelScope, outages: Outages) -> None:
    while outages.hangs:  # noqa: ASYNC110  # an event of threads
        await trio.sleep(0.005)
    scope.cancel()
