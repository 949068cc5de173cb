"""What a server needs of the API behind it."""

from __future__ import annotations

from typing import Protocol

from .config import Limits
from .messages import Exchange, Request, Response


class Settings(Protocol):
    """The settings of an API that concern its connections."""

    @property
    def limits(self) -> Limits:
        """Of one client."""

    @property
    def prefix(self) -> str:
        """Path under which the API is mounted."""


class Answering(Protocol):
    """An API as a function from request to response."""

    @property
    def config(self) -> Settings:
        """Its settings."""

    async def respond(self, request: Request) -> tuple[Response, Exchange]:
        """Answer a request. Never raises but for cancellation."""
