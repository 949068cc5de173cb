"""The service's configuration: a TOML file, with single values overridden from the environment, checked as a whole."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from ..placement.errors import InvalidValue, UnknownName
from ..placement.policy import Policy
from .http.config import PlacementConfig
from .rpc.addresses import Address
from .rpc.server import Limits
from .writer import ANSWERS_KEPT, QUEUE_LIMIT, SNAPSHOT_EVERY

PREFIX: Final = "HOSTLER_"
_HEADER: Final = re.compile(r"\s*\[\s*([A-Za-z0-9_.\" -]+?)\s*\]\s*(#.*)?")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all tables."""


class Tls(Table, frozen=True):
    """[rpc.tls]: PEM files. With ``client_ca`` clients may show certificates, which then say who they are."""

    certificate: str
    key: str
    client_ca: str | None = None


class Rpc(Table, frozen=True):
    """[rpc]: where to listen (unix:PATH, tcp:HOST:PORT, tls:HOST:PORT), and who may come: with ``auth`` tokens callers
    show a token or a certificate, but the service's own user on a Unix socket; with none everybody is a cloud admin."""

    listen: tuple[str, ...] = ("unix:hostler.sock",)
    auth: Literal["tokens", "none"] = "tokens"
    tls: Tls | None = None
    limits: Limits = Limits()


class Data(Table, frozen=True):
    """[data]: the folder of the journal (none: nothing outlives the process), how many commands come between two
    snapshots, whether the whole history is kept, and how many idempotency keys are remembered."""

    folder: str | None = None
    snapshot_every: Positive = SNAPSHOT_EVERY
    keep_history: bool = False
    keys_kept: Positive = ANSWERS_KEPT
    queue: Positive = QUEUE_LIMIT
    audit: bool = True


class Watching(Table, frozen=True):
    """[operation]: where to serve /metrics, /health and /ready over HTTP (HOST:PORT; none: nowhere), how much to log
    and in which form, and how long to wait for answers to be read when stopping."""

    http: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"
    drain_seconds: Seconds = 10.0


class Config(Table, frozen=True):
    """The whole file. ``policy`` is the path of a policy file (docs/policies.md), read again at SIGHUP."""

    policy: str | None = None
    rpc: Rpc = Rpc()
    data: Data = Data()
    operation: Watching = Watching()
    placement: PlacementConfig = PlacementConfig()
    """Where ``listen`` is set, the Placement API is served on the same state; its ``data`` are the service's."""

    @property
    def addresses(self) -> list[Address]:
        """Where to listen."""
        return [Address.parse(text) for text in self.rpc.listen]

    def policy_values(self) -> dict[str, dict[str, Any]] | None:
        """The policy file's content, checked; None if there is no file. InvalidValue, UnknownName."""
        if self.policy is None:
            return None
        Policy.from_toml(Path(self.policy))
        return tomllib.loads(Path(self.policy).read_text(encoding="utf-8"))


def read_config(path: str | os.PathLike[str] | None, environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration of a file (None: the defaults) with the environment's overrides.

    ``HOSTLER_DATA__FOLDER=/x`` is ``folder = "/x"`` in ``[data]``: a TOML value, or else a text. InvalidValue or
    UnknownName, with the file's line and the key, for what cannot be.
    """
    text = "" if path is None else _text(Path(path))
    name = "the configuration" if path is None else os.fspath(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidValue(f"{name} is no TOML: {error}", field="config") from None
    origins = _override(values, environment)
    try:
        config = msgspec.convert(values, Config)
        _check(config)
    except msgspec.ValidationError as error:
        raise _located(error, name, text, origins) from None
    return config


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidValue(f"the configuration {path} cannot be read: {error}", field="config") from None


def _override(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Put the environment's values in; which variable each key is from."""
    origins = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        *tables, key = variable.removeprefix(PREFIX).lower().split("__")
        inner = values
        for table in tables:
            inner = inner.setdefault(table, {})
            if not isinstance(inner, dict):
                raise InvalidValue(f"{variable}: {table} is no table", field=variable)
        inner[key] = _value(text)
        origins[".".join((*tables, key))] = variable
    return origins


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check(config: Config) -> None:
    """What types do not say."""
    for position, text in enumerate(config.rpc.listen):
        try:
            address = Address.parse(text)
        except InvalidValue as error:
            raise msgspec.ValidationError(f"{error} - at `$.rpc.listen[{position}]`") from None
        if address.kind == "tls" and config.rpc.tls is None:
            raise msgspec.ValidationError("tls: needs a table [rpc.tls] - at `$.rpc.listen`")
    if config.operation.http is not None and not re.fullmatch(r".+:\d{1,5}", config.operation.http):
        raise msgspec.ValidationError("must be HOST:PORT - at `$.operation.http`")


def _located(
    error: msgspec.ValidationError, name: str, text: str, origins: Mapping[str, str]
) -> InvalidValue | UnknownName:
    """The complaint with the line or variable that the value is from."""
    problem, _, at = str(error).partition(" - at `$")
    key = at.rstrip("`").lstrip(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem)
    if unknown:
        key = f"{key}.{unknown[1]}".lstrip(".")
    bare = re.sub(r"\[.*", "", key)
    where = f"{origins[bare]} (environment)" if bare in origins else _line(name, text, bare)
    if unknown:
        return UnknownName(f"{where}: there is no key {key}", field=key)
    return InvalidValue(f"{where}: {key}: {problem}", field=key)


def _line(name: str, text: str, key: str) -> str:
    """``file:line`` where a key, or else its table, is set."""
    table, best = "", name
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.fullmatch(line)
        if header:
            table = re.sub(r'["\s]', "", header[1])
        entry = _KEY.match(line)
        found = ".".join(filter(None, (table, entry[1] if entry else "")))
        if found == key:
            return f"{name}:{number}"
        if header and key.startswith(f"{table}."):
            best = f"{name}:{number}"
    return best
