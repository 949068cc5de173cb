"""The reconciler of a running daemon: lives of guests on libvirt's test driver, the start with guests that are there
already, back ends that hang, and placements beside a busy reconciler.

    python -m hostler.bench.reconcile [lifecycles | start | hang | beside]
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cyclopts
import trio

from hostler.core.engine_commands import asked
from hostler.core.rpc.client import Client
from hostler.drivers.compute.libvirt_xml import domain_xml
from hostler.drivers.protocol import GuestSpec, Mark
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .service import cpu_of, load_hosts, percentiles, pipelined, service, with_client

app = cyclopts.App(name="reconcile", help="The reconciler of a running daemon.")

SPEC = RequestSpec(flavor=Flavor(name="small", vcpus=1, memory_mb=64))
NODE_VCPUS, NODE_MIB = 4_096, 1 << 22
POLL = 0.02
NODE = f"""<node>
  <cpu><mhz>2600</mhz><model>x86_64</model><active>{NODE_VCPUS}</active><nodes>1</nodes><sockets>1</sockets>
  <cores>{NODE_VCPUS}</cores><threads>1</threads></cpu>
  <memory>{NODE_MIB * 1_024}</memory>
"""
"""A host of libvirt's test driver, without its end: domains may follow."""


def libvirt_backend(folder: Path, hosts: int = 1, concurrency: int = 8, more: str = "") -> str:
    """Configuration of a back end with hosts of libvirt's test driver, whose files are in the folder."""
    uris = []
    for number in range(hosts):
        file = folder / f"node-{number}.xml"
        if not file.exists():
            file.write_text(NODE + "</node>")
        uris.append(f'node-{number} = "test://{file}"')
    return (
        '[backends.hosts]\ndriver = "libvirt"\n[backends.hosts.options]\ndomain_type = "test"\n'
        f"hosts = {{ {', '.join(uris)} }}\nconcurrency = {concurrency}\npoll = 30\n{more}"
    )


def model_backend(name: str, nodes: int, options: str = "") -> str:
    """Configuration of a model back end."""
    return (
        f'[backends.{name}]\ndriver = "model"\n[backends.{name}.options]\nprefix = "{name}-"\nnodes = {nodes}\n'
        f"pools = 0\n{options}"
    )


def wanted(guest: str, zone: str | None = None) -> dict[str, Any]:
    """Parameters of a guest's creation."""
    spec = RequestSpec(flavor=SPEC.flavor, availability_zone=zone)
    return {"request": asked(Request(spec=spec, instance_uuids=(guest,), project_id="p1")), "build_seconds": 3_600.0}


async def until(client: Client, right: Callable[[Any], bool], seconds: float = 600.0, pause: float = POLL) -> Any:
    """Ask for the reconciler's status until it is right."""
    with trio.fail_after(seconds):
        while True:
            status = await client.call("reconcile_status")
            if right(status):
                return status
            await trio.sleep(pause)


async def all_settled(client: Client, status: str, guests: int) -> None:
    """Wait until so many guests have a status, and are as desired."""
    await until(client, lambda found: found.guests.get(status, 0) == guests and not found.unsettled)


async def known(client: Client, nodes: int) -> None:
    """Wait until the nodes of all back ends are known."""
    await until(client, lambda found: sum(each.nodes for each in found.backends) >= nodes, 60.0)


async def create(client: Client, guests: Sequence[str]) -> None:
    """Create guests, pipelined."""
    for first in range(0, len(guests), 500):
        answers = await client.pipeline([("create_guest", wanted(each)) for each in guests[first : first + 500]])
        assert all(answer.placed for answer in answers), answers[0]


async def delete(client: Client, guests: Sequence[str]) -> None:
    """Delete guests, pipelined."""
    for first in range(0, len(guests), 500):
        await client.pipeline([("delete_guest", {"uuid": each}) for each in guests[first : first + 500]])


def names(count: int) -> list[str]:
    """Random uuids."""
    return [str(uuid.uuid4()) for _ in range(count)]


async def live(client: Client, guests: int, nodes: int) -> dict[str, float]:
    """Seconds for guests to be created, built, confirmed, and removed again."""
    await known(client, nodes)
    found = names(guests)
    began = time.perf_counter()
    await create(client, found)
    created = time.perf_counter()
    await all_settled(client, "active", guests)
    active = time.perf_counter()
    await delete(client, found)
    await until(client, lambda status: not status.guests)
    ended = time.perf_counter()
    return {
        "created": round(created - began, 2),
        "active": round(active - began, 2),
        "removed": round(ended - active, 2),
        "seconds": round(ended - began, 2),
    }


