"""oslo.messaging's RPC server with a limit on the messages that it takes at a time, the age of each message, and a
count of lost connections. Beyond the limit messages stay with the broker, which drops those whose callers gave up. A
call that is not carried out can be given back to the broker, for the next server that takes calls."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import oslo_messaging
from oslo_messaging.rpc.server import RPCServer

from ....core.process.bus_metrics import BusMetrics
from .waiting import WaitBound, age_of

log = logging.getLogger("hostler.nova")

RABBIT_LOGGER: Final = "oslo.messaging._drivers.impl_rabbit"
WAITED_SECONDS: Final = 1.0
"""A call that may have waited for longer is carried out if its caller's queue for answers is still there."""
GIVE_BACK_RETRIES: Final = 2
"""How often a call is sent again to a broker that does not answer."""


class GivenBack(Exception):
    """The call was not carried out here, and is sent again. Its caller hears nothing of this."""


class Waiting(Protocol):
    """When a message came, how long its caller waits, and which call it is."""

    received: float
    waited: float
    patience: float | None
    id: str


class _Message(threading.local):
    """The message that a thread carries out."""

    received: float = 0.0
    waited: float = 0.0
    patience: float | None = None
    id: str = ""


current: Final[Waiting] = _Message()
"""The message that this thread carries out. ``received``: when it came, by ``time.monotonic``; ``waited``: seconds for
which it may have been with the broker before; ``patience``: seconds after which its caller gives up unless it hears of
the call, None if the caller did not say; ``id``: the same where a call was given back and comes again, empty if the bus
tells none."""


class _Withheld:
    """A message that is not replied to where its call was given back."""

    def __init__(self, message: Any, give_back: Callable[[Any], None]) -> None:
        self._message, self._give_back = message, give_back

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        """Answer the caller, or have the call sent again."""
        if failure is not None and isinstance(failure[1], GivenBack):
            self._give_back(self._message)
        else:
            self._message.reply(reply, failure)


class BoundedServer(RPCServer):  # type: ignore[misc]  # oslo.messaging is not typed
    """An RPC server that carries out at most so many messages at a time, and takes no more than these."""

    def bound(self, limit: int, metrics: BusMetrics, seconds: float, clock: Callable[[], float]) -> None:
        """Take at most ``limit`` messages at a time, and count them. ``seconds``: for which a call that is given back
        waits, unless its caller said how long it does. ``clock``: seconds since the epoch. To be called before the
        start."""
        self._clock = clock
        self.conf.set_override("executor_thread_pool_size", limit)
        self._free, self._metrics, self._given_back_seconds = threading.BoundedSemaphore(limit), metrics, seconds
        self._begun = self._abandoned = self._finished = False
        self._turn = threading.Lock()
        self.waiting, self._ended = WaitBound(), threading.Event()

    def begin(self) -> None:
        """Connect, for as long as it takes, and take messages, unless it is ended meanwhile."""
        self.start()
        self.waiting.ready()
        threading.Thread(target=self.waiting.beat_until, args=(self._ended,), daemon=True).start()
        with self._turn:
            self._begun = not self._abandoned
        if not self._begun:
            self.finish()

    def end(self) -> None:
        """`finish`, once; a server that is not connected yet gives back what it takes once it is."""
        with self._turn:
            finishes, self._abandoned = self._begun and not self._finished, not self._begun
            self._finished |= finishes
        if finishes:
            self.finish()

    def finish(self) -> None:
        """Stop taking messages, carry out those that were taken, and close the connection. While oslo.messaging 18
        closes it (it has its fan-out queue deleted, and reads until that is done), it acknowledges messages that it
        then forgets: they are carried out here."""
        self.stop()
        self.wait()
        for message in getattr(getattr(self.listener, "_poll_style_listener", None), "incoming", ()):
            self._process_incoming([message])
        self._ended.set()

    def _on_incoming(self, incoming: Any) -> None:
        waited = self.waiting.taken(age_of(incoming[0].ctxt, self._clock()) if _is_call(incoming[0]) else None)
        try:
            self._submit(incoming, waited)
        finally:
            self.waiting.ready()

    def _submit(self, incoming: Any, waited: float) -> None:
        self._free.acquire()  # the thread that receives waits; so does what is still with the broker
        self._metrics.begun()
        try:
            self._work_executor.submit(self._process_incoming, incoming, waited).add_done_callback(self._done)
        except BaseException:
            self._done()
            raise

    def _done(self, _: object = None) -> None:
        self._metrics.ended()
        self._free.release()

    def _process_incoming(self, incoming: Any, waited: float = 0.0) -> None:
        message = incoming[0]
        watch = getattr(message, "stopwatch", None)
        current.received = time.monotonic() - (0.0 if watch is None else watch.elapsed())
        current.patience = _seconds(message.client_timeout)
        current.waited, current.id = waited, str(getattr(message, "msg_id", None) or "")
        if self._abandoned and _is_call(message):
            self._give_back(message)
        elif waited > WAITED_SECONDS and _has_gone(message):
            self._metrics.called(str(message.message.get("method")), "gave_up", time.monotonic() - current.received)
        else:
            super()._process_incoming([_Withheld(message, self._give_back)])

    def _give_back(self, message: Any) -> None:
        """Send a call again, by the name and to the reply queue that it came with. It is lost if that fails, and left
        to its caller, who hears nothing more of it."""
        id, reply_queue = getattr(message, "msg_id", None), getattr(message, "reply_q", None)
        try:
            if not id or not reply_queue:  # the bus in memory
                message.requeue()
                return
            patience = _seconds(message.client_timeout)
            left = (patience or self._given_back_seconds) - message.stopwatch.elapsed()
            if left > 0:
                given = {**message.message, "_msg_id": id, "_reply_q": reply_queue, "_timeout": message.client_timeout}
                target = oslo_messaging.Target(exchange=self._target.exchange, topic=self._target.topic)
                self.transport._send(target, message.ctxt, given, timeout=left, retry=GIVE_BACK_RETRIES)
        except Exception as error:  # whatever the library raises
            log.warning("a call could not be given back to the bus: %s", error)


