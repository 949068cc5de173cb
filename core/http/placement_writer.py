"""Hands the Placement API's writes to the writer of a service: one state, one journal and one account of usage."""

from __future__ import annotations

from typing import Any, Final

from ...placement.api import commands as api
from ..machine.orders import Order, PlacementWrite
from ..service import Service
from ..tenancy.tenants import LOCAL, PLACEMENT
from .identity import SENDER, Identity

ABOVE_TENANTS: Final = frozenset({"admin", "service"})
"""Roles of those who claim for any project on any host. Others write where a policy file lets them."""


class ServiceWriter:
    """Hands the API's writes to the service's writer."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(self, command: api.PlacementCommand) -> Any:
        """The command's result, once it is durable. Errors as the model's and the writer's."""
        sender = SENDER.get()
        user = LOCAL if sender.user is None else f"{PLACEMENT}{sender.user}"
        write = PlacementWrite(command=command, project=_project_of(sender))
        order = Order(self._service.now(), user, write)
        return await self._service.writer.submit(order, lane=user if sender.user is not None else PLACEMENT)


def _project_of(sender: Identity) -> str | None:
    """The project in whose limits and pools a sender claims; None for services and admins, and where the sender is
    unknown."""
    if sender.user is None or not ABOVE_TENANTS.isdisjoint(sender.roles):
        return None
    return sender.project or ""
