"""Everything that can go wrong with etcd, as a closed set of errors."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from typing import Any, Final

import httpx

from ...placement.types.errors import HostlerError
from ..tls_failures import cause, words

_COMPACTED: Final = re.compile(r"required revision has been compacted")
_FULL: Final = re.compile(r"database space exceeded|no space")
_TOO_LARGE: Final = re.compile(r"request is too large|trying to send message larger|received message larger")
_TRANSIENT: Final = re.compile(
    r"no leader|leader changed|timed out|too many requests|not capable|stopped|not ready|raft proposal dropped"
    r"|unhealthy|connection|transport",
    re.IGNORECASE,
)
_DENIED: Final = re.compile(r"authentication|permission|user name|auth store is old|revision in header is old")
_STALE: Final = ("invalid auth token", "user name is empty", "auth store is old", "revision in header is old")
NOT_ENABLED: Final = "authentication is not enabled"
UNAUTHENTICATED: Final = 16
_UNAVAILABLE_CODES: Final = (1, 4, 14)
_DENIED_CODES: Final = (7, UNAUTHENTICATED)


class EtcdError(HostlerError):
    """Base of the errors of etcd."""

    code = "etcd"


class EtcdUnavailable(EtcdError):
    """No endpoint has answered in time, or the cluster has no quorum. What was asked for may have been done."""

    code = "etcd_unavailable"


class EtcdUntrusted(EtcdUnavailable):
    """TLS with an endpoint fails: its certificate is not trusted, is out of date or is another host's, or it does not
    accept this client's, or refuses the connection, or speaks no TLS, or no version of it that this client does."""

    code = "etcd_untrusted"


class EtcdFull(EtcdError):
    """etcd's database has reached its quota: it takes no more keys until space is made and its alarm is disarmed.
    Nothing was done."""

    code = "etcd_full"


class EtcdCompacted(EtcdError):
    """The revision that was asked for has been compacted. ``revision``: the oldest one there is, 0 if unknown."""

    code = "etcd_compacted"

    def __init__(self, message: str, revision: int = 0) -> None:
        super().__init__(message)
        self.revision = revision


class EtcdLeaseGone(EtcdError):
    """The lease has expired or was revoked. Nothing was done."""

    code = "etcd_lease_gone"


class EtcdDenied(EtcdError):
    """The user or the password is wrong, or the user may not do that. Nothing was done."""

    code = "etcd_denied"


class EtcdRefused(EtcdError):
    """etcd refuses the request itself, such as one that is too large. Nothing was done."""

    code = "etcd_refused"


def error_of_no_answer(url: str, error: BaseException) -> EtcdUnavailable:
    """The error for a request to an endpoint that has failed without an answer."""
    failed = next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)
    why = _why_no_tls(failed, isinstance(error, httpx.ReadError | httpx.WriteError)) if failed is not None else ""
    if not why:
        return EtcdUnavailable(f"no answer of etcd at {url}: {said(error)}")
    hint = "see ca, certificate and key in [data.etcd], and etcd's own certificate"
    return EtcdUntrusted(f"no TLS with etcd at {url}: {why}", field="data.etcd.ca", hint=hint)


def _why_no_tls(error: ssl.SSLError, after_handshake: bool) -> str:
    """Why there can be no TLS with an endpoint; empty where only the connection was lost."""
    match cause(error, after_handshake=after_handshake):
        case "its certificate":
            return f"its certificate is not accepted: {words(error)}"
        case "own certificate":
            return f"it does not accept this member's certificate: {words(error)}"
        case "version":
            return "it speaks no version of TLS that this member does"
        case "refusal":
            return f"it refuses the connection: {words(error)}"
        case "no TLS":
            return "it speaks no TLS there"
        case "lost":
            return ""


def said(error: BaseException) -> str:
    """What an error says; where it says nothing, such as one that a library has made of another, what that says."""
    return next((text for each in _causes(error) if (text := str(each))), type(error).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it comes from."""
    chain: BaseException | None = error
    while chain is not None:
        yield chain
        chain = chain.__cause__ or chain.__context__


def error_of(status: int, body: Any) -> EtcdError:
    """The error for an answer of the gateway that is not 200: ``{"error": text, "code": gRPC code}``, or the same
    within ``error`` on a stream."""
    code, text = 0, ""
    if isinstance(body, dict):
        inner = body.get("error")
        if isinstance(inner, dict):  # on streams
            body = inner
        code = int(body.get("code", body.get("grpc_code", 0)) or 0)
        text = str(body.get("message") or body.get("error") or "")
    text = text or f"HTTP status {status}"
    if _COMPACTED.search(text):
        return EtcdCompacted(text)
    if _FULL.search(text):
        hint = "make space: compact, defragment and disarm the alarm (etcdctl), or raise its quota"
        return EtcdFull(f"etcd is full: {text}", hint=hint)
    if "requested lease not found" in text:
        return EtcdLeaseGone(text)
    if code in _DENIED_CODES or status in (401, 403) or _DENIED.search(text):
        hint = "check the user, password_file and certificate in [data.etcd], and the user's roles in etcd"
        return EtcdDenied(f"etcd denies it: {text}", field="data.etcd.user", hint=hint)
    if _TOO_LARGE.search(text):
        return EtcdRefused(f"etcd refuses it: {text}", hint="raise etcd's --max-request-bytes")
    if code in _UNAVAILABLE_CODES or status in (502, 503, 504) or _TRANSIENT.search(text):
        return EtcdUnavailable(f"etcd is not available: {text}")
    return EtcdRefused(f"etcd refuses it: {text} (status {status}, code {code})")


def is_stale_token(error: EtcdError) -> bool:
    """True where a new authentication may help: etcd forgets tokens at each of its restarts, and, of those that it has
    signed, at each change of users and roles."""
    text = str(error.args[0])
    return isinstance(error, EtcdDenied) and any(each in text for each in _STALE)


def needs_no_user(error: EtcdError) -> bool:
    """True for an authentication that etcd refuses because it has no users that it asks."""
    return isinstance(error, EtcdDenied) and NOT_ENABLED in str(error.args[0])
