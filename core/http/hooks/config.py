"""The table ``[hooks]`` of the configuration."""

from __future__ import annotations

from typing import Literal

import msgspec

from ....placement.types.errors import InvalidValue
from ..config import Limits, StaticToken, address


class HooksConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where other schedulers ask, and how. Where ``listen`` is set, the hooks are served there on the service's
    state."""

    listen: str = ""
    """HOST:PORT."""
    auth: Literal["none", "static", "tokens"] = "none"
    """``static``: callers show one of ``tokens`` as X-Auth-Token, or as Authorization: Bearer. ``tokens``: a token of
    the service's own, by whose user every right is judged."""
    tokens: tuple[StaticToken, ...] = ()
    prefix: str = ""
    """Path under which the hooks are mounted, such as /hostler."""
    refuse: bool = False
    """Of the hooks of Nova, Cinder and Manila: True leaves out hosts that Hostler's filters refuse. False puts them
    last, so that the caller's filters alone refuse."""
    hold_seconds: float = 300.0
    """How long what was answered is held, until the caller shows that it took it."""
    hold_nova: bool = False
    """True: Nova's hook holds the guest of a create on the host that it names first."""
    kubernetes_cpu: Literal["cores", "millicores"] = "millicores"
    """How nodes of Kubernetes have their CPU in Hostler: whole cores as VCPU, or thousandths as CUSTOM_MILLICPU."""
    kubernetes_api: str = ""
    """URL of the Kubernetes API, such as https://10.0.0.1:6443: where it is set, pods are held and bound."""
    kubernetes_token_file: str = ""
    """File with the token for it, read for each binding."""
    kubernetes_ca_file: str = ""
    """Certificates that it is known by; empty: those of the system."""
    access_log: bool = True
    limits: Limits = Limits()


def check(config: HooksConfig) -> None:
    """InvalidValue for values that have the right type but cannot work."""
    try:
        address(config.listen)
    except InvalidValue as error:
        raise InvalidValue(str(error.args[0]), field="listen", hint="such as 127.0.0.1:8779") from None
    for name in Limits.__struct_fields__:
        if getattr(config.limits, name) <= 0:
            raise InvalidValue(f"limits.{name} must be above 0", field=f"limits.{name}")
    if config.prefix and (not config.prefix.startswith("/") or config.prefix.endswith("/")):
        raise InvalidValue(f"prefix is {config.prefix!r}, but must start with / and not end with it", field="prefix")
    if not 0 < config.hold_seconds <= 31_536_000:
        raise InvalidValue("hold_seconds must be above 0, and at most a year", field="hold_seconds")
    if config.kubernetes_api and not config.kubernetes_api.startswith(("https://", "http://")):
        raise InvalidValue("kubernetes_api must be an http or https URL", field="kubernetes_api")
    if config.auth == "static" and not config.tokens:
        raise InvalidValue("auth is static, but there is no [[hooks.tokens]]", field="tokens")
