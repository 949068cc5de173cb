"""Writes zeros over a part of a block device (or a file), so that a new tenant reads nothing of an earlier one."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from typing import Final

import trio

from ..protocol import Transient

PART: Final = 64 * 2**20
"""Bytes that one thread zeroes before others have their turn; a cancellation takes effect between two parts."""
LOCK_SECONDS: Final = 5.0
LOCK_LOOK: Final = 0.2
_ZEROS: Final = bytes(4 * 2**20)
_BLKZEROOUT: Final = 0x127F
"""linux/fs.h: the kernel zeroes a range, by a command of the device where it has one."""
_NOT_OFFERED: Final = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})


class _Device:
    """An open device, locked against another process that zeroes it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._is_block = stat.S_ISBLK(os.fstat(self._file).st_mode)
            self.size = os.lseek(self._file, 0, os.SEEK_END)
        except OSError:
            os.close(self._file)
            raise

    def zero(self, start: int, end: int) -> None:
        """Zero a range of bytes, durably."""
        if self._is_block:
            try:
                fcntl.ioctl(self._file, _BLKZEROOUT, struct.pack("QQ", start, end - start))
            except OSError as error:
                if error.errno not in _NOT_OFFERED:
                    raise
                self._write(start, end)
        else:
            self._write(start, end)
        os.fsync(self._file)

    def _write(self, start: int, end: int) -> None:
        while start < end:
            start += os.pwrite(self._file, _ZEROS[: end - start], start)

    def close(self) -> None:
        os.close(self._file)


async def _opened(path: str, limiter: trio.CapacityLimiter) -> _Device:
    """A device with its lock, which udev holds for a moment after a device has appeared. OSError."""
    with trio.move_on_after(LOCK_SECONDS):
        while True:
            with suppress(BlockingIOError):
                return await trio.to_thread.run_sync(_Device, path, limiter=limiter)
            await trio.sleep(LOCK_LOOK)
    raise OSError(errno.EBUSY, "another process has locked it")


async def zero_from(
    path: str, find_start: Callable[[], Awaitable[int | None]], done: Callable[[], Awaitable[None]]
) -> None:
    """Zero a device from an offset in bytes, which ``find_start`` is asked for once the device is locked (None: it is
    zeroed already), to its end; then call ``done``, still with the lock, so that no other process zeroes what has been
    handed out meanwhile. Transient if another process has the lock, or the device fails."""
    limiter = trio.CapacityLimiter(1)
    try:
        device = await _opened(path, limiter)
        with closing(device):
            position = await find_start()
            if position is None:
                return
            while position < device.size:
                end = min(position + PART, device.size)
                await trio.to_thread.run_sync(device.zero, position, end, limiter=limiter)
                position = end
            await done()
    except OSError as error:
        raise Transient(f"{path} cannot be zeroed now: {error.strerror or error}") from error
