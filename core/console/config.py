"""``hostler config``: checks the configuration of the service and prints the effective settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from ...placement.types.errors import HostlerError
from ..process.config import BadConfig, Loaded, Problem, load
from ..process.settings import KeyPath
from ..rpc.tls import server_context

config = cyclopts.App(name="config", help="Check or show the configuration of the service.")

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="JSON instead of text")]
_SECRET: Final = re.compile(r"(^|_)(password|secret|token|sha256)$")
_URL_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_HIDDEN: Final = "********"
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@config.command(name="check")
def check(file: Path | None = None, *, as_json: AsJson = False) -> int:
    """Say all that is wrong with a configuration FILE, the environment's overrides, and the policy and certificates
    that they name. Exit code 1 if something is."""
    try:
        problems = list(problems_of_files(load(file)))
    except BadConfig as error:
        problems = error.problems
    if as_json:
        print(_json([problem._asdict() for problem in problems]))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        if not problems:
            print(f"{file or 'no file, the defaults'}: all is well")
    return 1 if problems else 0


@config.command(name="show")
def show(file: Path | None = None, *, as_json: AsJson = False) -> int:
    """Print the effective settings and the source of each. Secrets are not shown."""
    loaded = load(file)
    values = msgspec.msgpack.decode(msgspec.msgpack.encode(loaded.config))
    _hide_secrets(values)
    if as_json:
        found = [{"key": _dotted(path), "value": value, "from": loaded.origin(path)} for path, value in _leaves(values)]
        print(_json(found))
        return 0
    for path, value in _leaves(values):
        print(f"{_dotted(path)} = {_toml(value)}".ljust(60), f"# {loaded.origin(path)}")
    return 0


def problems_of_files(loaded: Loaded) -> Iterator[Problem]:
    """What is wrong with the files that the settings name."""
    files = {
        "storage_policy": loaded.storage_policy_values,
        "policy": loaded.policy_values,
        "shadow_policy": loaded.shadow_policy_values,
    }
    said = set()
    for key, values in files.items():
        try:
            values()
        except HostlerError as error:
            if str(error) not in said:
                said.add(str(error))
                yield Problem(loaded.origin((key,)), key, str(error))
    tls = loaded.config.rpc.tls
    if tls is None:
        return
    try:
        server_context(tls.certificate, tls.key, tls.client_ca)
    except HostlerError as error:
        yield Problem(loaded.origin(("rpc", "tls", "certificate")), "rpc.tls", str(error))


def _hide_secrets(value: Any) -> None:
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, (dict, list)):
            _hide_secrets(item)
        elif item and isinstance(name, str) and _SECRET.search(name):
            value[name] = _HIDDEN
        elif isinstance(item, str):
            value[name] = _URL_PASSWORD.sub(_HIDDEN, item)


def _leaves(values: dict[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, name))
        elif value is not None:
            yield (*above, name), value


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        items = [
            f"{name if _BARE.fullmatch(name) else _toml(name)} = {_toml(item)}"
            for name, item in value.items()
            if item is not None
        ]
        return f"{{ {', '.join(items)} }}" if items else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return "inf" if value == float("inf") else msgspec.json.encode(value).decode()
