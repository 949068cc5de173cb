"""The reconciler of a running daemon: lives of guests on libvirt's test driver, the start with guests that are there
already, back ends that hang, and placements beside a busy reconciler.

    python -m hostler.bench.reconcile [lifecycles | start | hang | beside]
"""

from __future__ import annotations

import fcntl
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import trio

from hostler.core.engine_commands import AddHosts, asked
from hostler.core.rpc.client import BlockingClient, Client, open_client
from hostler.drivers.compute.libvirt_xml import domain_xml
from hostler.drivers.protocol import GuestSpec, Mark
from hostler.placement.types.host import Aggregate, Host
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .service import ASKED, cpu_of, percentiles, service, with_client

app = cyclopts.App(name="reconcile", help="The reconciler of a running daemon.")

FLAVOR = Flavor(name="small", vcpus=1, memory_mb=64)
NODE_VCPUS, NODE_MIB = 4_096, 1 << 22
POLL = 0.05
LEAST = 2_000
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
    """Create guests, pipelined, on none of the ``others``."""
    for first in range(0, len(guests), 500):
        answers = await client.pipeline(
            [("create_guest", wanted(each, others)) for each in guests[first : first + 500]]
        )
        refused = [answer for answer in answers if not answer.placed]
        assert not refused, refused[0]


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


class Load:
    """Placements that are always under way."""

    def __init__(self, client: Client, process: int) -> None:
        self._client = client
        self._stat = Path(f"/proc/{process}/task/{process}/schedstat")
        self.placed = 0

    async def place(self) -> None:
        """Place one by one, 256 on their way, for ever."""
        while True:
            answers = await self._client.pipeline([("place", ASKED)] * 256)
            self.placed += sum(answer.placed for answer in answers)

    def loop_seconds(self) -> float:
        """Processor time of the service's event loop, whose thread has the number of its process."""
        return int(self._stat.read_text().split()[0]) / 1e9

    async def window(self, seconds: float) -> tuple[float, float]:
        """Microseconds of the loop for each placement, all else that it does included, and placements a second of the
        clock, over ``seconds`` of it or longer, until there are LEAST placements."""
        cpu, placed, began = self.loop_seconds(), self.placed, trio.current_time()
        await trio.sleep(seconds)
        while self.placed - placed < LEAST:  # noqa: ASYNC110  # another process
            await trio.sleep(seconds / 10)
        placed = self.placed - placed
        return (self.loop_seconds() - cpu) / placed * 1e6, placed / (trio.current_time() - began)


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


async def side_by_side(address: str, process: int, guests: int, seconds: float, pairs: int) -> None:
    """Print what a placement costs the loop while calls are made on a back end for which guests wait, and while none
    are: in pairs of windows, the second one of each pair first in every other."""
    async with open_client(address, within=60) as client, open_client(address, within=60) as other:
        await known(other, 10)
        load, found, waiting = Load(client, process), list[tuple[float, float]](), 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.place)
            nursery.start_soon(load.place)
            for pair in range(pairs):
                if waiting < guests // 2:
                    await other.call("set_backend", {"name": "hosts", "enabled": True})  # else nothing is placed there
                    await create(other, names(guests - waiting))
                    waiting = guests
                figures = {}
                for busy in (False, True) if pair % 2 else (True, False):
                    await other.call("set_backend", {"name": "hosts", "enabled": busy})
                    await trio.sleep(1.0)  # until the inventory that this begins has ended
                    figures[busy] = await load.window(seconds)
                before, waiting = waiting, (await other.call("reconcile_status")).unsettled
                found.append((figures[True][0] / figures[False][0], figures[True][1] / figures[False][1]))
                line = {"us": [figures[False][0], figures[True][0]], "a_second": [figures[False][1], figures[True][1]]}
                print({key: [round(value, 1) for value in values] for key, values in line.items()}, before - waiting)
            nursery.cancel_scope.cancel()
    low, median, high = np.percentile(found, [25, 50, 75], axis=0).round(3).tolist()
    print({"us": median[0], "quartiles": [low[0], high[0]]}, {"a_second": median[1], "quartiles": [low[1], high[1]]})


@app.command
def beside(*, hosts: int = 1_000, guests: int = 4_000, seconds: float = 0.7, pairs: int = 24) -> None:
    """Placements on hosts without a back end, 512 on their way, while the reconciler builds all that it can of guests
    that wait for it, and while it makes no calls; as ratios of short windows that follow each other."""
    with (
        tempfile.TemporaryDirectory(prefix="hostler-bench-") as name,
        service(Path(name), libvirt_backend(Path(name), 10)) as (address, process),
    ):
        add_plain_hosts(address, hosts)
        trio.run(side_by_side, address, process.pid, guests, seconds, pairs)


if __name__ == "__main__":
    app()
