"""``/reshaper``: inventories and allocations moved between providers in one step."""

from __future__ import annotations

from typing import Final

from ...placement.api.commands import Reshape, ReshapedProvider
from ...placement.api.errors import UNDEFINED, BadRequest, Conflict
from . import schemas
from .allocations import consumers_of
from .errors import HttpError
from .handling import Handling
from .inventories import inventories_of
from .messages import Request, Response, no_content
from .refusals import said_as
from .routing import Route
from .validation import is_uuid, plain_uuid, read_json


async def reshape(request: Request, api: Handling) -> Response:
    """POST /reshaper"""
    body = await read_json(request, api, schemas.at(schemas.RESHAPE, request.minor))
    providers = {
        plain_uuid(uuid) if is_uuid(uuid) else uuid: ReshapedProvider(
            generation=int(one["resource_provider_generation"]), inventories=inventories_of(one["inventories"])
        )
        for uuid, one in body["inventories"].items()
    }
    consumers = consumers_of(body["allocations"], request, api)
    try:
        with said_as(400, "malformed reshaper data: ", BadRequest):
            await api.writer.submit(
                Reshape(now=request.now, providers=providers, consumers=consumers, infer_types=True)
            )
    except Conflict as error:
        prefix = "Unable to allocate inventory: " if error.placement_code == UNDEFINED else "update conflict: "
        raise HttpError(409, f"{prefix}{error.args[0]}", code=error.placement_code) from error
    return no_content()


ROUTES: Final = (Route("POST", "/reshaper", reshape, "placement:reshaper:reshape", since=30, body=True),)
