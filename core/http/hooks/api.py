"""The hooks as a function from request to response: token, route, handler, and the form of errors."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from ....placement.types.errors import HostlerError
from ..auth import StaticTokens
from ..errors import HttpError
from ..messages import Exchange, Request, Response
from . import kubernetes, nova
from .asking import Asking
from .config import HooksConfig

Handler = Callable[[Asking, HooksConfig, bytes], Awaitable[Any]]

ROUTES: Final[dict[str, Handler]] = {
    "/scheduler/nova/external": nova.sort_hosts,
    "/kubernetes/filter": kubernetes.filter_nodes,
    "/kubernetes/prioritize": kubernetes.prioritize,
}
_BEARER: Final = "bearer "


class HooksApi:
    """All hooks. ``clock`` gives seconds since the epoch."""

    def __init__(self, asking: Asking, config: HooksConfig, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self._asking, self._clock = asking, clock
        self._tokens = StaticTokens(config.tokens) if config.auth == "static" else None

    async def respond(self, request: Request) -> tuple[Response, Exchange]:
        """Answer a request. Never raises but for cancellation."""
        exchange = Exchange(request)
        request.request_id, request.now = f"req-{uuid.uuid4()}", self._clock()
        try:
            return Response(200, msgspec.json.encode(await self._handle(request)), "application/json"), exchange
        except HttpError as error:
            status, text = error.status, error.message or error.sentence
        except HostlerError as error:
            status, text = 400, str(error)
        except Exception:  # a fault of the handler must cost one request only
            exchange.problem = traceback.format_exc()
            status, text = 500, "the service failed; see its log"
        return Response(status, msgspec.json.encode({"error": text}), "application/json"), exchange

    async def _handle(self, request: Request) -> Any:
        if self._tokens is not None:
            headers = dict(request.headers)
            given = headers.get("authorization", "")
            if given.lower().startswith(_BEARER):
                headers.setdefault("x-auth-token", given[len(_BEARER) :].strip())
            request.identity = await self._tokens.identify(headers, request.now)
        handler = ROUTES.get(request.path)
        if handler is None:
            raise HttpError(404, f"there are {', '.join(ROUTES)}")
        if request.method != "POST":
            raise HttpError(405, "hooks are called by POST", headers=(("allow", "POST"),))
        return await handler(self._asking, self.config, await request.read_body())
