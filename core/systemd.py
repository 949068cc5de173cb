"""Telling systemd how the service is: sd_notify's datagrams. Nothing happens where nobody wants to know."""

from __future__ import annotations

import os
import socket


def notify(*states: str) -> bool:
    """Send states such as ``READY=1`` to $NOTIFY_SOCKET; False if there is none, or nobody hears."""
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
