"""A call of a hook as its handler sees it, and answers that are not JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from ..errors import HttpError
from .asking import Asking
from .config import HooksConfig


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its ``body``, and the ``item`` that the path names behind the route (empty: none)."""

    asking: Asking
    config: HooksConfig
    body: bytes
    item: str = ""

    def read(self, kind: Any) -> Any:
        """The body, JSON of this type. HttpError 400."""
        return decoded(self.body, kind)


class Answer(NamedTuple):
    """An answer with its own status or media type. A ``body`` of bytes is sent as it is, other values as JSON."""

    body: Any
    status: int = 200
    media_type: str = "application/json"


def decoded(raw: bytes | msgspec.Raw, kind: Any) -> Any:
    """JSON of this type. HttpError 400."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HttpError(400, f"the request is malformed: {error}") from None
