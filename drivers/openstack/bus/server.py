"""oslo.messaging's RPC server with a limit on the messages that it takes at a time, the age of each message, and a
count of lost connections. Beyond the limit messages stay with the broker, which drops those whose callers gave up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import oslo_messaging
from oslo_messaging.rpc.server import RPCServer

from ....core.process.bus_metrics import BusMetrics

RABBIT_LOGGER: Final = "oslo.messaging._drivers.impl_rabbit"


class Waiting(Protocol):
    """When a message came, and how long its caller waits."""

    received: float
    patience: float | None


class _Message(threading.local):
    """The message that a thread carries out."""

    received: float = 0.0
    patience: float | None = None


current: Final[Waiting] = _Message()
"""The message that this thread carries out. ``received``: when it came, by ``time.monotonic``; ``patience``: seconds
after which its caller gives up unless it hears of the call, None if the caller did not say."""


class BoundedServer(RPCServer):  # type: ignore[misc]  # oslo.messaging is not typed
    """An RPC server that carries out at most so many messages at a time, and takes no more than these."""

    def bound(self, limit: int, metrics: BusMetrics) -> None:
        """Take at most ``limit`` messages at a time, and count them. To be called before the start."""
        self.conf.set_override("executor_thread_pool_size", limit)
        self._free, self._metrics = threading.BoundedSemaphore(limit), metrics

    def finish(self) -> None:
        """Stop taking messages, carry out those that were taken, and close the connection. While oslo.messaging 18
        closes it (it has its fan-out queue deleted, and reads until that is done), it acknowledges messages that it
        then forgets: they are carried out here."""
        self.stop()
        self.wait()
        for message in getattr(getattr(self.listener, "_poll_style_listener", None), "incoming", ()):
            self._process_incoming([message])

    def _on_incoming(self, incoming: Any) -> None:
        self._free.acquire()  # the thread that receives waits; so does what is still with the broker
        self._metrics.begun()
        try:
            self._work_executor.submit(self._process_incoming, incoming).add_done_callback(self._done)
        except BaseException:
            self._done()
            raise

    def _done(self, _: object = None) -> None:
        self._metrics.ended()
        self._free.release()

    def _process_incoming(self, incoming: Any) -> None:
        message = incoming[0]
        watch = getattr(message, "stopwatch", None)
        current.received = time.monotonic() - (0.0 if watch is None else watch.elapsed())
        current.patience = _seconds(message.client_timeout)
        super()._process_incoming(incoming)


def _seconds(given: object) -> float | None:
    try:
        seconds = float(str(given))
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def rpc_server(transport: Any, target: Any, endpoints: Sequence[Any], *, limit: int, metrics: BusMetrics) -> Any:
    """A server that is not started."""
    server = oslo_messaging.get_rpc_server(
        transport,
        target,
        list(endpoints),
        access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        server_cls=BoundedServer,
    )
    server.bound(limit, metrics)
    return server


class ConnectionWatch(logging.Handler):
    """Counts lost and repeated connections: the driver of RabbitMQ tells them to its log only."""

    def __init__(self, metrics: BusMetrics) -> None:
        super().__init__(logging.INFO)
        self._metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record that is about a connection."""
        text = str(record.msg)
        if "Reconnected to AMQP" in text:
            self._metrics.reconnected()
        elif "is unreachable" in text or "closed the connection" in text:
            self._metrics.connection_failed()

    def begin(self) -> Callable[[], None]:
        """Watch until what is returned is called."""
        logger = logging.getLogger(RABBIT_LOGGER)
        logger.addHandler(self)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        return lambda: logger.removeHandler(self)


__all__ = ["BoundedServer", "ConnectionWatch", "Waiting", "current", "rpc_server"]
