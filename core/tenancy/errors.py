"""Errors of tenancy."""

from __future__ import annotations

from ...placement.types.errors import HostlerError


class NotAuthenticated(HostlerError):
    """The caller is not authenticated: the token is missing, wrong, expired or revoked."""

    code = "not_authenticated"


class NotAllowed(HostlerError):
    """The caller may not do this there."""

    code = "not_allowed"


class QuotaExceeded(HostlerError):
    """A project, one above it, or its domain would have more than its limit."""

    code = "quota_exceeded"
