"""Ports for servers that have to be told a port before they start, in benchmarks and tests."""

from __future__ import annotations

import random
import socket
from typing import Final

PORTS: Final = range(12_000, 32_000)
"""Below those that Linux gives to connections and to listeners that ask for any port (``ip_local_port_range``)."""


def free_ports(count: int) -> list[int]:
    """Distinct ports of the loopback address on which nothing listens.

    No connection is given one of them before its server listens, and processes that choose at the same time choose
    others: the choice does not depend on the seed of ``random``."""
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in chosen:
            chosen.append(port)
    return chosen
