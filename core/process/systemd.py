"""Notifications to systemd by sd_notify datagrams. No-op if NOTIFY_SOCKET is unset."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(*states: str) -> bool:
    """Send states such as ``READY=1`` to $NOTIFY_SOCKET; False if it is unset or unreachable."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    path = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto("\n".join(states).encode(), path)
    except OSError:
        return False
    return True


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """Maximum seconds between WATCHDOG=1 messages; None if the watchdog is disabled for this process."""
    wanted, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not wanted.isdigit() or int(wanted) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(wanted) / 1e6
