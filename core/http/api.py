"""The Placement API as a function from request to response: identity, microversion, route, content type, policy,
handler, and the form of refusals. Independent of sockets."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ...placement.api.commands import PlacementCommand
from ...placement.api.placement_model import PlacementModel
from ...placement.types.errors import HostlerError
from ...placement.types.extras import require_extra
from ..forks import Children
from . import cors
from .auth import Authenticator, authenticator
from .candidate_query import Queries
from .config import PlacementConfig
from .errors import HttpError, error_body, preferred
from .handling import Writer
from .identity import SENDER
from .messages import Exchange, Request, Response
from .microversion import negotiate
from .refusals import as_http
from .routes import ROUTES
from .routing import Route, Routes, check_media_type

if TYPE_CHECKING:
    from .policy import Policy

VERSION_HEADER: Final = "openstack-api-version"


class InMemory:
    """A writer without a journal: state that is not saved is lost when the process ends."""

    def __init__(self, model: PlacementModel) -> None:
        self._model = model

    async def submit(self, command: PlacementCommand) -> Any:
        """Apply the command immediately."""
        return self._model.apply(command)


@dataclass
class Api:
    """The API on one model. ``clock`` gives seconds since the epoch, ``new_uuid`` the uuids of providers created
    without one; both are arguments so that tests are exact."""

    model: PlacementModel
    writer: Writer
    config: PlacementConfig = field(default_factory=PlacementConfig)
    clock: Callable[[], float] = time.time
    expiry_clock: Callable[[], float] | None = None
    """The one by which tokens expire, if that is another."""
    new_uuid: Callable[[], str] = lambda: str(uuid.uuid4())
    children: Children = field(default_factory=Children)
    """Who answers what takes long."""
    queries: Queries = field(default_factory=Queries, init=False)
    auth: Authenticator | None = field(init=False)
    policy: Policy | None = field(init=False)

    def __post_init__(self) -> None:
        self.routes = Routes(ROUTES)
        self.auth, self.policy = authenticator(self.config), None
        self._drawn = 0
        require_extra("jsonschema", "service", field="placement")
        if self.auth is not None:
            from .policy import Policy  # oslo.policy takes its time to import

            self.policy = Policy(self.config.policy)

    def next_seed(self) -> tuple[int, int]:
        """The seed of the next random order: derived from the configured seed and the number of orders drawn before."""
        self._drawn += 1
        return self.config.randomize_seed, self._drawn - 1

    async def respond(self, request: Request) -> tuple[Response, Exchange]:
        """Answer a request. Never raises but for cancellation."""
        exchange = Exchange(request)
        request.request_id = f"req-{uuid.uuid4()}"
        request.now, request.prefix = self.clock(), self.config.prefix
        request.query_fields = self.config.limits.query_fields
        response = cors.preflight(self.config.cors, request)
        if response is None:
            response = await self._answer(request, exchange)
            cors.grant(self.config.cors, request, response)
        self._sign(request, response, exchange.minor)
        return response, exchange

    async def _answer(self, request: Request, exchange: Exchange) -> Response:
        try:
            return await self._handle(request, exchange)
        except HttpError as error:
            refusal = error
        except HostlerError as error:
            refusal = as_http(error, quote(request.path) + (f"?{request.raw_query}" if request.raw_query else ""))
        except Exception:  # a fault in the code must fail this request only
            exchange.problem = traceback.format_exc()
            refusal = HttpError(500)
        kind, body = error_body(refusal, _accept(request), request.request_id, exchange.minor)
        return Response(refusal.status, body, kind, list(refusal.headers))

    async def _handle(self, request: Request, exchange: Exchange) -> Response:
        if self.auth is not None and request.path not in ("", "/"):
            request.identity = await self.auth.identify(request.headers, self._expiry_now(request))
        SENDER.set(request.identity)
        request.minor = exchange.minor = negotiate(request.headers.get(VERSION_HEADER, ""))
        _check_length(request)
        route = self.routes.match(request)
        _check_form(request, route)
        if route.rule is not None and not route.own_policy:
            self.authorize(request, route.rule, request.identity.project)
        return await route.handler(request, self)

    def _expiry_now(self, request: Request) -> float:
        return request.now if self.expiry_clock is None else self.expiry_clock()

    def authorize(self, request: Request, rule: str, project: str | None) -> None:
        """Raise HttpError 403 unless policy ``rule`` allows the sender to act on resources of ``project``."""
        if self.policy is not None and not self.policy.allows(rule, request.identity, project):
            raise HttpError(403, f"Policy does not allow {rule} to be performed.")

    def _sign(self, request: Request, response: Response, minor: int | None) -> None:
        response.headers.append(("x-openstack-request-id", request.request_id))
        if minor is not None:
            response.headers.append((VERSION_HEADER, f"placement 1.{minor}"))
            response.headers.append(("vary", VERSION_HEADER))


def _accept(request: Request) -> str:
    """The media type that the client accepts; JSON by default."""
    accept = request.headers.get("accept", "")
    return "application/json" if accept in ("", "*/*") else accept


def _check_length(request: Request) -> None:
    """A body requires a Content-Type."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise HttpError(400, "content-length header must be an integer")
    if int(length) > 0 and not request.headers.get("content-type"):
        raise HttpError(400, "content-type header required when content-length > 0")


def _check_form(request: Request, route: Route) -> None:
    """The body must have the type that the route reads, and the client accept the one that it gives."""
    if route.body:
        check_media_type(request)
    if route.gives_json:
        accept = _accept(request)
        if accept != "application/json" and preferred(accept, ("application/json",)) is None:
            raise HttpError(406, "Only application/json is provided")
