"""Members of a cluster as processes of their own, on real etcd servers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from hostler.core.cluster_status import MemberLine
from hostler.core.rpc.blocking_client import BlockingClient
from hostler.placement.types.errors import HostlerError

from ..daemon.processes import Daemon
from ..etcd.servers import EtcdServers
from ..patience import HANG_SECONDS

T = TypeVar("T")


class Members:
    """``count`` daemons with the same configuration, by name: a, b, c. ``more`` is added to [cluster]."""

    def __init__(self, folder: Path, etcd: EtcdServers, count: int = 2, *, more: str = "", rest: str = "") -> None:
        self.daemons: dict[str, Daemon] = {}
        for name in "abcde"[:count]:
            home = folder / name
            home.mkdir()
            endpoints = ", ".join(f'"{each}"' for each in etcd.endpoints)
            config = f'[data]\nstore = "etcd"\n[data.etcd]\nendpoints = [{endpoints}]\nprefix = "/{folder.name}/"\n'
            config += f'[cluster]\nname = "{name}"\n{more}\n{rest}\n'
            self.daemons[name] = Daemon(home, "--http", "127.0.0.1:0", config=config)

    @property
    def addresses(self) -> list[str]:
        return [daemon.address for daemon in self.daemons.values()]

    def client(self, within: float = 20.0) -> BlockingClient:
        """A client that knows all members."""
        return BlockingClient(self.addresses, within=within)

    def lines(self) -> list[MemberLine]:
        """What ``members`` says at some member."""
        with self.client() as client:
            found: list[MemberLine] = client.call("members")
            return found

    def leader(self, *, among: Sequence[str] = ()) -> str:
        """The member that leads, once one does."""

        def find() -> str:
            for name, daemon in self.daemons.items():
                if among and name not in among:
                    continue
                if daemon.process is None or daemon.process.poll() is not None:
                    continue
                try:
                    with daemon.client(within=1.0) as client:
                        if client.call("status").role == "leader":
                            return name
                except HostlerError:
                    continue
            return ""

        return until(find)

    def signal(self, name: str, number: signal.Signals) -> None:
        process = self.daemons[name].process
        assert process is not None
        process.send_signal(number)

    def sequence(self, name: str) -> int:
        """The last command that a member has carried out."""
        with self.daemons[name].client() as client:
            return int(client.call("status").sequence)

    def settle(self) -> int:
        """Wait until all that run have carried out the same; the last command."""

        def same() -> set[int]:
            running = [
                name
                for name, daemon in self.daemons.items()
                if daemon.process is not None and daemon.process.poll() is None
            ]
            found = {self.sequence(name) for name in running}
            return found if len(found) == 1 else set()

        return until(same).pop()


def until(found: Callable[[], T], seconds: float = HANG_SECONDS) -> T:
    """What ``found`` returns, once that is true."""
    end = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(0.05)


@contextmanager
def running(members: Members) -> Iterator[Members]:
    """All of them, started one after the other."""
    with ExitStack() as stack:
        for daemon in members.daemons.values():
            stack.enter_context(daemon)
        yield members
