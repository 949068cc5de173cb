"""What the caller gets of a new token, the only time that its secret is shown; and how many a user may have."""

from __future__ import annotations

from typing import Final

import msgspec

from .errors import QuotaExceeded
from .rights import may_see_tokens
from .tenants import Tenants

TOKEN_DAYS: Final = 90.0
"""Lifetime of a token for which none is given."""
MOST_TOKENS: Final = 1_000
"""Tokens of a user that have not expired, with which they are given no more. Calls under way are not counted."""


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token's only appearance: ``token`` is what to show, ``id`` what to revoke; ``expires`` in seconds since the
    epoch."""

    id: str
    token: str
    expires: float


def check_tokens(tenants: Tenants, caller: str, user: str, now: float) -> None:
    """QuotaExceeded if a user has MOST_TOKENS, for a caller who may see them. O(1), and what ``Tenants.tokens_at``
    takes."""
    if tenants.tokens_at(user, now) >= MOST_TOKENS and may_see_tokens(tenants, caller, user):
        problem = f"user {user} has {MOST_TOKENS} tokens, which is the most"
        raise QuotaExceeded(problem, field="user", hint="revoke some, or wait until they have expired")
