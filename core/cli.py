"""The command line ``hostler``: finds its commands by entry point and imports only the one that is called."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoints, entry_points, version
from typing import TYPE_CHECKING, Final

from ..placement.types.errors import HostlerError
from ..placement.types.extras import EXTRAS, library_at_fault, unusable
from .console.output_encoding import show_what_can_be_shown

if TYPE_CHECKING:
    from cyclopts import App

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
    **dict.fromkeys(
        (
            "connection_lost",
            "deadline_exceeded",
            "overloaded",
            "stopped",
            "storage_failed",
            "not_leader",
            "source_failed",
        ),
        UNAVAILABLE,
    ),
    **dict.fromkeys(("not_authenticated", "not_allowed", "tls_failed"), FORBIDDEN),
}
"""By error code; FAILED for all others."""


def build_app(commands: EntryPoints) -> App:
    """The app with ``commands``, none of which is imported before it is called or its help is asked for."""
    from cyclopts import App

    from .console.command_list import PURPOSE

    app = App(
        name="hostler",
        help=PURPOSE,
        version=lambda: version("hostler"),
        backend="trio",
        result_action="return_value",
    )
    for command in commands:
        app.command(command.value, name=command.name)
    app.register_install_completion_command()
    return app


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run one command; the exit code is the command's own, or as the constants above say. Errors of Hostler's own are
    one line on standard error, with --json an object; so is an extra that is missing or broken."""
    show_what_can_be_shown()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    commands = entry_points(group=COMMAND_GROUP)
    if tokens and not tokens[0].startswith("-") and tokens[0] not in commands.names:
        names = ", ".join(sorted(commands.names))
        print(f"hostler: unknown command {tokens[0]!r}; the commands are: {names}", file=sys.stderr)
        return MISUSED
    try:
        result = _run(tokens, commands)
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


def _run(tokens: list[str], commands: EntryPoints) -> object:
    if tokens not in ([], ["--help"], ["-h"]):
        return build_app(commands)(tokens)
    from .console.command_list import print_commands

    print_commands(commands)
    return None


def missing_extra(error: Exception) -> HostlerError | None:
    """The error that names the extra, where ``error`` is that a module of one is not installed, or was raised while
    one was imported; None for any other."""
    name = library_at_fault(error)
    return None if name is None else unusable(error, name, EXTRAS[name])


def _told(error: HostlerError, *, as_json: bool) -> str:
    if not as_json:
        return f"hostler: {error}"
    values = {"code": error.code, "message": str(error.args[0]), "field": error.field, "hint": error.hint}
    return json.dumps({"error": {name: value for name, value in values.items() if value is not None}})
