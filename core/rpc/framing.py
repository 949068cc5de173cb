"""Splits a MessagePack stream into messages without decoding them, so that each message is decoded once, to its
type."""

from __future__ import annotations

from typing import Final

import msgpack

from ...placement.types.errors import HostlerError

DEPTH: Final = 1_024
"""Levels of lists and maps in a message; one of this depth is refused."""
_SPARE_BYTES: Final = 1 << 20
_SPARES: list[msgpack.Unpacker] = []
"""Unpackers are shared: one takes 40 KiB, and only connections within a message need one."""
SHORT_BYTES: Final = 4 << 10
"""A message of which no more has come is scanned again from its start, and has no unpacker meanwhile: otherwise a peer
would have 40 KiB for a byte."""
_UNLIMITED: Final = 2**31 - 1


class BadFrame(HostlerError):
    """The peer sent data that is not MessagePack, is nested too deeply, is too long, or is not a message. The
    connection is closed."""

    code = "bad_frame"


class Framer:
    """Splits a stream into messages of at most ``limit`` bytes. Each byte is scanned once, regardless of how it is
    chunked, but for the first few of a message."""

    __slots__ = ("_begin", "_buffer", "_done", "_unpacker", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._unpacker: msgpack.Unpacker | None = None
        self._begin = 0
        """Position of the buffer's first byte in the unpacker's stream."""
        self._buffer = bytearray()
        self._done = 0
        """Bytes of the buffer that have been given out."""

    @property
    def unfinished(self) -> int:
        """Bytes that have not been given out."""
        return len(self._buffer) - self._done

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if not data:
            return
        self._buffer += data
        if self._unpacker is not None:
            self._unpacker.feed(data)

    def next(self) -> bytes | None:
        """The next message, None if it is incomplete. BadFrame for invalid input."""
        unpacker = self._unpacker
        if unpacker is None:
            if not self._buffer:
                return None
            # Not before: what many peers have sent waits for its turn.
            self._unpacker = unpacker = _SPARES.pop() if _SPARES else _unpacker()
            self._begin = unpacker.tell()
            unpacker.feed(self._buffer)
        try:
            unpacker.skip()
        except msgpack.OutOfData:
            self._forget_done()
            if len(self._buffer) > self.limit:
                raise self._too_long() from None
            if len(self._buffer) <= SHORT_BYTES:
                self._unpacker = None  # in the middle of a message, so that nothing else may use it
            return None
        except msgpack.StackError:
            raise BadFrame(f"a message is nested {DEPTH} levels deep or more") from None
        except (ValueError, msgpack.UnpackException) as error:
            raise BadFrame(f"not MessagePack: {error or type(error).__name__}") from None
        begin, self._done = self._done, unpacker.tell() - self._begin
        if self._done - begin > self.limit:
            raise self._too_long()
        frame = bytes(memoryview(self._buffer)[begin : self._done])
        if self._done == len(self._buffer):
            self._give_up_unpacker(unpacker)
        return frame

    def _forget_done(self) -> None:
        del self._buffer[: self._done]
        self._begin += self._done
        self._done = 0

    def _give_up_unpacker(self, unpacker: msgpack.Unpacker) -> None:
        if len(self._buffer) <= _SPARE_BYTES and len(_SPARES) < 16:
            _SPARES.append(unpacker)
        self._unpacker = None
        self._buffer = bytearray()
        self._done = 0

    def _too_long(self) -> BadFrame:
        return BadFrame(f"a message is longer than {self.limit} bytes", hint="send smaller batches")


def _unpacker() -> msgpack.Unpacker:
    return msgpack.Unpacker(read_size=4_096, max_buffer_size=_UNLIMITED)
