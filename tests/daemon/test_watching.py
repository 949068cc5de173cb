"""Subscriptions across the death of the daemon: what was missed is told afterwards, by itself, and nothing twice."""

from __future__ import annotations

import threading
from pathlib import Path

from hostler.core.engine_commands import AddHosts
from hostler.core.machine.event_log import Event
from hostler.core.rpc.client import BlockingClient
from tests.core.orders import hosts, uuid_of

from ..patience import HANG_SECONDS
from .processes import Daemon

SPEC = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 1}}


def place(client: BlockingClient, *numbers: int) -> None:
    calls = [("place", {"request": {"spec": SPEC, "instance_uuids": [uuid_of(number)]}}) for number in numbers]
    assert all(decision.placed for decision in client.pipeline(calls))


class Watching:
    """A client that watches in a thread of its own until it has seen so many decisions."""

    def __init__(self, daemon: Daemon, count: int) -> None:
        self.seen: list[Event] = []
        self._client, self._count = daemon.client(), count
        self._client.call("watch", {"kinds": ["decisions"]})
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        with self._client:
            for event in self._client.events(HANG_SECONDS):
                self.seen.append(event)
                if len(self.seen) == self._count:
                    return

    def instances(self) -> list[str]:
        self._thread.join(HANG_SECONDS)
        return [uuid for event in self.seen for uuid in event.hosts]


def test_a_daemon_that_was_killed_tells_what_happened_meanwhile(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(20)))
            client.call("snapshot")
        watching = Watching(daemon, 60)
        for first in (0, 30):
            with daemon.client() as client:
                place(client, *range(first, first + 30))
            daemon.restart()
        assert watching.instances() == [uuid_of(number) for number in range(60)]
        assert {event.kind for event in watching.seen} == {"decisions"}


def test_what_only_a_snapshot_has_is_told_to_be_a_gap(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        with daemon.client() as client:
            client.call("add_hosts", AddHosts(hosts=hosts(20)))
            before = client.call("status").sequence
            place(client, *range(10))
            client.call("snapshot")
            place(client, *range(10, 20))
        daemon.restart()
        with daemon.client() as client:
            client.call("watch", {"kinds": ["decisions"], "after": before})
            gap, *others = client.events(0.5)
        assert (gap.kind, gap.sequence) == ("gap", before + 11)
        assert [uuid for event in others for uuid in event.hosts] == [uuid_of(number) for number in range(10, 20)]
