"""What an operator can set about the HTTP API: the table ``[placement]`` of the configuration file."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec

from ...placement.types.errors import InvalidValue

MEMORY: Final = ":memory:"
"""No journal: nothing outlives the process."""
NOBODY: Final = "00000000-0000-0000-0000-000000000000"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: unknown keys are refused."""


class Limits(Table, frozen=True):
    """Limits for one client; a request beyond them is refused and the connection closed."""

    header_bytes: int = 65_536
    """Request line and headers together."""
    body_bytes: int = 16 * 2**20
    json_depth: int = 32
    query_fields: int = 1_000
    candidate_steps: int = 20_000
    """Of one search for allocation candidates, beyond 256 that each tree has free; see docs/placement.md."""
    connections: int = 1_024
    """Open connections; those beyond wait to be accepted."""
    idle_seconds: float = 75.0
    """Between two requests of a connection."""
    head_seconds: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_seconds: float = 60.0
    """From the end of the headers to the end of the body."""
    write_seconds: float = 60.0
    """For the client to take an answer."""
    drain_seconds: float = 5.0
    """How long to go on reading what a refused client still sends, so that it sees the answer; also how long requests
    under way may take when the server stops."""


class StaticToken(Table, frozen=True):
    """A token known to the server by the SHA-256 of its text, in hexadecimal."""

    sha256: str
    user: str
    project: str | None = None
    """None: the token is for the system as a whole."""
    roles: tuple[str, ...] = ("admin",)
    expires: float | None = None
    """Seconds since the epoch."""


class Keystone(Table, frozen=True):
    """How tokens are validated by an identity service, as keystonemiddleware does."""

    auth_url: str = ""
    """Root of the identity API, such as http://controller:5000/v3."""
    username: str = "placement"
    password: str = ""
    user_domain_name: str = "Default"
    project_name: str = "service"
    project_domain_name: str = "Default"
    www_authenticate_uri: str = ""
    """What 401 answers name; auth_url if empty."""
    token_cache_seconds: float = 300.0
    """How long a validation is cached, which is also how long a revoked token may still be accepted; 0: not cached."""
    service_token_roles: tuple[str, ...] = ("service",)
    """Roles of services whose own valid token makes a user's expired token acceptable, for long operations."""
    timeout_seconds: float = 10.0


class PolicyOptions(Table, frozen=True):
    """Access rules in the format of oslo.policy."""

    file: str = ""
    """YAML or JSON with rules that replace the built-in ones."""
    enforce_new_defaults: bool = False
    """True: only the new defaults (admin or service role) count, not the deprecated ones (admin) beside them."""


class Cors(Table, frozen=True):
    """Origins from which browsers may call; none by default."""

    allowed_origin: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ("OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "PATCH")
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    allow_credentials: bool = True
    max_age: int = 3600


class PlacementConfig(Table, frozen=True):
    """The table ``[placement]``."""

    listen: str = ""
    """HOST:PORT."""
    data: str = MEMORY
    """Folder of the journal and its snapshots."""
    auth: Literal["", "none", "static", "keystone", "noauth2"] = ""
    """Empty: ``none`` if only this machine can connect, otherwise it must be set."""
    prefix: str = ""
    """Path under which the API is mounted, such as /placement."""
    access_log: bool = True
    incomplete_consumer_project_id: str = NOBODY
    incomplete_consumer_user_id: str = NOBODY
    max_allocation_candidates: int = -1
    """Candidates made for one request at most; -1: as many as it asks for."""
    allocation_candidates_generation_strategy: Literal["depth-first", "breadth-first"] = "depth-first"
    randomize_allocation_candidates: bool = False
    """True: trees are in random order, different for each request, so that clients with a limit do not all get the same
    hosts; the order within a tree is fixed."""
    randomize_seed: int = 0
    """Seed of that order: the n-th such request since the start derives its order from the seed and n."""
    limits: Limits = Limits()
    tokens: tuple[StaticToken, ...] = ()
    keystone: Keystone = Keystone()
    policy: PolicyOptions = PolicyOptions()
    cors: Cors = Cors()


class File(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration file; tables of other parts of the service are theirs to read."""

    placement: PlacementConfig = PlacementConfig()


def load_config(path: Path) -> PlacementConfig:
    """Read the table ``[placement]`` of a TOML file. Raises InvalidValue, naming the file and the key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidValue(f"{path}: {error}", field="config") from error
    try:
        config = msgspec.convert(raw, File).placement
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{path}: {error}", field="config") from error
    check(config)
    return config


def check(config: PlacementConfig) -> None:
    """Raise InvalidValue for values that have the right type but cannot work."""
    for name in Limits.__struct_fields__:
        if getattr(config.limits, name) <= 0:
            raise InvalidValue(f"limits.{name} must be above 0", field=f"limits.{name}")
    if config.prefix and (not config.prefix.startswith("/") or config.prefix.endswith("/")):
        raise InvalidValue(f"prefix is {config.prefix!r}, but must start with / and not end with it", field="prefix")
    if config.auth == "static" and not config.tokens:
        raise InvalidValue("auth is static, but there is no [[placement.tokens]]", field="tokens")
    if config.auth == "keystone" and not config.keystone.auth_url:
        raise InvalidValue("auth is keystone, but keystone.auth_url is empty", field="keystone.auth_url")
    if config.randomize_seed < 0:
        raise InvalidValue("randomize_seed must not be negative", field="randomize_seed")
    for name, least in (("token_cache_seconds", 0.0), ("timeout_seconds", 0.001)):
        if not getattr(config.keystone, name) >= least:
            raise InvalidValue(f"keystone.{name} must be at least {least:g}", field=f"keystone.{name}")
    for token in config.tokens:
        if len(token.sha256) != 64 or set(token.sha256) - set("0123456789abcdef"):
            hint = "printf %s TOKEN | sha256sum"
            raise InvalidValue("tokens.sha256 must be 64 lower-case hexadecimal digits", field="tokens", hint=hint)


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, or [IPV6]:PORT. Raises InvalidValue."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise InvalidValue(f"{text!r} is not an address", field="placement", hint="such as 127.0.0.1:8778")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """True if only this machine reaches a host's address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
