"""How drivers check the certificates of their back ends."""

from __future__ import annotations

import ssl

from ..placement.types.errors import InvalidValue


def tls_of(ca_file: str | None, insecure: bool) -> ssl.SSLContext | bool:
    """How certificates are checked. InvalidValue if the file cannot be read."""
    if ca_file is None:
        return not insecure
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise InvalidValue(f"{ca_file} cannot be read: {error}", field="options.ca_file") from error
