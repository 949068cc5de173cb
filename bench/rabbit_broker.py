"""A RabbitMQ of its own on loopback, with a port mapper of its own, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from .free_ports import free_ports

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Debian's programs in /usr/sbin change to an account of their own."""


def missing() -> list[str]:
    """Programs that are not installed."""
    scripts = [str(SCRIPTS / name) for name in ("rabbitmq-server", "rabbitmqctl")]
    return [name for name in (*scripts, "epmd", "erl") if shutil.which(name) is None]


class Broker:
    """The node, once it is started. ``url``: as oslo.messaging wants it."""

    def __init__(self, folder: Path) -> None:
        self._folder, (self.port, self._mapper_port, between) = folder, free_ports(3)
        self.url = f"rabbit://guest:guest@127.0.0.1:{self.port}/"
        self._log = (folder / "log").open("ab")
        self._env = {
            **{"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"},
            **{"ERL_EPMD_PORT": str(self._mapper_port), "ERL_EPMD_ADDRESS": "127.0.0.1"},
            **{"RABBITMQ_NODENAME": f"test{self.port}@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1"},
            **{"RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(between)},
            **{"RABBITMQ_BASE": str(folder), "RABBITMQ_MNESIA_BASE": str(folder / "mnesia")},
            **{"RABBITMQ_LOG_BASE": str(folder), "RABBITMQ_CONF_ENV_FILE": "/dev/null"},
            **{"RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"), "RABBITMQ_PID_FILE": str(folder / "pid")},
            **{"RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq")},
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none",
        }
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text("loopback_users = none\ndisk_free_limit.absolute = 50MB\n")
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """The process of the node, whose child is the virtual machine."""
        return self._started[-1].pid

    def start(self) -> None:
        """Start it, and wait until it answers: some 5 seconds."""
        self._run("epmd", "-address", "127.0.0.1", "-port", str(self._mapper_port))
        self._run(str(SCRIPTS / "rabbitmq-server"))
        self.wait()

    def _run(self, *command: str) -> None:
        made = subprocess.Popen(
            command, env=self._env, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._started.append(made)

    def wait(self, seconds: float = 120.0) -> None:
        """Until it answers the protocol."""
        end = time.monotonic() + seconds
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                    probe.sendall(b"AMQP\x00\x00\x09\x01")
                    if probe.recv(1):
                        return
            except OSError:
                pass
            assert self._started[-1].poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "RabbitMQ does not answer"
            time.sleep(0.1)

    def ctl(self, *arguments: str) -> str:
        """rabbitmqctl; its output."""
        command = [str(SCRIPTS / "rabbitmqctl"), "-q", *arguments]
        return subprocess.run(command, env=self._env, check=True, capture_output=True, text=True, timeout=120).stdout

    def restart(self) -> None:
        """End all connections and queues that are not durable, and be there again."""
        self.ctl("stop_app")
        self.ctl("start_app")
        self.wait()

    def end(self) -> None:
        """Kill it, with what it has started."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._log.close()
