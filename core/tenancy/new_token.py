"""What the caller gets of a new token: the only time that its secret is shown."""

from __future__ import annotations

from typing import Final

import msgspec

TOKEN_DAYS: Final = 90.0
"""Lifetime of a token for which none is given."""


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token's only appearance: ``token`` is what to show, ``id`` what to revoke; ``expires`` in seconds since the
    epoch."""

    id: str
    token: str
    expires: float
