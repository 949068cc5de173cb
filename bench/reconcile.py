"""The reconciler of a running daemon: lives of guests on libvirt's test driver, the start with guests that are there
already, back ends that hang, and placements beside a busy reconciler.

    python -m hostler.bench.reconcile [lifecycles | start | hang | beside]
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cyclopts
import trio

from hostler.core.engine_commands import AddHosts, asked
from hostler.core.rpc.client import BlockingClient, Client
from hostler.drivers.compute.libvirt_xml import domain_xml
from hostler.drivers.protocol import GuestSpec, Mark
from hostler.placement.types.host import Aggregate, Host
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .service import cpu_of, load, percentiles, pipelined, service, with_client

app = cyclopts.App(name="reconcile", help="The reconciler of a running daemon.")

FLAVOR = Flavor(name="small", vcpus=1, memory_mb=64)
NODE_VCPUS, NODE_MIB = 4_096, 1 << 22
POLL = 0.05
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


def wanted(guest: str, others: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters of a guest's creation, on none of the ``others``."""
    spec = RequestSpec(flavor=FLAVOR, ignore_hosts=tuple(others), availability_zone="nova")
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


async def create(client: Client, guests: Sequence[str], others: Sequence[str] = ()) -> None:
    """Create guests, pipelined."""
    for first in range(0, len(guests), 500):
        answers = await client.pipeline(
            [("create_guest", wanted(each, others)) for each in guests[first : first + 500]]
        )
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


async def one_by_one(client: Client, guests: int, others: Sequence[str]) -> list[float]:
    """Seconds that each of some guests takes to be active, one after the other, not on the ``others``."""
    taken = []
    for guest in names(guests):
        began = trio.current_time()
        await client.call("create_guest", wanted(guest, others))
        with trio.fail_after(60):
            while (await client.call("guest", {"uuid": guest})).status != "active":  # noqa: ASYNC110  # another process
                await trio.sleep(0.001)
        taken.append(trio.current_time() - began)
    return taken


@app.command
def hang(*, guests: int = 200, waiting: int = 200, rounds: int = 2) -> None:
    """Seconds until guests are active on one back end: alone, and while another one, for which more guests wait than it
    takes calls, answers nothing."""
    stuck = [f"stuck-node-{number}" for number in range(10)]
    with tempfile.TemporaryDirectory(prefix="hostler-bench-") as name:
        file = Path(name) / "stuck.json"
        config = model_backend("quick", 50) + model_backend("stuck", 10, f'file = "{file}"\n')
        with service(Path(name), config) as (address, _), file.with_suffix(".lock").open("a") as lock:
            trio.run(with_client, address, known, 60)
            for _ in range(rounds):
                alone = trio.run(with_client, address, one_by_one, guests, stuck)
                fcntl.flock(lock, fcntl.LOCK_EX)  # the model waits for it in each call
                trio.run(with_client, address, create, names(waiting), [f"quick-node-{number}" for number in range(50)])
                time.sleep(1.0)
                beside = trio.run(with_client, address, one_by_one, guests, stuck)
                fcntl.flock(lock, fcntl.LOCK_UN)
                print({"alone": percentiles(alone), "beside": percentiles(beside)}, flush=True)


async def churn(client: Client, rate: float) -> None:
    """Create guests at a rate a second, and remove each ten seconds later, until cancelled."""
    old = list[list[str]]()
    at = trio.current_time()
    while True:
        old.append(names(max(round(rate / 10), 1)))
        await create(client, old[-1])
        if len(old) > 100:
            await delete(client, old.pop(0))
        at += 0.1
        await trio.sleep_until(at)


@app.command
def churning(address: str, rate: float) -> None:
    """Keep the reconciler busy."""
    trio.run(with_client, address, churn, rate)


def add_plain_hosts(address: str, count: int) -> None:
    """Large hosts without a back end, in a zone of their own."""
    zone = Aggregate(uuid=names(1)[0], name="plain", metadata={"availability_zone": "plain"})
    figures: dict[str, Any] = {
        "vcpus_total": 1_024,
        "total_usable_ram_mb": 1 << 22,
        "total_usable_disk_gb": 1_000_000,
        "aggregates": (zone,),
    }
    with BlockingClient(address) as client:
        client.call("add_hosts", AddHosts(hosts=tuple(Host(host=f"node-{at}", **figures) for at in range(count))))


@app.command
def beside(
    *, hosts: int = 1_000, rate: float = 20.0, guests: int = 1_000, seconds: float = 5.0, rounds: int = 4
) -> None:
    """Placements a second on hosts without a back end, by turns while the reconciler has nothing to do but its
    inventories of some guests, and while it builds and removes ``rate`` guests a second; and the CPU of the service
    for each placement, the reconciler's included."""
    backend = model_backend("busy", 100, "page = 2000\nconcurrency = 32\n")
    with (
        tempfile.TemporaryDirectory(prefix="hostler-bench-") as name,
        service(Path(name), backend) as (address, process),
    ):
        add_plain_hosts(address, hosts)
        trio.run(with_client, address, known, 100)
        trio.run(with_client, address, create, names(guests))
        trio.run(with_client, address, all_settled, "active", guests)
        command = [sys.executable, "-m", "hostler.bench.reconcile", "churning", address, str(rate)]
        for _ in range(rounds):
            found = {"idle": load(process, address, seconds, pipelined, 512)}
            busy = subprocess.Popen(command)
            time.sleep(3.0)
            found["busy"] = load(process, address, seconds, pipelined, 512)
            busy.terminate()
            busy.wait()
            print(found, flush=True)


if __name__ == "__main__":
    app()
