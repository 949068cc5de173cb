"""The service as a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import httpx
from prometheus_client.parser import text_string_to_metric_families

from hostler.core.rpc.client import BlockingClient

from ..patience import HANG_SECONDS

HOSTLER = Path(sys.executable).with_name("hostler")


class Daemon:
    """``hostler serve`` on a Unix socket with a data folder; killed at the end if it still runs."""

    def __init__(self, folder: Path, *options: str, config: str = "", env: dict[str, str] | None = None) -> None:
        self.folder, self.address = folder, f"unix:{folder}/rpc.sock"
        self._config = folder / "config.toml"
        self._config.write_text(config)
        self._options, self._env = options, env
        self.process: subprocess.Popen[str] | None = None
        self.ready: list[str] = []
        """The addresses that the service named when it was ready."""

    def start(self) -> Daemon:
        """Start it, and wait until it is ready."""
        self._close()
        command = [str(HOSTLER), "serve", "--rpc", self.address, "--data", str(self.folder / "data")]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--config", str(self._config), *self._options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=self._env,
        )
        log.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready"), (self.folder / "log").read_text()[-3000:]
        self.ready = line.split()[1:]
        return self

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        """Close the pipe that a process which has ended wrote to."""
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    def restart(self) -> None:
        """kill -9, and a new start."""
        self.kill()
        self.start()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(HANG_SECONDS)

    def client(self, within: float = HANG_SECONDS) -> BlockingClient:
        return BlockingClient(self.address, within=within)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._close()


def http_of(daemon: Daemon) -> str:
    """Where a daemon with ``--http`` serves its pages."""
    return str(re.findall(r"readiness at (http://[^\s\"]+)", daemon.log())[-1])


def metrics(daemon: Daemon) -> dict[tuple[str, ...], float]:
    """What it measures, by name and the values of the labels."""
    text = httpx.get(f"{http_of(daemon)}/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
