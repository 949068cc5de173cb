"""The pools of one version of a fleet, for callers who keep them: whatever is read or changed through a handle, the
state comes to its version first."""

from __future__ import annotations

from typing import Any

from .context import VolumeContext
from .pools.pools import Pools


class PoolsHandle(Pools):
    """``Pools`` as one engine sees them, also after a fork of the fleet was used."""

    def __init__(self, context: VolumeContext) -> None:
        object.__setattr__(self, "_context", context)

    def __getattribute__(self, name: str) -> Any:
        context: VolumeContext = object.__getattribute__(self, "_context")
        return getattr(context.pools, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_context").pools, name, value)
