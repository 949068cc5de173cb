"""A real etcd cluster of several members on this machine, each a process, for benchmarks and tests."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import httpx

from .free_ports import free_ports

ETCD: Final = shutil.which("etcd")


class EtcdServers:
    """``members`` etcd processes in one folder, started and ended by the context."""

    def __init__(
        self,
        folder: Path,
        members: int = 3,
        *,
        election_ms: int = 1_000,
        quota: int = 0,
        tls: tuple[Path, Path] | None = None,
        client_ca: Path | None = None,
    ) -> None:
        """``tls``: files of a certificate for localhost and its key; ``client_ca``: the authority of the certificates
        that clients must have."""
        self._folder, self._election, self._quota = folder, election_ms, quota
        self._tls, self._client_ca = tls, client_ca
        ports = free_ports(3 * members)
        self._client, self._peer, health = ports[:members], ports[members : 2 * members], ports[2 * members :]
        self.endpoints = [f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}" for port in self._client]
        self._health = [f"http://127.0.0.1:{port}" for port in health]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> EtcdServers:
        for number in range(len(self.endpoints)):
            self.start(number)
        for number in range(len(self.endpoints)):
            self.wait(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def start(self, number: int) -> None:
        """Start a member, on its data if it has any."""
        assert ETCD is not None
        peers = ",".join(f"m{each}=http://127.0.0.1:{port}" for each, port in enumerate(self._peer))
        command = [
            *(ETCD, "--name", f"m{number}", "--data-dir", str(self._folder / f"m{number}"), "--unsafe-no-fsync"),
            *("--listen-client-urls", self.endpoints[number].replace("localhost", "127.0.0.1")),
            *("--advertise-client-urls", self.endpoints[number]),
            *("--listen-peer-urls", f"http://127.0.0.1:{self._peer[number]}"),
            *("--initial-advertise-peer-urls", f"http://127.0.0.1:{self._peer[number]}"),
            *("--initial-cluster", peers, "--initial-cluster-state", "new", "--logger", "zap"),
            *("--heartbeat-interval", str(self._election // 10), "--election-timeout", str(self._election)),
        ]
        command += ["--listen-metrics-urls", self._health[number]]
        if self._tls is not None:
            command += ["--cert-file", str(self._tls[0]), "--key-file", str(self._tls[1])]
        if self._client_ca is not None:
            command += ["--client-cert-auth", "--trusted-ca-file", str(self._client_ca)]
        if self._quota:
            command += ["--quota-backend-bytes", str(self._quota)]
        with (self._folder / f"m{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": "/usr/bin:/bin"})

    def wait(self, number: int) -> None:
        """Wait until a member answers."""
        end = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self._health[number]}/health", timeout=2).json().get("health") == "true":
                    return
            except (httpx.HTTPError, ValueError):
                pass
            assert time.monotonic() < end, (self._folder / f"m{number}.log").read_text()[-2000:]
            time.sleep(0.1)

    def leader(self) -> int:
        """The member that leads."""
        for number, endpoint in enumerate(self.endpoints):
            try:
                found = httpx.post(f"{endpoint}/v3/maintenance/status", content=b"{}", timeout=2).json()
            except httpx.HTTPError:
                continue
            if found.get("leader") == found["header"]["member_id"]:
                return number
        raise AssertionError("no member leads")

    def ask(self, path: str, body: Mapping[str, object], number: int = 0) -> dict[str, object]:
        """An answer of a member's gateway."""
        answer: dict[str, object] = httpx.post(f"{self.endpoints[number]}{path}", json=body, timeout=10).json()
        return answer

    def kill(self, number: int) -> None:
        """kill -9."""
        self._processes[number].kill()
        self._processes[number].wait()

    def pause(self, number: int) -> None:
        """SIGSTOP: a member that hangs."""
        self._processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """SIGCONT."""
        self._processes[number].send_signal(signal.SIGCONT)
