"""The section "Follow one request" is true: four real requests enter every file that it names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
import trio

from hostler import Host
from hostler.core import cli
from hostler.core.engine_commands import AddHosts
from hostler.core.http.config import PlacementConfig
from hostler.core.http.microversion import negotiate
from hostler.core.journal.journal import Journal
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.rpc.messages import encode
from hostler.core.rpc.server import RpcServer
from hostler.core.rpc.session import Session
from hostler.core.service import Identity, Service
from hostler.core.tenancy.commands import CreateDomain, CreateProject, CreateUser, Grant
from hostler.core.tenancy.tenants import LOCAL
from hostler.core.writer.writer import open_writer
from hostler.placement.storage.engine import VolumeEngine
from hostler.placement.storage.pools.reports import BackendReport
from hostler.placement.storage.pools.request import VolumeRequest, VolumeSpec

from ..http.calling import Caller
from ..patience import HANG_SECONDS

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FILE: Final = re.compile(r"`((?:core|placement|sim|ext)/[\w/]+\.(?:py|pyx|pxd))`")
PATHS: Final = ("A placement", "A PUT of allocations", "A simulated arrival", "A volume")
PROVIDER: Final = "5fd0b3a4-2f3e-4d6e-9a66-9a3f0a6b1c01"
CONSUMER: Final = "5fd0b3a4-2f3e-4d6e-9a66-9a3f0a6b1c02"


def test_every_file_that_is_named_exists() -> None:
    missing = [name for name in FILE.findall(PAGE) if not (ROOT / name).exists()]
    assert not missing


def named(path: str) -> list[str]:
    """Files named in the list that begins with ``path`` in bold."""
    section = PAGE.partition("## Follow one request")[2].partition("\n## ")[0]
    text = section.partition(f"**{path}**")[2].partition("\n**")[0]
    return FILE.findall(text)


@contextmanager
def entered() -> Iterator[set[str]]:
    """Files of the project of which a function is called in the block, relative to its root."""
    codes: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            codes.add(frame.f_code.co_filename)

    files: set[str] = set()
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(before)
        paths = (Path(code).resolve() for code in codes if not code.startswith("<"))
        files.update(str(path.relative_to(ROOT)) for path in paths if path.is_relative_to(ROOT))


class Peer:
    """The outlet of a session: notes that an answer was sent."""

    waiting_bytes = 0

    def __init__(self) -> None:
        self.answered = trio.Event()

    def send(self, data: bytes, *, soon: bool = False) -> None:
        self.answered.set()

    def settled(self) -> None:
        pass

    def spawn(self, work: Any) -> None:
        raise AssertionError("a placement needs no child")


async def a_placement(folder: Path) -> set[str]:
    hosts = tuple(Host(host=f"node-{number}", vcpus_total=16, total_usable_ram_mb=65_536) for number in range(3))
    machine = ServiceMachine()
    async with open_writer(machine, Journal.in_folder(folder)) as writer:
        service, peer = Service(machine, writer, open_to_all=True), Peer()
        tenant = (
            CreateDomain(id="d"),
            CreateProject(id="p", domain="d"),
            CreateUser(id="ann", domain="d"),
            Grant(user="ann", role="member", scope="project:p"),
        )
        for command in (AddHosts(hosts=hosts), *tenant):
            await writer.submit(Order(1.0, LOCAL, command))
        watchers = RpcServer(service).watchers
        session = Session(
            service,
            watchers,
            Identity("ann", serial=machine.state.tenants.serial_of("ann")),
            peer,
            answer_bytes=1 << 20,
        )
        spec = {"flavor": {"name": "small", "vcpus": 1, "memory_mb": 512}}
        with entered() as files, trio.fail_after(HANG_SECONDS):
            session.feed(encode((0, 1, "place", [{"request": {"spec": spec, "project_id": "p"}}])))
            await peer.answered.wait()
    return files


def a_put_of_allocations() -> set[str]:
    call = Caller(PlacementConfig(auth="noauth2"))
    admin = {"x-auth-token": "admin"}
    call("POST", "/resource_providers", {"name": "node-1", "uuid": PROVIDER}, headers=admin)
    inventories = {"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 8}}}
    call("PUT", f"/resource_providers/{PROVIDER}/inventories", inventories, headers=admin)
    body = {
        "allocations": {PROVIDER: {"resources": {"VCPU": 2}}},
        "consumer_generation": None,
        "consumer_type": "INSTANCE",
        "project_id": "p",
        "user_id": "u",
    }
    negotiate.cache_clear()
    with entered() as files:
        assert call("PUT", f"/allocations/{CONSUMER}", body, headers=admin).status == 204
    return files


def a_simulated_arrival() -> set[str]:
    with entered() as files:
        assert not cli.main(["simulate", "run", "--trace", "devops", "--hosts", "3", "--make-hours", "1"])
    return files


def a_volume() -> set[str]:
    engine = VolumeEngine()
    pool = {"pool_name": "p", "total_capacity_gb": 100, "free_capacity_gb": 50}
    engine.pools.report(BackendReport(host="node-1@lvm", capabilities={"pools": [pool]}, at=1.0))
    with entered() as files:
        assert engine.place(VolumeRequest(spec=VolumeSpec(size_gb=10))).selection
    return files


@cache
def follow(path: str, folder: Path) -> frozenset[str]:
    if path == "A placement":
        return frozenset(trio.run(a_placement, folder))
    ways = {
        "A PUT of allocations": a_put_of_allocations,
        "A simulated arrival": a_simulated_arrival,
        "A volume": a_volume,
    }
    return frozenset(ways[path]())


@pytest.mark.parametrize("path", PATHS)
def test_a_request_enters_every_file_on_its_path(path: str, tmp_path: Path) -> None:
    files = named(path)
    assert len(files) > 5
    # The transport is left out: the requests are made where its bytes have been read. So is what has values only, which
    # nothing enters but its first import.
    skipped = {"core/http/connection.py", "sim/trace/files.py", "sim/run/summary.py"}
    missing = [name for name in files if name not in follow(path, tmp_path) | skipped]
    assert not missing, f"{path} does not enter {missing}"
