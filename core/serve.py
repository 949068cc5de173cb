"""The command ``hostler serve``: runs the service, or the Placement API, until it is told to stop."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

app = cyclopts.App(name="serve", help="Run the service until SIGTERM or Ctrl-C. SIGHUP reads the policy again.")


@app.default
async def serve(
    *,
    rpc: Annotated[list[str] | None, Parameter(help="unix:PATH, tcp:HOST:PORT or tls:HOST:PORT; repeatable")] = None,
    placement: Annotated[str | None, Parameter(help="serve the OpenStack Placement API there: HOST:PORT")] = None,
    data: Annotated[str | None, Parameter(help="folder of the journal; without one nothing outlives the run")] = None,
    config: Annotated[Path | None, Parameter(help="a TOML file, see docs/operation.md and docs/placement.md")] = None,
    auth: Annotated[str | None, Parameter(help="RPC: tokens, none; Placement: none, static, keystone, noauth2")] = None,
) -> int:
    """Run the service. Once calls are taken, a line ``ready ADDRESS...`` comes on standard output.

    With --placement alone it is the Placement API that is served; with --rpc as well, both on one state.
    """
    if placement is not None and not rpc:
        return await _placement(placement, auth, data, config)
    from . import logs  # the rest takes its time to import
    from .config import Config, read_config
    from .daemon import serve_rpc

    def reread() -> Config:
        found = read_config(config)
        given = (("listen", tuple(rpc or ())), ("auth", auth))
        listening: dict[str, Any] = {name: value for name, value in given if value}
        found = msgspec.structs.replace(found, rpc=msgspec.structs.replace(found.rpc, **listening))
        if placement is not None:
            found = msgspec.structs.replace(found, placement=msgspec.structs.replace(found.placement, listen=placement))
        if data is not None:
            found = msgspec.structs.replace(found, data=msgspec.structs.replace(found.data, folder=data))
        return msgspec.convert(msgspec.to_builtins(found), Config)

    settings = reread()
    logs.configure(settings.operation.log_level, settings.operation.log_format)
    await serve_rpc(settings, reread=reread, ready=lambda addresses: print("ready", *addresses, flush=True))
    return 0


async def _placement(address: str, auth: str | None, data: str | None, config: Path | None) -> int:
    from .http.service import run, settled  # takes its time to import

    settings = settled(config, listen=address, auth=auth, data=data)
    await run(settings, signals=(signal.SIGINT, signal.SIGTERM))
    return 0
