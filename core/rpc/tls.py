"""TLS for both ends: contexts from files, what failures mean, and the names in a peer's certificate. Handshakes on
trio's streams are in handshake.py."""

from __future__ import annotations

import errno
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Final, Literal

from ...placement.types.errors import HostlerError, InvalidValue
from ..tls_failures import alert_of, cause, words

Path = str | os.PathLike[str]
TlsVersion = Literal["1.2", "1.3"]
_VERSIONS: Final[dict[TlsVersion, ssl.TLSVersion]] = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


HANDSHAKE: Final = b"\x16"
"""First byte of a TLS connection."""
_UNTRUSTED: Final = (2, 7, 18, 19, 20, 21)
_OUT_OF_DATE: Final = (9, 10)
"""OpenSSL's X509_V_ERR_ numbers."""
_ALERTS: Final = {
    "UNKNOWN_CA": "the service does not trust the authority of the client certificate",
    "DECRYPT_ERROR": "the service does not trust the authority of the client certificate, or its key is another",
    "BAD_CERTIFICATE": "the service refuses the client certificate",
    "CERTIFICATE_EXPIRED": "the client certificate has expired",
    "CERTIFICATE_REVOKED": "the client certificate was revoked",
    "CERTIFICATE_REQUIRED": "the service requires a client certificate",
}
"""Explanations of alerts about certificates from the peer, as ``alert_of`` names them."""


class TlsFailed(HostlerError):
    """One end does not accept the other's certificate (authority, dates, name), or does not speak TLS, or no version of
    it that the other does. Nothing was done."""

    code = "tls_failed"


def server_context(
    certificate: Path, key: Path, client_ca: Path | None = None, *, minimum_version: TlsVersion = "1.2"
) -> ssl.SSLContext:
    """A server's context. With ``client_ca`` clients may authenticate with a certificate of that authority.
    InvalidValue, naming the file, if one cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[minimum_version]
    _load(context, certificate, key)
    if client_ca is not None:
        _trust(context, client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A client's context: servers with certificates of ``ca`` (None: of the system's authorities) are trusted;
    ``certificate`` and ``key`` authenticate the client."""
    context = ssl.create_default_context()
    if ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _trust(context, ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        _load(context, certificate, key)
    return context


def renewal(
    context: ssl.SSLContext, ca: Path | None, certificate: Path | None = None, key: Path | None = None
) -> Callable[[], None]:
    """Read the files of a client's context, which may take time; InvalidValue for those that cannot be used. What is
    returned has the context use for new connections what was read, and reads no file; what the context trusted it
    trusts still."""
    authorities = None if ca is None else _Content(ca)
    own = None if certificate is None else _Content(certificate)
    its_key = None if key is None else _Content(key)

    def load(into: ssl.SSLContext) -> None:
        if authorities is not None:
            with authorities.file() as file:
                _trust(into, file, named=authorities.path)
        if own is not None:
            with own.file() as file, nullcontext() if its_key is None else its_key.file() as key_file:
                _load(into, file, key_file, named=(own.path, key))

    load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # a pair that does not match would spoil the one in use
    return partial(load, context)


_NO_MEMFD: Final = (errno.ENOSYS, errno.EACCES, errno.EPERM)
"""Errors where the system, or its settings, know no files in memory."""


class _Content:
    """What a file has when it is read. InvalidValue if it cannot be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self._content = file.read()
        except OSError as error:
            raise InvalidValue(f"{path} cannot be read: {error}", field="tls") from None

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A file in memory with the same: a context loads certificates with their key from files only."""
        try:
            number = os.memfd_create("tls")
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_MEMFD:
                raise InvalidValue(f"{self.path} cannot be used: {error}", field="tls") from None
            # A private one on the disk, while it is loaded.
            with tempfile.NamedTemporaryFile() as other:
                other.write(self._content)
                other.flush()
                yield other.name
            return
        with open(number, "wb") as file:
            file.write(self._content)
            file.flush()
            yield f"/proc/self/fd/{number}"


def failure(error: ssl.SSLError, *, after_handshake: bool = False) -> TlsFailed | None:
    """Explanation of a client's TLS error; None if it only says that the connection was lost."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrusted(error)
    match cause(error, after_handshake=after_handshake):
        case "own certificate":
            text = _ALERTS.get(alert_of(error), f"the service does not accept the client certificate: {words(error)}")
            return TlsFailed(text, field="tls", hint="see the client certificate and its authority")
        case "version":
            return TlsFailed("the service speaks no version of TLS that this end does", field="tls")
        case "refusal":
            return TlsFailed(f"the service refuses the connection: {words(error)}", field="tls")
        case "no TLS":
            hint = "is tcp: meant, or another port?"
            return TlsFailed("the service speaks no TLS there", field="address", hint=hint)
        case "its certificate" | "lost":
            return None


def _distrusted(error: ssl.SSLCertVerificationError) -> TlsFailed:
    if error.verify_code in _UNTRUSTED:
        hint = "name the authority that signed it (--ca)"
        return TlsFailed("the service's certificate is of no authority that is trusted", field="tls", hint=hint)
    if error.verify_code in _OUT_OF_DATE:
        text = f"the service's {error.verify_message}"
        return TlsFailed(text, field="tls", hint="is it to be renewed, or is this machine's clock wrong?")
    text = f"the service's certificate is invalid: {error.verify_message.rstrip('.')}"
    return TlsFailed(text, field="tls", hint="use a name that the certificate has")


def names_of(certificate: Any) -> tuple[str, ...]:
    """Common names and DNS, URI and mail alternative names of a certificate as ``getpeercert`` gives it."""
    if not certificate:
        return ()
    subject = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return (*subject, *(value for kind, value in certificate.get("subjectAltName", ()) if kind != "IP Address"))


def _load(
    context: ssl.SSLContext,
    certificate: Path,
    key: Path | None,
    named: tuple[Path, Path | None] | None = None,
) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        of, its_key = named or (certificate, key)
        raise InvalidValue(f"certificate {of} with key {its_key} cannot be used: {error}", field="tls") from None


def _trust(context: ssl.SSLContext, ca: Path, named: Path | None = None) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidValue(f"the authority {named or ca} cannot be used: {error}", field="tls") from None
