"""What of a configuration lets people in who have not said who they are: a start like that is refused, unless it is
meant (``insecure``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ...placement.types.errors import HostlerError
from ..http.config import PlacementConfig, address, is_loopback
from ..http.hooks.config import HooksConfig
from ..regions.options import RegionOptions
from ..rpc.addresses import Address

OPEN: Final = ("", "none", "noauth2")
"""Methods of the Placement API that authenticate nothing; the default is ``none``."""
MEANT: Final = "or say --insecure, if that is meant"


def exposures(
    rpc_auth: str, listen: Sequence[str], placement: PlacementConfig, hooks: HooksConfig
) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, problem) of each way in: by the RPC interface that listens on addresses, by the Placement API, and by the
    hooks of other schedulers. Malformed values are reported elsewhere."""
    if rpc_auth == "none":
        for text in filter(_is_reachable, listen):
            yield ("rpc", "auth"), f"none lets every client that reaches {text} do everything: use tokens, {MEANT}"
    if hooks.listen and hooks.auth == "none" and _is_elsewhere(hooks.listen):
        problem = f"none lets every client that reaches {hooks.listen} hold guests: use tokens or static, {MEANT}"
        yield ("hooks", "auth"), problem
    elif hooks.listen and hooks.auth == "none" and rpc_auth == "tokens":
        others = "the RPC interface asks for tokens, but"
        problem = (
            f"{others} none lets every user of this machine hold and release guests: use tokens or static, {MEANT}"
        )
        yield ("hooks", "auth"), problem
    if not placement.listen or placement.auth not in OPEN:
        return
    key, way = ("placement", "auth"), placement.auth or "none"
    if is_exposed(placement):
        admits = f"{way} lets every client that reaches {placement.listen} do everything"
        yield key, f"{admits}: use static or keystone, {MEANT}"
    elif rpc_auth == "tokens":
        others = "the RPC interface asks for tokens, but"
        yield key, f"{others} {way} lets every user of this machine do everything: use static or keystone, {MEANT}"


def in_clear(etcd_endpoints: Sequence[str], regions: Mapping[str, RegionOptions]) -> Iterator[str]:
    """What goes to other machines unencrypted, with which a reader could act in this service's name: the password of
    etcd's user, and tokens for regions. ``etcd_endpoints``: of an etcd for which there is a password."""
    for url in etcd_endpoints:
        host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
        if url.startswith("http://") and _is_elsewhere(f"{host}:{port}"):
            yield f"the password of etcd's user goes to {url} unencrypted: use https"
    for name, region in regions.items():
        for text in region.addresses if region.token is not None else ():
            if text.startswith("tcp:") and _is_elsewhere(text.removeprefix("tcp:")):
                yield f"the token for region {name} goes to {text} unencrypted: use tls"


def is_exposed(config: PlacementConfig) -> bool:
    """True if the Placement API authenticates nothing and other machines can reach it."""
    return config.auth in OPEN and _is_elsewhere(config.listen)


def _is_elsewhere(listen: str) -> bool:
    """True if other machines reach HOST:PORT."""
    try:
        return not is_loopback(address(listen)[0])
    except HostlerError:
        return False


def _is_reachable(text: str) -> bool:
    try:
        where = Address.parse(text)
    except HostlerError:
        return False
    return where.kind != "unix" and not is_loopback(where.host)
