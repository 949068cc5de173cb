"""One configured back end: its driver, opened and reopened, and every call on it, within limits of time and number,
counted by outcome."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio

from ...placement.types.errors import HostlerError, InvalidValue, said
from ..backends.errors import Denied, DriverError, Permanent, Transient, Unknown
from ..backends.loading import find_driver
from ..backends.protocol import AnyDriver, DriverContext, OpenDriver
from .breaker import Backoff, Breaker
from .places import Places
from .work_queue import WorkQueue

T = TypeVar("T")
STEPS_A_CALL: Final = 4
"""Steps that may be under way for each call that may: while some wait for the journal, others call."""
REOPEN: Final = "open"
"""Key of the waits between attempts to open a driver."""
LONGEST_PROBLEM: Final = 1_000
PAUSED_LOOK: Final = 3_600.0
"""Seconds between two looks at a back end that is disabled, unless it is woken."""

REMOVES: Final = ContextVar("removes", default=False)
"""Whether the step of this task removes something."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

log = logging.getLogger("hostler.reconcile")


class BackendConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[backends.NAME]: the name of a driver, and its options. Option values ``env:VARIABLE`` and ``file:/PATH`` stand
    for the variable's value and the file's content. ``images`` and ``networks`` map names that guests use to those of
    the back end; other names are passed on as they are. ``grace``: seconds between the two sightings after which a
    guest of this installation without a claim is removed."""

    driver: str
    options: dict[str, Any] = {}
    images: dict[str, str] = {}
    networks: dict[str, str] = {}
    grace: float = 60.0


class CallCounts:
    """What became of the calls on one back end."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        """By operation and outcome: ``ok`` or the class of the failure."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """By operation: time that calls took, in total."""
        self.orphans_removed = 0
        self.strangers = 0
        """Guests of others at the last inventory."""
        self.strange_volumes = 0
        """Volumes of others at the last inventory."""
        self.builds = 0
        self.build_seconds = 0.0
        """Guests that became active or stopped after a build, and the seconds from claim to confirmation in total."""


class HeldBack(Exception):
    """No call is made now: the back end is disabled, or did not answer. What was to call is begun again later."""


class Backend:
    """A back end while the reconciler runs. ``driver`` is None while it is not open."""

    def __init__(self, name: str, config: BackendConfig, chance: random.Random, opened: OpenDriver | None) -> None:
        self.name, self.config = name, config
        self._opened = opened
        self.driver: AnyDriver | None = None
        self.breaker = Breaker(trio.current_time)
        self.backoff = Backoff(chance)
        self.queue = WorkQueue(trio.current_time)
        self.counts = CallCounts()
        self.enabled: Callable[[], bool] = lambda: True
        self._places = Places(1)
        self.problem: str | None = None
        """Why the driver is not open, or the last call failed; None while all is well."""

    def image(self, name: str) -> str:
        """The back end's name for an image. Permanent for a name that no back end can know."""
        return _checked(self.config.images.get(name, name), "image")

    def network(self, name: str) -> str:
        """The back end's name for a network, as ``image``."""
        return _checked(self.config.networks.get(name, name), "networks")

    def held_back(self) -> float:
        """Seconds until calls may be made; 0.0: now."""
        return self.breaker.wait() if self.enabled() else PAUSED_LOOK

    async def call(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        """``call_now`` once fewer calls than the driver allows are under way; that of a step that REMOVES something
        goes before others. HeldBack if none is made by then, or the driver is not the one that it was."""
        async with self._place():
            return await self.call_now(operation, work)

    async def call_within(self, seconds: float, operation: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """The same; a call that has been made is given up after some seconds: then None."""
        async with self._place():
            with trio.move_on_after(seconds):
                return await self.call_now(operation, work)
        return None

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        driver = self.driver
        async with self._places.one(urgent=REMOVES.get()):
            if driver is None or self.driver is not driver or self.held_back() > 0:
                raise HeldBack(self.name)
            yield

    async def call_now(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        """One call on the driver, within its time limit, however many others are under way. DriverError of some class,
        whatever the driver raised."""
        assert self.driver is not None
        self.breaker.begin()
        began, outcome = trio.current_time(), "cancelled"
        try:
            with trio.fail_after(self.driver.facts.timeout):
                result = await work()
            outcome = "ok"
            self.breaker.answered()
            self.problem = None
            return result
        except trio.TooSlowError:
            outcome = Unknown.failure
            raise self._unanswered(Unknown(f"{operation}: no answer in {self.driver.facts.timeout:g} s")) from None
        except DriverError as error:
            outcome = error.failure
            if isinstance(error, Transient | Unknown) and not error.nodes:
                self._unanswered(error)
            else:
                self.breaker.answered()
            raise
        except trio.Cancelled:
            self.breaker.given_up()
            raise
        except Exception as error:  # a fault of the driver: it is not known what it did
            log.exception("driver %s of back end %s failed in %s", self.config.driver, self.name, operation)
            outcome = Unknown.failure
            raise self._unanswered(Unknown(f"{operation}: {said(error)}")) from error
        finally:
            self.counts.calls[operation, outcome] += 1
            self.counts.seconds[operation] += trio.current_time() - began

    def _unanswered(self, error: DriverError) -> DriverError:
        self.breaker.unanswered()
        self.problem = str(error)[:LONGEST_PROBLEM]
        return error

    async def keep_open(
        self, installation: str, work: Callable[[], Awaitable[None]], denied: Callable[[str], Awaitable[None]]
    ) -> None:
        """Open the driver and do ``work`` with it, for ever; after a failure, be it a fault of the driver while it is
        open or when it is closed, it is opened again. ``denied`` is called when the credentials are refused."""
        while True:
            began = time.monotonic()
            try:
                async with AsyncExitStack() as stack:
                    self.driver, self.problem = await self._open(stack, installation), None
                    self.backoff.forget(REOPEN)
                    self._places = Places(self.driver.facts.concurrency)
                    try:
                        await work()
                    finally:
                        self.driver = None
            except Denied as error:
                self.problem = str(error)[:LONGEST_PROBLEM]
                await denied(self.problem)
            except HostlerError as error:
                self._log_problem(error)
            except Exception as error:  # of this back end alone: others go on
                log.exception("driver %s of back end %s failed", self.config.driver, self.name)
                self.problem = f"the driver failed: {said(error)}"[:LONGEST_PROBLEM]
            log.debug("back end %s was open for %.0f s", self.name, time.monotonic() - began)
            await trio.sleep(self.backoff.next(REOPEN))

    async def _open(self, stack: AsyncExitStack, installation: str) -> AnyDriver:
        """The driver, open as long as the stack is. A fault of the driver is an error of its back end alone."""
        try:
            opened = self._opened if self._opened is not None else await trio.to_thread.run_sync(self._find)
            context = DriverContext(self.name, installation)
            return await stack.enter_async_context(opened(await self._options(), context))
        except HostlerError:
            raise
        except Exception as error:
            log.exception("driver %s of back end %s failed when it was opened", self.config.driver, self.name)
            raise Unknown(f"the driver failed when it was opened: {said(error)}") from error

    async def _options(self) -> dict[str, Any]:
        if any(_is_file(value) for value in self.config.options.values()):
            return await trio.to_thread.run_sync(resolved, self.config.options)
        return resolved(self.config.options)

    def _find(self) -> OpenDriver:
        return find_driver(self.config.driver)

    def _log_problem(self, error: BaseException) -> None:
        text = str(error)[:LONGEST_PROBLEM]
        if text != self.problem:
            log.error("back end %s is not open: %s", self.name, text)
        self.problem = text


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.startswith("file:/")


def resolved(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the values that are kept elsewhere. InvalidValue, naming the option, if one is not there."""
    found = {}
    for name, value in options.items():
        if isinstance(value, str) and value.startswith("env:"):
            text = os.environ.get(value.removeprefix("env:"))
            if text is None:
                raise InvalidValue(f"there is no variable {value.removeprefix('env:')}", field=f"options.{name}")
            value = text
        elif _is_file(value):
            try:
                value = Path(value.removeprefix("file:")).read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidValue(f"{value} cannot be read: {error}", field=f"options.{name}") from error
        found[name] = value
    return found


def _checked(name: str, field: str) -> str:
    if _CONTROL.search(name):
        raise Permanent(f"{name!r} has control characters", field=field)
    return name
