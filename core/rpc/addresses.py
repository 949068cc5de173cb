"""Addresses as texts: ``unix:PATH``, ``tcp:HOST:PORT`` and ``tls:HOST:PORT``. Listening on them is in listening.py."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...placement.types.errors import HostlerError, InvalidValue


class AddressInUse(HostlerError):
    """The address is in use, or does not belong to this machine."""

    code = "address_in_use"


class Address(NamedTuple):
    """Where a service listens. ``host`` is the path of a Unix socket; port 0 is any that is free."""

    kind: Literal["unix", "tcp", "tls"]
    host: str
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse an address. InvalidValue if it is malformed."""
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest:
            return cls("unix", rest)
        host, _, port = rest.rpartition(":")
        if kind in ("tcp", "tls") and host and port.isascii() and port.isdigit() and int(port) < 65_536:
            return cls("tcp" if kind == "tcp" else "tls", host.strip("[]"), int(port))
        hint = "write unix:PATH, tcp:HOST:PORT or tls:HOST:PORT"
        raise InvalidValue(f"{text[:200]!r} is not an address", field="address", hint=hint)

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.host}"
        return f"{self.kind}:[{self.host}]:{self.port}" if ":" in self.host else f"{self.kind}:{self.host}:{self.port}"
