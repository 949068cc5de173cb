"""Ports for servers that have to be told one before they start."""

from __future__ import annotations

import random
import socket

from hostler.bench.free_ports import PORTS, free_ports


def test_ports_are_distinct_free_and_not_chosen_by_the_seed_of_random() -> None:
    random.seed(1)
    first = free_ports(20)
    random.seed(1)
    assert set(first) <= set(PORTS)
    assert len(set(first)) == 20
    assert first != free_ports(20)
    for port in first[:3]:
        socket.create_server(("127.0.0.1", port)).close()