def _is_call(message: Any) -> bool:
    """Whether a caller waits for an answer."""
    return bool(getattr(message, "msg_id", None) or getattr(message, "_reply_q", None))


def _has_gone(message: Any) -> bool:
    """Whether the process of the caller is gone, and with it the queue for the answer."""
    if not _seconds(message.client_timeout):
        return False  # a sign of life would be taken for the answer
    try:
        message.heartbeat()
    except oslo_messaging.MessageDeliveryFailure:
        return True
    return False


def _seconds(given: object) -> float | None:
    try:
        seconds = float(str(given))
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def rpc_server(
    transport: Any,
    target: Any,
    endpoints: Sequence[Any],
    *,
    limit: int,
    metrics: BusMetrics,
    seconds: float,
    clock: Callable[[], float] = time.time,
) -> Any:
    """A server that is not started. Arguments as of ``BoundedServer.bound``."""
    server = oslo_messaging.get_rpc_server(
        transport,
        target,
        list(endpoints),
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        server_cls=BoundedServer,
    )
    server.bound(limit, metrics, seconds, clock)
    return server


class ConnectionWatch(logging.Handler):
    """Notes lost and repeated connections: the driver of RabbitMQ tells them to its log only."""

    def __init__(self, metrics: BusMetrics, waiting: WaitBound) -> None:
        super().__init__(logging.INFO)
        self._metrics, self._waiting = metrics, waiting

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record that is about a connection."""
        text = str(record.msg)
        if "Reconnected to AMQP" in text:
            self._waiting.interrupted()
            self._metrics.reconnected()
        elif "is unreachable" in text or "closed the connection" in text:
            self._waiting.interrupted()
            self._metrics.connection_failed()

    def begin(self) -> Callable[[], None]:
        """Watch until what is returned is called."""
        logger = logging.getLogger(RABBIT_LOGGER)
        logger.addHandler(self)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        return lambda: logger.removeHandler(self)


__all__ = ["BoundedServer", "ConnectionWatch", "GivenBack", "Waiting", "current", "rpc_server"]
