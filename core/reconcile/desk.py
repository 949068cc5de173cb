"""What the steps of the reconciler need of it: where the facts are, and where commands go."""

from __future__ import annotations

from typing import Any, Final, Protocol

from ..backends.values import Connection
from ..lifecycle_commands import LifecycleCommand
from ..machine.lives import Lives, VolumeLife

BUILDING_POLL: Final = 2.0
"""Seconds between two looks at what a back end is making or removing."""
TROUBLE_WAIT: Final = 4.0
"""What fails again after waits up to this many seconds is shown to users as trouble, while it is tried on."""


class Desk(Protocol):
    """Where the facts are, and where commands go."""

    @property
    def lives(self) -> Lives:
        """The facts as they are now."""
        ...

    def now(self) -> float:
        """Seconds since the epoch, as commands carry them."""
        ...

    async def submit(self, command: LifecycleCommand) -> Any:
        """Have a command carried out. HostlerError if it is refused."""
        ...

    async def connection(self, volume: VolumeLife, node: str) -> Connection:
        """How a node reaches a volume, as its back end says. DriverError."""
        ...
