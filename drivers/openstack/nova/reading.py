"""Fields of versioned objects, which may be unset."""

from __future__ import annotations

from typing import Any


def field(value: Any, name: str, default: Any = None) -> Any:
    """A field of a versioned object; ``default`` if it is unset, so that nothing is loaded from a database."""
    return getattr(value, name) if name in value else default
