"""What a handler of the Placement API may use beside the request: the model, the writer, and what is configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ...placement.api.commands import PlacementCommand
from ...placement.api.placement_model import PlacementModel
from ..forks import Children
from .candidate_query import Queries
from .config import PlacementConfig
from .messages import Request


class Writer(Protocol):
    """Executes commands one after the other; each is answered when it is durable."""

    async def submit(self, command: PlacementCommand) -> Any:
        """The command's result. Raises the model's refusal, or the error that prevented its execution."""


class Handling(Protocol):
    """What handlers are given; ``Api`` is one."""

    model: PlacementModel
    writer: Writer
    config: PlacementConfig
    children: Children
    queries: Queries

    @property
    def new_uuid(self) -> Callable[[], str]:
        """Generates the uuids of providers created without one."""

    def next_seed(self) -> tuple[int, int]:
        """Seed of the next random order: the configured one, and how many were drawn before."""

    def authorize(self, request: Request, rule: str, project: str | None) -> None:
        """Raise HttpError 403 unless policy ``rule`` allows the sender to act on resources of ``project``."""
