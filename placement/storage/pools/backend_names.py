"""Names of backends and pools: ``host@backend#pool``, and their parts. A cluster's name takes the place of the host."""

from __future__ import annotations

from typing import Final

DEFAULT_POOL: Final = "_pool0"
"""Name of the one pool of a backend that reports no pools and no volume_backend_name."""


def append_pool(host: str, pool: str) -> str:
    """``host#pool``; as it is where the host or the pool has no name. O(length)."""
    return f"{host}#{pool}" if host and pool else host


def backend_part(name: str) -> str:
    """``host@backend`` of ``host@backend#pool``. O(length)."""
    return name.split("#")[0]


def host_part(name: str) -> str:
    """``host`` of ``host@backend#pool``. O(length)."""
    return backend_part(name).split("@")[0]


def pool_part(name: str) -> str | None:
    """``pool`` of ``host@backend#pool``; None where there is none, or more than one ``#``. O(length)."""
    parts = name.split("#")
    return parts[1] if len(parts) == 2 else None
