"""Has a child process follow the service, and judge each decision under a second policy.

The child is a fork, so it begins with the state; it is sent each command that was carried out, and carries it out
itself. Nothing waits for it: what it has no time for is passed over, and one that fails or falls too far behind is
replaced by a new fork."""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Any, Final

import msgspec
import trio

from ...placement.types.errors import HostlerError
from ..errors import InternalError
from ..forks import companion, dismissed
from ..machine.machine import ServiceMachine
from ..machine.order_policies import PolicyValues, service_policy
from ..machine.orders import Order
from ..service import Service
from ..tasks import background
from .judge import ShadowJudge, requests_of
from .status import ShadowCounts, ShadowDifference, ShadowStatus

PART: Final = 256
"""Commands that are sent together."""
JUDGED_BEHIND: Final = 4_096
"""While more commands wait to be sent, those that are sent are not judged."""
MOST_BEHIND: Final = 50_000
"""While more wait, the child is given up for a new fork."""
EXPLAIN_SECONDS: Final = 1.0
"""Between two differences that are explained: an explanation looks at all hosts."""
DIFFERENCES_KEPT: Final = 200
_LENGTH: Final = 4

_encode: Final = msgspec.msgpack.Encoder().encode


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Commands from number ``first`` on, for the child."""

    first: int
    judged: bool
    orders: list[Order]


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What the child found in a part that ended with command ``last``; each difference is a ShadowDifference."""

    last: int
    counts: ShadowCounts
    differences: list[msgspec.Raw] = []
    problem: str = ""


_told: Final = msgspec.msgpack.Decoder(Told)
_difference: Final = msgspec.msgpack.Decoder(ShadowDifference)


