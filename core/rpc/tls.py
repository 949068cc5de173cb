"""TLS for both ends: contexts from files, and the names in a peer's certificate."""

from __future__ import annotations

import os
import ssl
from typing import Any, Final, Literal

from ...placement.errors import InvalidValue

Path = str | os.PathLike[str]
TlsVersion = Literal["1.2", "1.3"]
_VERSIONS: Final[dict[TlsVersion, ssl.TLSVersion]] = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(
    certificate: Path, key: Path, client_ca: Path | None = None, *, minimum_version: TlsVersion = "1.2"
) -> ssl.SSLContext:
    """A server's context. With ``client_ca`` clients may show a certificate of that authority, which then says who they
    are. InvalidValue, naming the file, if one cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[minimum_version]
    _load(context, certificate, key)
    if client_ca is not None:
        _trust(context, client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A client's context: servers of ``ca`` (None: of the system's authorities) are trusted; ``certificate`` and
    ``key`` say who one is."""
    context = ssl.create_default_context()
    if ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _trust(context, ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        _load(context, certificate, key)
    return context


def names_of(certificate: Any) -> tuple[str, ...]:
    """Common names and DNS, URI and mail alternative names of a certificate as ``getpeercert`` gives it."""
    if not certificate:
        return ()
    subject = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return (*subject, *(value for kind, value in certificate.get("subjectAltName", ()) if kind != "IP Address"))


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidValue(f"certificate {certificate} with key {key} cannot be used: {error}", field="tls") from None


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidValue(f"the authority {ca} cannot be used: {error}", field="tls") from None
