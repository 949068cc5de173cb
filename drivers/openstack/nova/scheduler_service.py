"""nova-scheduler with Hostler's class in the place of its own, and Nova's own options otherwise. Runs inside Nova."""

from __future__ import annotations

import sys

MANAGER = "hostler_nova.SchedulerManager"


def install() -> None:
    """Have services of this process that are created from now on use Hostler's class as nova-scheduler."""
    from nova import service

    service.SERVICE_MANAGERS["nova-scheduler"] = MANAGER


def main() -> None:
    """The command ``hostler-nova-scheduler``: nova-scheduler's own, which reads the command line and nova.conf."""
    try:
        from nova.cmd import scheduler  # patches the process first, as Nova does
    except ModuleNotFoundError as error:
        if error.name != "nova":
            raise
        sys.exit("hostler-nova-scheduler: Nova is not installed here (install hostler[nova] where nova-scheduler is)")

    install()
    scheduler.main()