class Shadowing:
    """The shadow policy of one service. ``run`` is a task; it raises what ends a child, and may be run again."""

    def __init__(self, service: Service, policy: PolicyValues) -> None:
        """HostlerError if the policy is none."""
        self._service, self._policy = service, policy
        self._digest = service_policy(policy).digest
        self.counts = ShadowCounts()
        self.restarts = 0
        self._differences: deque[bytes] = deque(maxlen=DIFFERENCES_KEPT)
        self._waiting: deque[tuple[int, Order]] = deque()
        self._wake = trio.Event()
        self._followed = 0
        self._scope: trio.CancelScope | None = None
        self._again = self._left_behind = False

    @property
    def running(self) -> bool:
        """True while a child follows."""
        return self._scope is not None

    @property
    def behind(self) -> int:
        """Commands that were carried out and that the child has not reported on."""
        return self._service.writer.sequence - self._followed if self.running else 0

    def replace(self, policy: PolicyValues) -> None:
        """Judge by another policy from now on; what was found under the one before is forgotten. HostlerError if the
        policy is none."""
        digest = service_policy(policy).digest
        if digest == self._digest:
            return
        self._policy, self._digest = policy, digest
        self.counts, self._again = ShadowCounts(), True
        self._differences.clear()
        if self._scope is not None:
            self._scope.cancel()

    def status(self, limit: int = DIFFERENCES_KEPT) -> ShadowStatus:
        """Counts, and the last differences, at most ``limit``."""
        last = list(self._differences)[::-1][:limit]
        return ShadowStatus(
            policy=self._digest,
            running=self.running,
            behind=self.behind,
            restarts=self.restarts,
            counts=self.counts,
            differences=[_difference.decode(each) for each in last],
        )

    async def run(self) -> None:
        """Follow until cancelled. InternalError if the child fails or falls too far behind."""
        while True:
            self._again = False
            await self._follow()
            if not self._again:
                return

    async def _follow(self) -> None:
        begun = trio.Event()
        child: list[tuple[int, socket.socket] | Exception] = []
        writer, given_up = self._service.writer, False

        def begin() -> None:
            if given_up:
                return
            try:
                child.append(companion(self._child))
                self._waiting.clear()
                self._followed = writer.sequence
                writer.observers.append(self._applied)
            except Exception as error:
                child.append(error)
            begun.set()

        writer.at_rest(begin)
        try:
            await begun.wait()
        finally:
            given_up = True
        (found,) = child
        if isinstance(found, Exception):
            raise found
        pid, end = found
        try:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(end))
            with trio.CancelScope() as self._scope:
                async with stream, background() as nursery:
                    nursery.start_soon(self._send, stream)
                    try:
                        await self._receive(stream)
                    finally:
                        nursery.cancel_scope.cancel()
        finally:
            self._scope = None
            self.restarts += 1
            writer.observers.remove(self._applied)
            self.counts.passed_over += sum(len(requests_of(order)) for _, order in self._waiting)
            self._waiting.clear()
            dismissed(pid)
        if self._left_behind:
            self._left_behind = False
            raise InternalError(f"the shadow policy is {MOST_BEHIND} commands behind, and begins again")

    def _applied(self, sequence: int, order: Order, outcome: Any) -> None:
        self._waiting.append((sequence, order))
        self._wake.set()
        if len(self._waiting) > MOST_BEHIND and self._scope is not None:
            self._left_behind = True
            self._scope.cancel()

    async def _send(self, stream: trio.SocketStream) -> None:
        waiting = self._waiting
        while True:
            if not waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            judged = len(waiting) <= JUDGED_BEHIND
            first = waiting[0][0]
            orders = [waiting.popleft()[1] for _ in range(min(len(waiting), PART))]
            data = _encode(Part(first, judged, orders))
            await stream.send_all(len(data).to_bytes(_LENGTH, "big") + data)

    async def _receive(self, stream: trio.SocketStream) -> None:
        data = bytearray()
        while chunk := await stream.receive_some():
            data += chunk
            while len(data) >= _LENGTH:
                end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
                if len(data) < end:
                    break
                self._take(_told.decode(bytes(data[_LENGTH:end])))
                del data[:end]
        raise InternalError("the child that judges by the shadow policy has ended")

    def _take(self, told: Told) -> None:
        if told.problem:
            raise InternalError(f"the shadow policy could not be followed: {told.problem}")
        self._followed = told.last
        self.counts.add(told.counts)
        self._differences.extend(bytes(each) for each in told.differences)

    def _child(self, end: socket.socket) -> None:
        """The work of the child: until the service closes its end."""
        try:
            judge = ShadowJudge(self._service.machine, self._policy)
            explained = -EXPLAIN_SECONDS
            while (head := _read(end, _LENGTH)) is not None:
                data = _read(end, int.from_bytes(head, "big"))
                if data is None:
                    return
                told, explained = _judged(judge, self._service.machine, data, explained)
                _tell(end, told)
        except HostlerError as error:
            _tell(end, Told(0, ShadowCounts(), problem=str(error)))
        except Exception as error:
            _tell(end, Told(0, ShadowCounts(), problem=repr(error)))


def _judged(judge: ShadowJudge, machine: ServiceMachine, data: bytes, explained: float) -> tuple[Told, float]:
    part = msgspec.msgpack.decode(data, type=Part)
    differences: list[msgspec.Raw] = []
    judge.counts = ShadowCounts()
    if part.judged:
        for number, order in enumerate(part.orders):
            explain = time.monotonic() >= explained + EXPLAIN_SECONDS
            for each in judge.judge(part.first + number, order, explain=explain):
                if each.live_explanation is not None:
                    explained = time.monotonic()
                if len(differences) < DIFFERENCES_KEPT:
                    differences.append(msgspec.Raw(_encode(each)))
    else:
        judge.pass_over(part.orders)
    return Told(part.first + len(part.orders) - 1, judge.counts, differences), explained


def _read(end: socket.socket, size: int) -> bytes | None:
    """So many bytes; None at the end of what the service sends."""
    data = bytearray()
    while len(data) < size:
        chunk = end.recv(size - len(data))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _tell(end: socket.socket, told: Told) -> None:
    data = _encode(told)
    end.sendall(len(data).to_bytes(_LENGTH, "big") + data)
