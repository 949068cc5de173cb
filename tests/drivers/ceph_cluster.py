"""A cluster of Ceph of one monitor, one manager and one storage daemon that keeps its data in memory, without root's
services: about 20 seconds to start."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..patience import HANG_SECONDS

PROGRAMS = ("ceph", "ceph-mgr", "ceph-mon", "ceph-osd", "monmaptool", "rbd")


def missing() -> list[str]:
    """Programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def _ports() -> list[int]:
    """Two free ports outside of those that the kernel gives to clients."""
    found: list[int] = []
    while len(found) < 2:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


def _configure(folder: Path) -> tuple[Path, str, str]:
    fsid, (second, first) = str(uuid.uuid4()), _ports()
    address = f"[v2:127.0.0.1:{second},v1:127.0.0.1:{first}]"
    conf = folder / "ceph.conf"
    conf.write_text(
        f"""[global]
fsid = {fsid}
mon host = {address}
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = true
keyring = {folder}/keyring
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
run dir = {folder}
admin socket =
pid file =
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd$id
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 1
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd objectstore = memstore
memstore device bytes = {8 * 2**30}
mgr initial modules = balancer
"""
    )
    (folder / "keyring").touch()
    for name in ("mon", "mgr", "osd0"):
        (folder / name).mkdir()
    return conf, fsid, address


def _until(what: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("the cluster is not ready")
        time.sleep(0.3)


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """The configuration file of a cluster with the pool "volumes". CalledProcessError or TimeoutError if it does not
    start."""
    conf, fsid, address = _configure(folder)

    def call(*line: str) -> str:
        return subprocess.run(line, check=True, capture_output=True, text=True, timeout=HANG_SECONDS).stdout

    def ceph(*line: str) -> str:
        return call("ceph", "--conf", str(conf), "--connect-timeout", "5", *line)

    def answers() -> bool:
        try:
            ceph("mon", "stat")
        except subprocess.SubprocessError:
            return False
        return True

    def clean() -> bool:
        states = json.loads(ceph("pg", "stat", "-f", "json")).get("pg_summary", {})
        ok = [each["num"] for each in states.get("num_pg_by_state", ()) if each["name"] == "active+clean"]
        return bool(states.get("num_pgs")) and sum(ok) == states["num_pgs"]

    with ExitStack() as stack:

        def start(program: str, number: str) -> None:
            command = [program, "--conf", str(conf), "-i", number, "-f"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)

        call("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, str(folder / "monmap"))
        call("ceph-mon", "--conf", str(conf), "-i", "a", "--mkfs", "--monmap", str(folder / "monmap"))
        start("ceph-mon", "a")
        _until(answers)
        start("ceph-mgr", "x")
        osd = str(uuid.uuid4())
        ceph("osd", "new", osd)
        call("ceph-osd", "--conf", str(conf), "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "0")
        _until(lambda: json.loads(ceph("osd", "stat", "-f", "json"))["num_up_osds"] == 1)
        ceph("osd", "pool", "create", "volumes", "8")
        call("rbd", "--conf", str(conf), "pool", "init", "volumes")
        _until(clean)
        yield conf
