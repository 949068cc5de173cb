"""What the errors of TLS mean, at the end that connects."""

from __future__ import annotations

import re
import ssl
from typing import Final, Literal

Cause = Literal["its certificate", "own certificate", "version", "no TLS", "refusal", "lost"]
"""``its certificate``: this end does not accept the other's. ``own certificate``: the other end does not accept this
one's. ``version``: there is none that both speak. ``no TLS``: the other end does not speak it. ``refusal``: the other
end refuses the connection for another reason. ``lost``: the connection was, or what came on it was damaged."""

_OF_CERTIFICATES: Final = ("UNKNOWN_CA", "DECRYPT_ERROR", "BAD_CERTIFICATE", "UNSUPPORTED_CERTIFICATE", "ACCESS_DENIED")
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_ALERT: Final = re.compile(r"(?:(?:SSLV3|TLSV1|TLSV13)_ALERT_|TLSV1_)(\w+)")
_VERSIONS: Final = ("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE")


def cause(error: ssl.SSLError, *, after_handshake: bool = False) -> Cause:
    """What has failed. ``after_handshake``: that was over at this end, as it is with TLS 1.3 before the other end tells
    what it says of this one's certificate. Alerts: RFC 8446, section 6.2."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate"
    alert, reason = alert_of(error), error.reason or ""
    if alert.startswith(("CERTIFICATE_", *_OF_CERTIFICATES)):
        return "own certificate"
    if alert == "PROTOCOL_VERSION" or reason in _VERSIONS:
        return "version"
    if alert:
        return "refusal"
    return "no TLS" if reason in _NO_TLS and not after_handshake else "lost"


def alert_of(error: ssl.SSLError) -> str:
    """The alert by which the other end has ended the connection, as OpenSSL's names end; empty without one."""
    found = _ALERT.fullmatch(error.reason or "")
    return found[1] if found is not None else ""


def words(error: ssl.SSLError) -> str:
    """What OpenSSL says of a failure."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (alert_of(error) or error.reason or str(error)).lower().replace("_", " ")
