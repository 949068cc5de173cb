"""Whether a volume that is there is the one that is wanted."""

from __future__ import annotations

from ..protocol import Conflict, Volume, VolumeSpec


def same_volume(found: Volume, want: VolumeSpec) -> Volume:
    """The volume. Conflict if it was made for another claim, in another pool or with another size."""
    if (found.mark, found.pool, found.size_gb) != (want.mark, want.pool, want.size_gb):
        raise Conflict(f"volume {want.mark.uuid} exists with another claim, pool or size")
    return found
