"""The command line ``hostler``: finds its commands by entry point and imports only the one that is called."""

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version

from cyclopts import App

from ..placement.errors import HostlerError

COMMAND_GROUP = "hostler.commands"


def build_app() -> App:
    """The app with all installed commands, none of which is imported before it is called or its help is asked for."""
    app = App(
        name="hostler",
        help="A deterministic scheduler core for compute, storage and network resources.",
        version=lambda: version("hostler"),
        backend="trio",
        result_action="return_value",
    )
    for command in entry_points(group=COMMAND_GROUP):
        app.command(command.value, name=command.name)
    app.register_install_completion_command()
    return app


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run one command; the exit code is the command's, 1 for an error of Hostler's own, 2 for a wrong command line, 130
    after Ctrl-C."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    commands = entry_points(group=COMMAND_GROUP).names
    if tokens and not tokens[0].startswith("-") and tokens[0] not in commands:
        names = ", ".join(sorted(commands))
        print(f"hostler: unknown command {tokens[0]!r}; the commands are: {names}", file=sys.stderr)
        return 2
    try:
        result = build_app()(tokens)
    except HostlerError as error:
        print(f"hostler: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hostler: interrupted", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else None
