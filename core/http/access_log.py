"""One structured line, JSON on the standard error stream, for each request."""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import msgspec
import structlog

from .errors import HttpError
from .messages import Exchange, Response


def _as_json(event: Any, **_: Any) -> bytes:
    return msgspec.json.encode(event)


class AccessLog:
    """Writes a line per request where ``requests`` is set, and one per fault of Hostler's own in any case."""

    def __init__(self, *, requests: bool = True, file: BinaryIO | None = None) -> None:
        self._requests = requests
        self._log: Any = structlog.wrap_logger(
            structlog.BytesLogger(file or sys.stderr.buffer),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=_as_json),
            ],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def request(self, exchange: Exchange, response: Response, seconds: float) -> None:
        """Note a request that was answered."""
        request = exchange.request
        if exchange.problem is not None:
            self._log.error("fault", request_id=request.request_id, traceback=exchange.problem)
        if self._requests:
            self._log.info(
                "request",
                client=request.client,
                method=request.method,
                path=request.path,
                query=request.raw_query,
                status=response.status,
                bytes=len(response.body),
                milliseconds=round(seconds * 1e3, 3),
                microversion=None if exchange.minor is None else f"1.{exchange.minor}",
                user=request.identity.user,
                project=request.identity.project,
                request_id=request.request_id,
            )

    def refused(self, client: str, error: HttpError) -> None:
        """Log a malformed request."""
        if self._requests:
            self._log.info("refused", client=client, status=error.status, reason=error.message)

    def note(self, event: str, **values: Any) -> None:
        """Note something else, such as the start."""
        self._log.info(event, **values)
