"""``/resource_providers/{uuid}/inventories`` and ``.../{resource_class}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...placement.api import answers as values
from ...placement.api.commands import AddInventory, DeleteInventories, DeleteInventory, SetInventories, SetInventory
from ...placement.api.errors import BadRequest, Conflict, NotFound
from ...placement.fleet.inventories import Inventory
from . import schemas
from .handling import Handling
from .messages import Request, Response, answer, no_content, undated
from .refusals import said_as
from .routing import Route
from .validation import read_json

_FIELDS: Final = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")


def inventory_of(figures: Mapping[str, Any]) -> Inventory:
    """The inventory that a body's figures mean; what it leaves out has its default."""
    given = {name: int(figures[name]) for name in _FIELDS[:-1] if name in figures}
    return Inventory(**given, allocation_ratio=float(figures.get("allocation_ratio", 1.0)))


def inventories_of(body: Mapping[str, Mapping[str, Any]]) -> dict[str, Inventory]:
    """The inventories by resource class."""
    return {name: inventory_of(figures) for name, figures in body.items()}


def _inventory_fields(inventory: Inventory) -> dict[str, Any]:
    return {name: getattr(inventory, name) for name in _FIELDS}


def _all(request: Request, found: values.Inventories) -> Response:
    shown = {name: _inventory_fields(inventory) for name, inventory in found.inventories.items()}
    body = {"resource_provider_generation": found.generation, "inventories": shown}
    return answer(request, body, modified=found.updated) if shown else undated(request, body)


def _one(request: Request, found: values.Inventories, status: int = 200) -> Response:
    """One inventory; a generation of 0 is left out, as Placement does."""
    (inventory,) = found.inventories.values()
    body = _inventory_fields(inventory)
    if found.generation:
        body["resource_provider_generation"] = found.generation
    return answer(request, body, modified=found.updated, status=status)


async def list_inventories(request: Request, api: Handling) -> Response:
    """GET .../inventories"""
    return _all(request, api.model.inventories(request.items[0]))


async def show_inventory(request: Request, api: Handling) -> Response:
    """GET .../inventories/{resource_class}"""
    return _one(request, api.model.inventory(*request.items))


async def add_inventory(request: Request, api: Handling) -> Response:
    """POST .../inventories"""
    uuid = api.model.provider(request.items[0]).uuid
    body = await read_json(request, api, schemas.ADD_INVENTORY)
    command = AddInventory(
        now=request.now,
        provider=uuid,
        resource_class=body["resource_class"],
        inventory=inventory_of(body),
        may_reserve_all=request.minor >= 26,
    )
    with said_as(400, f"Unable to create inventory for resource provider {uuid}: ", BadRequest):
        found = await api.writer.submit(command)
    response = _one(request, found, status=201)
    path = f"/resource_providers/{uuid}/inventories/{command.resource_class}"
    response.headers.append(("location", request.url(path)))
    return response


async def set_inventories(request: Request, api: Handling) -> Response:
    """PUT .../inventories"""
    uuid = api.model.provider(request.items[0]).uuid
    body = await read_json(request, api, schemas.SET_INVENTORIES)
    command = SetInventories(
        now=request.now,
        provider=uuid,
        generation=int(body["resource_provider_generation"]),
        inventories=inventories_of(body["inventories"]),
        may_reserve_all=request.minor >= 26,
    )
    with (
        said_as(400, f"Unable to update inventory for resource provider {uuid}: ", BadRequest),
        said_as(409, "update conflict: ", Conflict),
    ):
        found = await api.writer.submit(command)
    return _all(request, found)


async def set_inventory(request: Request, api: Handling) -> Response:
    """PUT .../inventories/{resource_class}"""
    uuid = api.model.provider(request.items[0]).uuid
    body = await read_json(request, api, schemas.SET_INVENTORY)
    command = SetInventory(
        now=request.now,
        provider=uuid,
        resource_class=request.items[1],
        generation=int(body["resource_provider_generation"]),
        inventory=inventory_of(body),
        may_reserve_all=request.minor >= 26,
    )
    with (
        said_as(400, f"Unable to update inventory for resource provider {uuid}: ", BadRequest),
        said_as(409, "update conflict: ", Conflict),
    ):
        found = await api.writer.submit(command)
    return _one(request, found)


async def delete_inventory(request: Request, api: Handling) -> Response:
    """DELETE .../inventories/{resource_class}"""
    uuid, name = request.items
    uuid = api.model.provider(uuid).uuid
    with (
        said_as(404, f"No inventory of class {name} found for delete: ", NotFound),
        said_as(409, f"Unable to delete inventory of class {name}: ", Conflict),
    ):
        await api.writer.submit(DeleteInventory(now=request.now, provider=uuid, resource_class=name))
    return no_content()


async def delete_inventories(request: Request, api: Handling) -> Response:
    """DELETE .../inventories"""
    await api.writer.submit(DeleteInventories(now=request.now, provider=request.items[0]))
    return no_content()


_PATH: Final = "/resource_providers/{uuid}/inventories"
_ONE: Final = _PATH + "/{resource_class}"
_RULE: Final = "placement:resource_providers:inventories:"
ROUTES: Final = (
    Route("GET", _PATH, list_inventories, f"{_RULE}list", gives_json=True),
    Route("POST", _PATH, add_inventory, f"{_RULE}create", body=True),
    Route("PUT", _PATH, set_inventories, f"{_RULE}update", body=True),
    Route("DELETE", _PATH, delete_inventories, f"{_RULE}delete", since=5, too_early=405),
    Route("GET", _ONE, show_inventory, f"{_RULE}show", gives_json=True),
    Route("PUT", _ONE, set_inventory, f"{_RULE}update", body=True),
    Route("DELETE", _ONE, delete_inventory, f"{_RULE}delete"),
)
