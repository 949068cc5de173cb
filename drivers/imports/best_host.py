"""``hostler best-host``: the external data source protocol of provisioning tools. A flat JSON object of strings comes
on standard input, one goes to standard output; an error is a sentence on standard error and a non-zero exit code."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cyclopts
import msgspec

from ...core.console.remote import Asked, Remote
from ...placement.decide.engine import Engine
from ...placement.persist.file import load
from ...placement.types.decision import Decision
from ...placement.types.errors import HostlerError, InvalidValue, UnknownName
from ...placement.types.request import Request
from .command import read

app = cyclopts.App(name="best-host", help="The best host for a guest, for provisioning tools.")
_FIELDS: Final = ("vcpus", "memory_mb", "disk_gb", "zone", "project", "group", "state", "server", "token", "proxmox")


@app.default
def best_host() -> int:
    """Read a query from standard input: ``vcpus``, ``memory_mb``, ``disk_gb``, ``zone``, ``project``, ``group``, any of
    which may be left out, and one of ``state`` (a fleet's file), ``proxmox`` (an export of cluster resources) or
    ``server`` (a running service; with ``token``). Answers ``host``, ``node``, ``zone`` and ``weight``; nothing is
    claimed."""
    try:
        answer = answered(_query(sys.stdin.buffer.read()))
    except HostlerError as error:
        print(f"hostler: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    return 0


def _query(data: bytes) -> dict[str, str]:
    try:
        query: Any = msgspec.json.decode(data) if data.strip() else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(f"the query must be one JSON object of strings: {error}", field="query") from None
    if not isinstance(query, dict):
        what = "something else" if data.strip() else "nothing"
        raise InvalidValue(f"the query must be one JSON object of strings, got {what}", field="query")
    for name, value in query.items():
        if name not in _FIELDS:
            raise UnknownName.among("field", name, _FIELDS, field="query")
        if not isinstance(value, str):
            hint = f'"{name}": "..."'
            raise InvalidValue(f"{name} must be a string, got {value!r:.60}", field=name, hint=hint)
        if "\0" in value:
            raise InvalidValue(f"{name} must not hold the character NUL", field=name)
    return {name: value for name, value in query.items() if value != ""}


def answered(query: Mapping[str, str]) -> dict[str, str]:
    """The answer to a query. NoValidHost if no host can take the guest."""
    sources = [name for name in ("state", "proxmox", "server") if name in query]
    if len(sources) != 1:
        raise InvalidValue("give one of state, proxmox and server", field="query")
    asked = Asked(
        vcpus=_amount(query, "vcpus"),
        memory_mb=_amount(query, "memory_mb"),
        disk_gb=_amount(query, "disk_gb"),
        zone=query.get("zone"),
        project=query.get("project", ""),
        group=query.get("group"),
    )
    decision = _of_service(query, asked) if sources == ["server"] else _offline(query, asked.request())
    chosen = decision.selected  # which raises for a refusal
    return {
        "host": chosen.host,
        "node": chosen.node,
        "zone": chosen.availability_zone or "",
        "weight": repr(chosen.weight),
    }


def _amount(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", query[name].strip()):
        raise InvalidValue(f"{name} must be a whole number, got {query[name]!r:.60}", field=name)
    return int(query[name])


def _offline(query: Mapping[str, str], request: Request) -> Decision:
    if "state" in query:
        fleet = load(Path(query["state"]))
    else:
        fleet, _ = read("proxmox", (Path(query["proxmox"]),)).fleet()
    return Engine(fleet).place(request)


def _of_service(query: Mapping[str, str], asked: Asked) -> Decision:
    remote = Remote(server=query["server"], token=query.get("token"))
    tried: list[Any] = remote.ask("what_if", {"commands": [{"do": "place", "request": asked.asked()}]})
    if tried[0].error is not None:
        raise InvalidValue(str(tried[0].error.message), field="query")
    return msgspec.convert(tried[0].result, Decision)
