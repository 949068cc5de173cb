"""``GET /``: which versions there are. Needs no token."""

from __future__ import annotations

from typing import Final

from .handling import Handling
from .messages import Request, Response, answer
from .microversion import NEWEST
from .routing import Route


async def show_versions(request: Request, api: Handling) -> Response:
    """GET /"""
    version = {
        "id": "v1.0",
        "max_version": f"1.{NEWEST}",
        "min_version": "1.0",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }
    return answer(request, {"versions": [version]})


ROUTES: Final = (Route("GET", "/", show_versions, rule=None),)
