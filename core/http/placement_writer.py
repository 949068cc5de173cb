"""Hands the Placement API's writes to the writer of a service: one state, one journal and one account of usage."""

from __future__ import annotations

from typing import Any

from ...placement.api import commands as api
from ..machine.orders import Order, PlacementWrite
from ..service import Service
from ..tenancy.tenants import LOCAL, PLACEMENT
from .identity import SENDER


class ServiceWriter:
    """Hands the API's writes to the service's writer."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(self, command: api.PlacementCommand) -> Any:
        """The command's result, once it is durable. Errors as the model's and the writer's."""
        sender = SENDER.get().user
        user = LOCAL if sender is None else f"{PLACEMENT}{sender}"
        order = Order(self._service.now(), user, PlacementWrite(command=command))
        return await self._service.writer.submit(order)
