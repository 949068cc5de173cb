"""The command ``hostler serve``: serves what a fleet knows over the network until it is told to stop."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter

app = cyclopts.App(name="serve", help="Serve the OpenStack Placement API.")

Auth = Literal["none", "static", "keystone", "noauth2"]


@app.default
async def serve(
    *,
    placement: Annotated[str | None, Parameter(help="Address of the Placement API, HOST:PORT.")] = None,
    auth: Auth | None = None,
    data: str | None = None,
    config: Path | None = None,
) -> int:
    """Serve the OpenStack Placement API until SIGTERM or Ctrl-C.

    Parameters
    ----------
    auth
        Who may call: none (everybody may do everything; the default where only this machine can connect), static
        (tokens whose hashes the configuration has), keystone, or noauth2 (believes what the client says it is).
    data
        A folder for the data: every acknowledged write survives a crash. Without one, or with :memory:, nothing
        outlives the process.
    config
        A TOML file with a table [placement].
    """
    from .http.service import run, settled  # the rest takes its time to import

    settings = settled(config, listen=placement, auth=auth, data=data)
    await run(settings, signals=(signal.SIGINT, signal.SIGTERM))
    return 0
