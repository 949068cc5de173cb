"""The list of commands that ``hostler --help`` prints: drawn as the command line draws the help of each command, but
without importing a command or what parses one."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Final

from rich.box import ROUNDED
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

PURPOSE: Final = "A deterministic scheduler core for compute, storage and network resources."
SUMMARIES: Final = {
    "aggregate": "Aggregates: names, metadata, availability zones and members.",
    "allocation": "Consumers and what they hold.",
    "audit": "Rebuild the audit log from a journal.",
    "backend": "Back ends that carry out guests.",
    "backup": "Copy the running service's state into a new folder.",
    "best-host": "The best host for a guest, for provisioning tools.",
    "config": "Check or show the configuration of the service.",
    "demo": "Play a day of a cloud, or a real trace, and show what the scheduler did.",
    "domain": "Domains: customers, with projects and users of their own.",
    "drift": "What Placement and Nova keep, compared with a service. Exit code 1: they differ.",
    "explain": "Why each host would be refused, and what the best ones score.",
    "fits": "How many more guests of a shape fit.",
    "flavor": "Flavors: sizes of guests that members name.",
    "guest": "List and show guests, and have back ends carry them out.",
    "host": "List, show, add, remove, enable and disable hosts.",
    "image": "Images, as far as the scheduler reads them, that members name.",
    "import": "A fleet's file from what a platform exports.",
    "lead": "Have another member of the cluster lead, without a failed command.",
    "members": "The members of the cluster: who leads, and how far behind the others are.",
    "move": "Move a guest to another host. Exit code 3: no host.",
    "parity": "Compare the engine with recorded answers of other schedulers.",
    "place": "Choose a host for a guest, and charge it. Exit code 3: no host.",
    "plan": "Plan moves: drain hosts, empty them, or make room; and carry a plan out.",
    "pool": "Resource pools: sets of hosts, granted to domains and projects.",
    "project": "Projects, which guests belong to.",
    "provider": "Resource providers: list, show, add, change and remove them.",
    "quota": "Limits of domains and projects.",
    "reconcile": "How guests are brought to what is desired.",
    "regions": "The regions that the service is the parent of: which answer, and what is free.",
    "release": "Remove guests and give back what they took.",
    "replay": "Re-run a journal, also under another policy, and compare.",
    "resize": "Give a guest another size, where it fits. Exit code 3: no host.",
    "serve": "Run the service until SIGTERM or Ctrl-C. SIGHUP reads the policy again.",
    "server-group": "Server groups: guests that are placed together, or apart.",
    "shadow": "How another policy would have decided.",
    "simulate": "Plan capacity: play traces on fleets that don't exist yet.",
    "snapshot": "Take a snapshot of the service's state now.",
    "status": "Whether the service takes commands. Exit code 4: it does not.",
    "token": "Tokens, with which users authenticate.",
    "top": "How full the hosts are, renewed every few seconds.",
    "usage": "What is used: of everything, or by a domain or project.",
    "user": "Users and their roles.",
    "volume": "Volumes: place, move and remove them; snapshots, backups and groups.",
    "volume-backend": "Volume backends, their pools and reports; backup services.",
    "volume-type": "Volume types: requirements of volumes that members name.",
    "watch": "What happens, as it happens, until Ctrl-C.",
    "what-if": "What would be answered, under another policy or without some hosts.",
}
"""First lines of the help of Hostler's own commands."""
OPTIONS: Final = {
    "--help (-h)": "Display this message and exit.",
    "--install-completion": "Install shell completion for this application.",
    "--version": "Display application version.",
}


def print_commands(commands: Iterable[EntryPoint]) -> None:
    """Print usage, purpose, commands in alphabetical order, and options to standard output. A command of another
    package is imported for its summary."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="cyan", overflow="fold")
    table.add_column(overflow="fold")
    for command in sorted(commands, key=lambda each: each.name):
        table.add_row(Text(command.name), Text(SUMMARIES.get(command.name) or _summary(command)))
    for option, meaning in OPTIONS.items():
        table.add_row(Text(option), Text(meaning))
    console = Console(file=sys.stdout)
    console.print(Text.assemble(("Usage: hostler COMMAND", "bold"), "\n\n", PURPOSE, "\n"))
    console.print(Panel(table, box=ROUNDED, title="Commands", title_align="left"))


def _summary(command: EntryPoint) -> str:
    """First line of the help of a command of another package: a function, or an app with commands of its own."""
    target = command.load()
    text = getattr(target, "help", None) or target.__doc__ or ""
    return str(text).strip().partition("\n")[0]
