"""User data of guests: read from its folder when a guest is built, handed to the driver, and kept out of everything
else, as it may hold keys and passwords."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..backends.errors import DriverError, Permanent, Unknown
from ..backends.protocol import ComputeDriver
from ..backends.values import Guest, GuestSpec

MAX_USER_DATA: Final = 65_536
SHORTEST: Final = 8
"""Characters of a line that is taken for a repetition of user data; shorter ones may coincide with other words."""
BASE64_START: Final = 24


def read_user_data(folder: Path | None, name: str) -> str:
    """What a file of the folder has. Permanent if it cannot be used. It blocks."""
    if folder is None or name in (".", ".."):
        raise Permanent("the service has no folder of user data", hint="set [reconcile] user_data")
    try:
        with (folder / name).open(encoding="utf-8") as file:
            text = file.read(MAX_USER_DATA + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(f"user data {name} cannot be read: {type(error).__name__}") from error
    if len(text) > MAX_USER_DATA:
        raise Permanent(f"user data {name} has more than {MAX_USER_DATA} characters")
    return text


async def create_guest(driver: ComputeDriver, want: GuestSpec) -> Guest:
    """Have a guest made. An error that repeats its user data, as back ends like to, says so instead: errors are
    journalled and shown."""
    try:
        return await driver.create_guest(want)
    except Exception as error:
        if not want.user_data or not _repeats(str(error), want.user_data):
            raise
        hidden = f"guest {want.mark.uuid} was not made; the error repeats its user data"
        if isinstance(error, DriverError):
            raise type(error)(hidden, backend_code=error.backend_code, nodes=error.nodes) from None
        raise Unknown(hidden, backend_code=type(error).__name__) from None  # a fault of the driver


def _repeats(text: str, user_data: str) -> bool:
    return any(part in text for part in _parts(user_data))


def _parts(user_data: str) -> Iterator[str]:
    """What stands for user data in a text: each of its lines, and the beginning of it in base64."""
    for line in user_data.splitlines():
        if len(line.strip()) >= SHORTEST and line.strip() != "#cloud-config":
            yield line.strip()
    yield base64.b64encode(user_data.encode()).decode()[:BASE64_START]
