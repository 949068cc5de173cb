"""Where a MessagePack stream's messages begin and end. It decodes nothing, so each message is decoded once, typed."""

from __future__ import annotations

import time
from typing import Final

import msgpack

from ...placement.errors import HostlerError

SMALL: Final = 64 << 10
"""Bytes up to which an unfinished message is looked at whenever something more of it comes."""


class BadFrame(HostlerError):
    """What a peer sends is no MessagePack, nested too deeply, or longer than is allowed. The connection is closed."""

    code = "bad_frame"


class Framer:
    """Cuts a stream into messages of at most ``limit`` bytes. A message that is not complete is scanned from its start
    each time, so long ones are scanned only when they have doubled, or when ``look`` says that nothing more comes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._unpacker = msgpack.Unpacker(max_buffer_size=limit + SMALL, strict_map_key=False)
        self._buffer = bytearray()
        self._start = 0
        """Position of the buffer's first byte in the stream."""
        self._look_at = 1
        self.patience = 0.0
        """Seconds after which to ``look`` if nothing more has come; 0.0: no need."""

    @property
    def unfinished(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take in what has come; the messages that are complete. BadFrame for what can be none."""
        try:
            self._unpacker.feed(data)
        except msgpack.BufferFull:
            raise BadFrame(f"a message is longer than {self._limit} bytes", hint="send smaller batches") from None
        self._buffer += data
        if len(self._buffer) < self._look_at:
            self.patience = self.patience or 0.01
            return []
        return self.look()

    def look(self) -> list[bytes]:
        """The messages that are complete."""
        frames, begin, done = [], time.perf_counter(), 0
        try:
            while True:
                self._unpacker.skip()
                end = self._unpacker.tell() - self._start
                if end - done > self._limit:
                    raise BadFrame(f"a message is longer than {self._limit} bytes", hint="send smaller batches")
                frames.append(bytes(memoryview(self._buffer)[done:end]))
                done = end
        except msgpack.OutOfData:
            pass
        except (ValueError, msgpack.UnpackException) as error:
            raise BadFrame(f"this is no MessagePack: {error or type(error).__name__}") from None
        del self._buffer[:done]
        self._start += done
        size = len(self._buffer)
        if size > self._limit:
            raise BadFrame(f"a message is longer than {self._limit} bytes", hint="send smaller batches")
        self._look_at = size + 1 if size < SMALL else 2 * size
        self.patience = max(0.01, 10 * (time.perf_counter() - begin)) if size >= SMALL else 0.0
        return frames
