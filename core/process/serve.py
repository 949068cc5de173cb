"""The command ``hostler serve``: runs the service, or the Placement API, until it is stopped."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import cyclopts
from cyclopts import Parameter

from ...placement.types.errors import InvalidValue
from .clock import HonestClock

if TYPE_CHECKING:
    from .config import Loaded

SWITCH_SECONDS: Final = 0.0005
"""Seconds after which the event loop's thread lets one that waits for the interpreter have it. The journal's threads
wait several times in each batch: under load 5 ms each time, at Python's default."""

app = cyclopts.App(name="serve", help="Run the service until SIGTERM or Ctrl-C. SIGHUP reads the policy again.")


@app.default
async def serve(
    *,
    rpc: Annotated[list[str] | None, Parameter(help="unix:PATH, tcp:HOST:PORT or tls:HOST:PORT; repeatable")] = None,
    placement: Annotated[str | None, Parameter(help="serve the OpenStack Placement API there: HOST:PORT")] = None,
    http: Annotated[str | None, Parameter(help="serve /metrics, /healthz and /readyz there: HOST:PORT")] = None,
    nova: Annotated[
        str | None, Parameter(help="answer Nova's scheduler RPC on that bus: rabbit://…, or @FILE with the URL")
    ] = None,
    data: Annotated[str | None, Parameter(help="folder of the journal and snapshots; :memory: for none")] = None,
    config: Annotated[Path | None, Parameter(help="a TOML file, see docs/operation.md and docs/placement.md")] = None,
    auth: Annotated[
        str | None, Parameter(help="tokens, none; of --placement alone: none, static, keystone, noauth2")
    ] = None,
    insecure: Annotated[bool, Parameter(help="start although every client may do everything", negative="")] = False,
) -> int:
    """Run the service. A line ``ready ADDRESS...`` is printed on standard output once calls are accepted.

    With --placement alone, serves the Placement API, configured by the file's table [placement]; with --rpc as well,
    both on one state. --nova needs the table [nova] of the file as well. Without --data, here or in the file, all state
    is lost when the process ends.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    if placement is not None and not rpc:
        if http is not None:
            problem = "--http is for the service, and --placement alone is only the Placement API"
            raise InvalidValue(problem, field="http", hint="give --rpc as well")
        return await _placement(placement, auth, data, config, insecure=insecure)
    from ..http.config import MEMORY
    from .daemon import run  # the rest takes its time to import

    given = {
        ("rpc", "listen"): rpc,
        ("rpc", "auth"): auth,
        ("placement", "listen"): placement,
        ("nova", "transport_url"): nova,
        ("operation", "http"): http,
        ("data", "folder"): data,
        ("operation", "insecure"): insecure,
    }
    options: dict[tuple[str, ...], Any] = {key: value for key, value in given.items() if value}
    if data == MEMORY:
        options["data", "folder"] = None

    def load() -> Loaded:
        from .config import load as read

        return read(config, options=options)

    await run(load, ready=lambda addresses: print("ready", *addresses, flush=True))
    return 0


async def _placement(address: str, auth: str | None, data: str | None, config: Path | None, *, insecure: bool) -> int:
    from ..http.service import run, settled  # takes its time to import

    settings, clock = settled(config, listen=address, auth=auth, data=data, insecure=insecure), HonestClock()
    await run(settings, signals=(signal.SIGINT, signal.SIGTERM), clock=clock, expiry_clock=clock.latest)
    return 0