@app.command
def lifecycles(*, guests: int = 1_000, hosts: int = 1, rounds: int = 3, concurrency: int = 8) -> None:
    """Guests created, built on libvirt's test driver, confirmed and removed, through the daemon and its journal."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
        folder = Path(name)
        with service(folder, libvirt_backend(folder, hosts, concurrency)) as (address, process):
            for _ in range(rounds):
                before = cpu_of(process.pid)
                found = trio.run(with_client, address, live, guests, hosts)
                print({**found, "cpu": round(cpu_of(process.pid) - before, 2)}, flush=True)


def with_domains(file: Path, lines: Sequence[Any], installation: str) -> None:
    """Write a host of the test driver that has guests already, as the driver would have made them."""
    domains = []
    for line in lines:
        want = GuestSpec(Mark(installation, line.uuid, line.claim), line.uuid, line.node, 1, 64)
        domains.append(domain_xml(want, kind="test", machine=None, disk=None, real=False))
    file.write_text(NODE + "\n".join(domains) + "</node>")


async def all_guests(client: Client) -> list[Any]:
    """All guests, page by page."""
    lines: list[Any] = []
    while True:
        page = await client.call("guests", {"after": lines[-1].uuid if lines else "", "limit": 1_000})
        lines += page
        if not page:
            return lines


async def started(client: Client, guests: int, nodes: int) -> None:
    """Wait until a first inventory is complete and nothing is left to do."""

    def right(status: Any) -> bool:
        seen = all(each.inventories and each.nodes >= nodes for each in status.backends)
        return seen and not status.unsettled and status.guests.get("active", 0) == guests

    await until(client, right, pause=0.25)


async def filled(client: Client, guests: int, nodes: int) -> tuple[list[Any], str]:
    """Create guests; returns what is known of them, and the id of the installation."""
    await known(client, nodes)
    await create(client, names(guests))
    await all_settled(client, "active", guests)
    return await all_guests(client), (await client.call("reconcile_status")).installation


@app.command
def start(*, guests: int = 10_000, hosts: int = 10, rounds: int = 3) -> None:
    """CPU of a daemon from its start until guests that exist on libvirt's test driver are all compared."""
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
        folder = Path(name)
        config = libvirt_backend(folder, hosts)
        with service(folder, config) as (address, process):
            lines, installation = trio.run(with_client, address, filled, guests, hosts)
            process.kill()
            process.wait()
        for number in range(hosts):
            file = folder / f"node-{number}.xml"
            with_domains(file, [each for each in lines if each.node == f"node-{number}"], installation)
        for _ in range(rounds):
            began = time.perf_counter()
            with service(folder, config) as (address, process):
                ready = cpu_of(process.pid)
                trio.run(with_client, address, started, guests, hosts)
                found = {"seconds": time.perf_counter() - began, "cpu": cpu_of(process.pid), "cpu_until_ready": ready}
                print({key: round(value, 2) for key, value in found.items()}, flush=True)
                process.kill()
                process.wait()


async def one_by_one(client: Client, guests: int, nodes: int) -> list[float]:
    """Seconds that each of some guests takes to be active, one after the other."""
    await known(client, nodes)
    taken = []
    for guest in names(guests):
        began = trio.current_time()
        await client.call("create_guest", wanted(guest))
        while (await client.call("guest", {"uuid": guest})).status != "active":
            await trio.sleep(0.001)
        taken.append(trio.current_time() - began)
    return taken


@app.command
def hang(*, guests: int = 200, waiting: int = 500) -> None:
    """Time to active on one back end: alone, and beside one that answers nothing and for which guests wait."""

    async def beside(client: Client) -> list[float]:
        await known(client, 2)
        await client.call("set_backend", {"name": "quick", "enabled": False})
        await create(client, names(waiting))
        await client.call("set_backend", {"name": "quick", "enabled": True})
        await client.call("set_backend", {"name": "stuck", "enabled": True})
        return await one_by_one(client, guests, 2)

    quick = model_backend("quick", 1)
    for kind, more in (("alone", ""), ("beside one that hangs", "")):
        with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
            with service(Path(name), quick + more) as (address, _):
                found = trio.run(with_client, address, one_by_one if kind == "alone" else beside, guests, 1)
                print(f"{kind:>24}  {percentiles(found)}", flush=True)


async def churn(client: Client, seconds: float, most: int) -> int:
    """Create and remove guests for some seconds; returns how many lived."""
    lived, end = 0, trio.current_time() + seconds
    while trio.current_time() < end:
        found = names(most)
        await create(client, found)
        await trio.sleep(most / 1_000)
        await delete(client, found)
        lived += most
    return lived


if __name__ == "__main__":
    app()
