"""What the Placement API refuses, by kind; each error carries the code that Placement's clients look for."""

from __future__ import annotations

from ..types.errors import HostlerError

UNDEFINED = "placement.undefined_code"
CONCURRENT_UPDATE = "placement.concurrent_update"
INVENTORY_INUSE = "placement.inventory.inuse"
DUPLICATE_NAME = "placement.duplicate_name"
PROVIDER_IN_USE = "placement.resource_provider.inuse"
PROVIDER_CANNOT_DELETE_PARENT = "placement.resource_provider.cannot_delete_parent"
PROVIDER_NOT_FOUND = "placement.resource_provider.not_found"


class ApiError(HostlerError):
    """Base of what the API refuses. ``placement_code`` is Placement's code of the error."""

    def __init__(
        self, message: str, *, field: str | None = None, hint: str | None = None, placement_code: str = UNDEFINED
    ) -> None:
        super().__init__(message, field=field, hint=hint)
        self.placement_code = placement_code


class BadRequest(ApiError):
    """The request itself is invalid: it refers to something that does not exist, or breaks a rule in any state (HTTP
    400)."""

    code = "bad_request"


class NotFound(ApiError):
    """What the operation is about does not exist (HTTP 404)."""

    code = "not_found"


class Conflict(ApiError):
    """The state does not allow it: an older generation, something in use, no capacity (HTTP 409)."""

    code = "conflict"


def changed_meanwhile(what: str) -> Conflict:
    """The error for a generation that has moved on."""
    return Conflict(what, field="generation", hint="read it again and retry", placement_code=CONCURRENT_UPDATE)
