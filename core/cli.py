"""The command line ``hostler``: finds its commands by entry point and imports only the one that is called."""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from typing import Final

from cyclopts import App

from ..placement.types.errors import HostlerError
from ..placement.types.extras import unusable
from .console.output_encoding import show_what_can_be_shown

COMMAND_GROUP: Final = "hostler.commands"
FAILED: Final = 1
"""Exit code of an error of Hostler's own."""
MISUSED: Final = 2
"""Exit code of a wrong command line."""
UNAVAILABLE: Final = 4
"""Exit code where the service is not there or takes no commands now: the same may work later."""
FORBIDDEN: Final = 5
"""Exit code where the service does not let the caller do that."""
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C."""
_EXIT_CODES: Final = {
    **dict.fromkeys(("connection_lost", "deadline_exceeded", "overloaded", "stopped", "storage_failed"), UNAVAILABLE),
    **dict.fromkeys(("not_authenticated", "not_allowed", "tls_failed"), FORBIDDEN),
}
"""By error code; FAILED for all others."""
EXTRAS: Final = {
    "h11": "service",
    "httpx": "service",
    "jsonschema": "service",
    "oslo_config": "service",
    "oslo_policy": "service",
    "prometheus_client": "service",
    "structlog": "service",
    "matplotlib": "report",
    "plotly": "report",
    "pyarrow": "report",
    "distributed": "cluster",
    "opentelemetry": "telemetry",
}
"""Modules of optional dependencies, and the extras that install them."""
SUMMARIES: Final = {
    "audit": "Rebuild the audit log from a journal.",
    "backup": "Copy the running service's state into a new folder.",
    "config": "Check or show the configuration of the service.",
    "demo": "Play a day of a cloud, or a real trace, and show what the scheduler did.",
    "domain": "Domains: customers, with projects and users of their own.",
    "explain": "Why each host would be refused, and what the best ones score.",
    "fits": "How many more guests of a shape fit.",
    "flavor": "Flavors: sizes of guests that members name.",
    "guest": "List and show guests.",
    "host": "List, show, add, remove, enable and disable hosts.",
    "image": "Images, as far as the scheduler reads them, that members name.",
    "move": "Move a guest to another host. Exit code 3: no host.",
    "parity": "Compare the engine with recorded answers of other schedulers.",
    "place": "Choose a host for a guest, and charge it. Exit code 3: no host.",
    "pool": "Resource pools: sets of hosts, granted to domains and projects.",
    "project": "Projects, which guests belong to.",
    "quota": "Limits of domains and projects.",
    "release": "Remove guests and give back what they took.",
    "replay": "Re-run a journal, also under another policy, and compare.",
    "resize": "Give a guest another size, where it fits. Exit code 3: no host.",
    "serve": "Run the service until SIGTERM or Ctrl-C. SIGHUP reads the policy again.",
    "simulate": "Plan capacity: play traces on fleets that don't exist yet.",
    "snapshot": "Take a snapshot of the service's state now.",
    "status": "Whether the service takes commands. Exit code 4: it does not.",
    "token": "Tokens, with which users authenticate.",
    "top": "How full the hosts are, renewed every few seconds.",
    "usage": "What is used: of everything, or by a domain or project.",
    "user": "Users and their roles.",
    "watch": "What happens, as it happens, until Ctrl-C.",
    "what-if": "What would be answered, under another policy or without some hosts.",
}
"""First lines of the help of Hostler's own commands, so that the list of commands imports none of them."""


def build_app(*, listing: bool = False) -> App:
    """The app with all installed commands, none of which is imported before it is called or its help is asked for.
    ``listing``: for the list of commands, which needs the help of those that other packages have installed."""
    app = App(
        name="hostler",
        help="A deterministic scheduler core for compute, storage and network resources.",
        version=lambda: version("hostler"),
        backend="trio",
        result_action="return_value",
        help_format="plaintext" if listing else None,  # without importing a reader of Markdown
    )
    for command in entry_points(group=COMMAND_GROUP):
        summary = SUMMARIES.get(command.name)
        target = command.load() if listing and summary is None else command.value
        app.command(target, name=command.name, **({"help": summary} if listing and summary is not None else {}))
    app.register_install_completion_command()
    return app


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run one command; the exit code is the command's own, or as the constants above say. Errors of Hostler's own are
    one line on standard error, with --json an object; so is an extra that is missing or broken."""
    show_what_can_be_shown()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    commands = entry_points(group=COMMAND_GROUP).names
    if tokens and not tokens[0].startswith("-") and tokens[0] not in commands:
        names = ", ".join(sorted(commands))
        print(f"hostler: unknown command {tokens[0]!r}; the commands are: {names}", file=sys.stderr)
        return MISUSED
    try:
        result = build_app(listing=tokens in ([], ["--help"], ["-h"]))(tokens)
        sys.stdout.flush()
    except HostlerError as error:
        print(_told(error, as_json="--json" in tokens), file=sys.stderr)
        return _EXIT_CODES.get(error.code, FAILED)
    except KeyboardInterrupt:
        print("hostler: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        print(_told(missing, as_json="--json" in tokens), file=sys.stderr)
        return FAILED
    return result if isinstance(result, int) else None


def missing_extra(error: Exception) -> HostlerError | None:
    """The error that names the extra, where ``error`` is that a module of one is not installed, or was raised while
    one was imported; None for any other."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in EXTRAS:
        importing = (
            str(frame.f_globals.get("__name__", "")).partition(".")[0]
            for frame, _ in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_name == "<module>"
        )
        name = next((each for each in importing if each in EXTRAS), "")
    return unusable(error, name, EXTRAS[name]) if name else None


def _told(error: HostlerError, *, as_json: bool) -> str:
    if not as_json:
        return f"hostler: {error}"
    values = {"code": error.code, "message": str(error.args[0]), "field": error.field, "hint": error.hint}
    return json.dumps({"error": {name: value for name, value in values.items() if value is not None}})
