"""Structured logs on standard error through structlog: a line of JSON, or of readable text, per event. Includes
everything logged in the process; for libraries from level warning."""

from __future__ import annotations

import atexit
import logging
import queue
import sys
import threading
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

HANDLER: Final = "hostler"
QUEUE_LINES: Final = 10_000
"""Lines that wait for standard error at most; more are lost and counted."""
FLUSH_SECONDS: Final = 2.0


class Lines(logging.Handler):
    """Hands records to a thread that formats and writes them: a reader of standard error that has stopped reading (a
    full pipe, a stuck journald) delays no caller."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self.target = target
        self.lost = 0
        # A SimpleQueue's lock is never held across a fork, so a child may log.
        self._waiting: queue.SimpleQueue[logging.LogRecord | threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="hostler-logs", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._waiting.qsize() >= QUEUE_LINES:
                self.lost += 1
                return
            record.msg, record.args = record.getMessage(), None  # what it names may change before its turn
            self._waiting.put(record)
        except Exception:  # from the record's own arguments: a line that cannot be formatted must not fail its caller
            self.lost += 1

    def drain(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines so far are written, but not longer."""
        written = threading.Event()
        self._waiting.put(written)
        written.wait(seconds)

    def _run(self) -> None:
        while True:
            each = self._waiting.get()
            if isinstance(each, threading.Event):
                each.set()
                continue
            try:
                self.target.handle(each)
            except Exception:  # from any formatter or stream: the thread must go on with the next line
                self.lost += 1


def _stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the time at which a record was made."""
    record: logging.LogRecord = event["_record"]
    event["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
    return event


def lost() -> int:
    """Lines that were lost since the start."""
    return sum(each.lost for each in logging.getLogger().handlers if isinstance(each, Lines))


def drain() -> None:
    """Have what was logged written, within FLUSH_SECONDS."""
    for each in logging.getLogger().handlers:
        if isinstance(each, Lines):
            each.drain()


def configure(level: str = "info", form: str = "json") -> None:
    """Have everything logged written to standard error, Hostler's own from ``level`` on. May be called again."""
    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _stamp,
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    known = next((each for each in root.handlers if isinstance(each, Lines)), None)
    if known is not None:
        known.target = target
    else:
        handler = Lines(target)
        handler.name = HANDLER
        root.addHandler(handler)
        atexit.register(drain)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)  # such as of an unknown option in a nova.conf
    logging.getLogger("hostler").setLevel(level.upper())
