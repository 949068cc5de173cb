"""Near a given address: hints ``build_near_host_ip`` and ``cidr``. Source: Nova 33 SimpleCIDRAffinityFilter."""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar

from ..types.cached_texts import cached_texts
from ..types.errors import InvalidValue
from ..types.host import HostState
from ..types.request import Request
from .base import Filter

_ADDRESS = "build_near_host_ip"
_PREFIX = "cidr"


class SimpleCIDRAffinityFilter(Filter):
    """Passes a host whose ``host_ip`` is in the network around ``build_near_host_ip``, wide as ``cidr`` says
    (default /24)."""

    name: ClassVar[str] = "SimpleCIDRAffinityFilter"
    once_per_request: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        return bool(_wanted(request))

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"host_ip"})

    def key(self, request: Request) -> Hashable:
        return _wanted(request)

    def host_passes(self, host: HostState, request: Request) -> bool:
        wanted = _wanted(request)
        if not wanted:
            return True
        network = _network(wanted)
        address = _address(host.host_ip)
        return address is not None and address in network

    def reason(self, host: HostState, request: Request) -> str:
        return f"host_ip {host.host_ip} is not in {_network(_wanted(request))}"

    def nova_error(self, host: HostState, request: Request) -> str | None:
        """The exception that Nova 33 raises when it judges ``host``."""
        try:
            known = not _wanted(request) or (_network(_wanted(request)) and _address(host.host_ip) is not None)
        except InvalidValue:
            return "AddrFormatError"
        return None if known else "AddrFormatError"


def _wanted(request: Request) -> str:
    """Address and prefix as one text; empty if no address is given."""
    address = _single(request, _ADDRESS, "")
    return address and address + _single(request, _PREFIX, "/24")


def _single(request: Request, hint: str, default: str) -> str:
    values = request.scheduler_hints.get(hint) or (default,)
    if len(values) > 1:
        raise InvalidValue(f"the hint {hint} takes one value, not {len(values)}", field=f"scheduler_hints.{hint}")
    return values[0]


@cached_texts(1024)
def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidValue(
            f"the hints {_ADDRESS} and {_PREFIX} make no network: {text[:200]!r}", field=f"scheduler_hints.{_ADDRESS}"
        ) from error


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        return None if text is None else ip_address(text)
    except ValueError:
        return None
