"""The hooks as a function from request to response: token, route, handler, and the form of errors."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from ....placement.types.errors import HostlerError
from ....placement.types.extras import require_extra
from ...service import Identity, Service
from ...tenancy.errors import NotAuthenticated
from ...tenancy.tenants import LOCAL
from ..auth import StaticTokens
from ..errors import HttpError, unauthorized
from ..messages import Exchange, Request, Response
from ..refusals import as_http
from . import cinder, holds, ironic, kubernetes, nova, opennebula, pod_binding
from .asking import Asking
from .calling import Answer, Call
from .config import HooksConfig

Handler = Callable[[Call], Awaitable[Any]]

ROUTES: Final[dict[tuple[str, str], Handler]] = {
    ("POST", "/scheduler/nova/external"): nova.sort_hosts,
    ("POST", "/scheduler/cinder/external"): cinder.sort_volume_pools,
    ("POST", "/scheduler/manila/external"): cinder.sort_share_pools,
    ("POST", "/kubernetes/filter"): kubernetes.filter_nodes,
    ("POST", "/kubernetes/prioritize"): kubernetes.prioritize,
    ("POST", "/kubernetes/preempt"): kubernetes.preempt,
    ("POST", "/kubernetes/bind"): pod_binding.bind,
    ("POST", "/opennebula/place"): opennebula.place,
    ("POST", "/opennebula/optimize"): opennebula.optimize,
    ("POST", "/ironic/allocations"): ironic.allocate,
    ("GET", "/ironic/allocations/"): ironic.show,
    ("DELETE", "/ironic/allocations/"): ironic.delete,
    ("POST", "/holds/confirm"): holds.confirm,
}
"""(method, path) -> handler. A path that ends with a slash is followed by the name of one thing."""
PATHS: Final = tuple(dict.fromkeys(path for _, path in ROUTES))
MAY_CHANGE: Final = frozenset({"admin", "service"})
"""Roles of static tokens with which a hook may hold and release guests."""
_BEARER: Final = "bearer "


class HooksApi:
    """All hooks. ``clock`` gives seconds since the epoch, by which tokens expire."""

    def __init__(self, service: Service, config: HooksConfig, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self._service, self._clock = service, clock
        if config.kubernetes_api:
            require_extra("httpx", "service", field="hooks.kubernetes_api")
        self._tokens = StaticTokens(config.tokens) if config.auth == "static" else None

    async def respond(self, request: Request) -> tuple[Response, Exchange]:
        """Answer a request. Never raises but for cancellation."""
        exchange = Exchange(request)
        request.request_id, request.now = f"req-{uuid.uuid4()}", self._clock()
        try:
            answer = await self._handle(request)
            body = answer.body if isinstance(answer.body, bytes) else msgspec.json.encode(answer.body)
            return Response(answer.status, body, answer.media_type), exchange
        except HttpError as error:
            refusal = error
        except NotAuthenticated:
            refusal = unauthorized()
        except HostlerError as error:
            refusal = as_http(error)
        except Exception:  # a fault of the handler must cost one request only
            exchange.problem = traceback.format_exc()
            refusal = HttpError(500, "the service failed; see its log")
        body = msgspec.json.encode({"error": refusal.message or refusal.sentence})
        return Response(refusal.status, body, "application/json", headers=list(refusal.headers)), exchange

    async def _handle(self, request: Request) -> Answer:
        asking = await self._caller(request)
        handler, item = _route(request)
        body = await request.read_body() if request.method == "POST" else b""
        answer = await handler(Call(asking, self.config, body, item))
        return answer if isinstance(answer, Answer) else Answer(answer)

    async def _caller(self, request: Request) -> Asking:
        """The service as the caller may see it. HttpError 401."""
        headers = dict(request.headers)
        given = headers.get("authorization", "")
        if given.lower().startswith(_BEARER):
            headers.setdefault("x-auth-token", given[len(_BEARER) :].strip())
        if self.config.auth == "tokens":
            identity = Identity()
            if "x-auth-token" not in headers:
                raise unauthorized()
            self._service.log_in(identity, headers["x-auth-token"])
            return Asking(self._service, identity)
        if self._tokens is None:
            return Asking(self._service, Identity(LOCAL))
        request.identity = await self._tokens.identify(headers, request.now)
        may_change = not MAY_CHANGE.isdisjoint(request.identity.roles)
        return Asking(self._service, Identity(LOCAL), may_change=may_change)


def _route(request: Request) -> tuple[Handler, str]:
    """The handler, and what the path names behind its route. HttpError 404 and 405."""
    path, item = request.path, ""
    if path not in PATHS:
        path, _, item = path.rpartition("/")
        path += "/"
    if path not in PATHS or (path.endswith("/") and not item):
        raise HttpError(404, f"there are {', '.join(PATHS)}")
    handler = ROUTES.get((request.method, path))
    if handler is None:
        allowed = ", ".join(method for method, known in ROUTES if known == path)
        raise HttpError(405, f"the methods of {path} are {allowed}", headers=(("allow", allowed),))
    return handler, item
