"""The base of all questions that change nothing. What they ask is in queries, and answered there."""

from __future__ import annotations

from typing import Annotated

import msgspec

Page = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
"""Lines of one answer."""


class Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all questions."""
