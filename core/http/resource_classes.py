"""``/resource_classes`` and ``/resource_classes/{name}``."""

from __future__ import annotations

from typing import Any, Final

from ...placement.api.commands import CreateResourceClass, DeleteResourceClass, RenameResourceClass
from ...placement.api.errors import BadRequest, Conflict
from . import schemas
from .errors import bad_request
from .handling import Handling
from .messages import Request, Response, answer, no_content
from .refusals import said_as
from .routing import Route
from .validation import read_json

IDEMPOTENT_SINCE: Final = 7


def _represent(request: Request, name: str) -> dict[str, Any]:
    return {"name": name, "links": [{"rel": "self", "href": f"{request.prefix}/resource_classes/{name}"}]}


async def list_classes(request: Request, api: Handling) -> Response:
    """GET /resource_classes"""
    found = api.model.resource_classes()
    times = [one.updated for one in found if one.updated is not None]
    body = {"resource_classes": [_represent(request, one.name) for one in found]}
    return answer(request, body, modified=max(times, default=None))


async def create_class(request: Request, api: Handling) -> Response:
    """POST /resource_classes"""
    name = (await read_json(request, api, schemas.RESOURCE_CLASS))["name"]
    await api.writer.submit(CreateResourceClass(now=request.now, name=name))
    return Response(201, headers=[("location", request.url(f"/resource_classes/{name}"))])


async def show_class(request: Request, api: Handling) -> Response:
    """GET /resource_classes/{name}"""
    found = api.model.resource_class(request.items[0])
    return answer(request, _represent(request, found.name), modified=found.updated)


async def rename_class(request: Request, api: Handling) -> Response:
    """PUT /resource_classes/{name} below 1.7"""
    name = request.items[0]
    new_name = (await read_json(request, api, schemas.RESOURCE_CLASS))["name"]
    await api.writer.submit(RenameResourceClass(now=request.now, name=name, new_name=new_name))
    return Response(200, answer(request, _represent(request, new_name)).body, "application/json")


async def ensure_class(request: Request, api: Handling) -> Response:
    """PUT /resource_classes/{name}"""
    name = request.items[0]
    problem = schemas.RESOURCE_CLASS.problem({"name": name})
    if problem is not None:
        raise bad_request(f"JSON does not validate: {problem}")
    is_new = await api.writer.submit(CreateResourceClass(now=request.now, name=name, may_exist=True))
    location = request.url(f"/resource_classes/{name}")
    return Response(201 if is_new else 204, headers=[("location", location)])


async def delete_class(request: Request, api: Handling) -> Response:
    """DELETE /resource_classes/{name}"""
    prefix = "Error in delete resource class: "
    with said_as(400, prefix, BadRequest), said_as(409, prefix, Conflict):
        await api.writer.submit(DeleteResourceClass(now=request.now, name=request.items[0]))
    return no_content()


_ONE: Final = "/resource_classes/{name}"
_RULE: Final = "placement:resource_classes:"
ROUTES: Final = (
    Route("GET", "/resource_classes", list_classes, f"{_RULE}list", since=2, gives_json=True),
    Route("POST", "/resource_classes", create_class, f"{_RULE}create", since=2, body=True),
    Route("GET", _ONE, show_class, f"{_RULE}show", since=2, gives_json=True),
    Route("PUT", _ONE, rename_class, f"{_RULE}update", since=2, until=IDEMPOTENT_SINCE - 1, body=True),
    Route("PUT", _ONE, ensure_class, f"{_RULE}update", since=IDEMPOTENT_SINCE),
    Route("DELETE", _ONE, delete_class, f"{_RULE}delete", since=2),
)
