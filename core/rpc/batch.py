"""Several calls in one message, answered together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import trio

from ...placement.types.errors import HostlerError
from ..errors import InternalError
from .messages import NIL, Call, ErrorStyle, Reply, encode, error_object, too_long

log = logging.getLogger("hostler.rpc")


class Caller(Protocol):
    """The session that a batch came in on."""

    outstanding: int
    answer_bytes: int
    style: ErrorStyle

    def begin(self, call: Call, reply: Reply, *, batched: bool = False) -> str:
        """Begin one call, whose answer goes to ``reply``."""
        ...


class BatchAnswers:
    """The answers of a batch, encoded one by one, so that their total size is known and bounded."""

    def __init__(self, session: Caller, count: int, reply: Reply) -> None:
        self._session, self._reply, self._waiting = session, reply, count
        self._answers: list[tuple[Any, msgspec.Raw] | None] = [None] * count
        self._bytes = 0
        session.outstanding += count
        if not count:
            reply([], None)

    def at(self, position: int) -> Reply:
        """What takes the answer of one call."""

        def take(result: Any, error: HostlerError | None) -> None:
            self._session.outstanding -= 1
            self._answers[position] = self._encoded(result, error)
            self._waiting -= 1
            if self._waiting == 0:
                self._reply(self._answers, None)

        return take

    def _encoded(self, result: Any, error: HostlerError | None) -> tuple[Any, msgspec.Raw]:
        if error is None:
            try:
                data = encode(result)
            except (TypeError, ValueError, OverflowError):
                log.exception("an answer within a batch cannot be sent")
                error = InternalError("the answer cannot be sent; see the log of the service")
            else:
                self._bytes += len(data)
                if self._bytes <= self._session.answer_bytes:
                    return None, msgspec.Raw(data)
                self._bytes -= len(data)
                error = too_long(self._bytes + len(data), self._session.answer_bytes)
        return error_object(error, self._session.style), NIL


async def answer_questions(session: Caller, questions: Sequence[tuple[Call, Reply]]) -> None:
    """Answer one question after the other, with turns for others in between."""
    for call, take in questions:
        session.begin(call, take, batched=True)
        await trio.lowlevel.checkpoint()
