"""The command line ``hostler``: finds its commands by entry point and imports only the one that is called."""

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from typing import Final

from cyclopts import App

from ..placement.types.errors import HostlerError

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


def build_app(*, loaded: bool = False) -> App:
    """The app with all installed commands. A command is imported when it is called or its help is requested, or, for a
    list with descriptions, with ``loaded``."""
    app = App(
        name="hostler",
        help="A deterministic scheduler core for compute, storage and network resources.",
        version=lambda: version("hostler"),
        backend="trio",
        result_action="return_value",
    )
    for command in entry_points(group=COMMAND_GROUP):
        app.command(command.load() if loaded else command.value, name=command.name)
    app.register_install_completion_command()
    return app


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run one command; returns the command's exit code, or one of the constants above. A HostlerError is printed as one
    line on standard error, or as an object with --json."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    commands = entry_points(group=COMMAND_GROUP).names
    if tokens and not tokens[0].startswith("-") and tokens[0] not in commands:
        names = ", ".join(sorted(commands))
        print(f"hostler: unknown command {tokens[0]!r}; the commands are: {names}", file=sys.stderr)
        return MISUSED
    try:
        result = build_app(loaded=tokens in ([], ["--help"], ["-h"]))(tokens)
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
    return result if isinstance(result, int) else None


def _told(error: HostlerError, *, as_json: bool) -> str:
    if not as_json:
        return f"hostler: {error}"
    values = {"code": error.code, "message": str(error.args[0]), "field": error.field, "hint": error.hint}
    return json.dumps({"error": {name: value for name, value in values.items() if value is not None}})
