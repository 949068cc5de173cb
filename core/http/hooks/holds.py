"""The hook by which a caller shows that it took what it was given: held guests stay."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from .calling import Call

MOST: Final = 10_000


class Uuids(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request: uuids of guests, all or none."""

    uuids: Annotated[list[str], msgspec.Meta(max_length=MOST)]


class Confirmed(msgspec.Struct, frozen=True):
    """The answer: how many guests stay."""

    confirmed: int


async def confirm(call: Call) -> Confirmed:
    """As RPC's ``confirm_hold``. HttpError 400 for guests that are not held."""
    given: Uuids = call.read(Uuids)
    return Confirmed(await call.asking.confirm(given.uuids))
