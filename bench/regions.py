"""Regret of a parent of regions: how often it refuses a request though a region had room, by the age of the summaries
that it chooses by; and the messages and bytes that this takes. A simulation on the engine, the summaries and the choice
of the service, without sockets.

    python -m hostler.bench.regions [--regions 10] [--hosts 100000] [--age 1.0] [--seconds 60] [--as-json]

Of each region's hosts all but ``--open`` are full from the start; those are filled to ``--fill``, then guests come and
go at ``--rate`` a second, so that regions are full again and again. Each request that is refused is put to all regions,
as an oracle.
"""

from __future__ import annotations

import json
import random
import resource
import time
from collections.abc import Sequence
from typing import Any, Final

import cyclopts
import msgspec

from hostler.core.engine_commands import Asked, Place, asked
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.machine.region_summary import RegionSummary, Summarizer
from hostler.core.regions.choice import Known, Wish, ordered, wish_of
from hostler.core.regions.options import RegionOptions, RegionPolicy
from hostler.core.tenancy.tenants import LOCAL
from hostler.placement.load.bulk import add_hosts
from hostler.placement.types.host import Host
from hostler.placement.types.request import Flavor, Request, RequestSpec

app = cyclopts.App(name="regions", help="Regret, messages and bytes of a parent of regions.")

SIZES: Final = ((1, 2), (2, 4), (2, 8), (4, 8), (4, 16), (8, 32), (16, 64), (32, 128))
"""vCPUs and GiB of flavors."""
BEGIN: Final = 1_000_000.0
"""Seconds since the epoch at which a simulation begins."""
_encode: Final = msgspec.msgpack.Encoder().encode


class Region:
    """A region's state, its summary as its parent has it, and what passes between them."""

    def __init__(self, number: int, hosts: int, opened: int) -> None:
        self.name, self.options = f"r{number}", RegionOptions(addresses=("unix:/none",), price=1.0 + number / 10)
        self.machine, self._summarizer = ServiceMachine(), Summarizer()
        self.machine.state.follow_rules(2)
        every = max(hosts // opened, 1)
        add_hosts(self.machine.state.fleet, [_host(number, each, each % every == 0) for each in range(hosts)])
        self.free_vcpus = sum((32, 64, 96)[each % 3] for each in range(0, hosts, every))
        self.summary: RegionSummary | None = None
        self.claimed = (0, 0)
        self.version = self.messages = self.bytes = 0
        self.summary_seconds = 0.0

    def place(self, request: Asked, now: float) -> str | None:
        """The host; None if it is refused."""
        self.version += 1
        decision = self.machine.apply(Order(now, LOCAL, Place(request=request)))
        return decision.selections[0].host if decision.placed else None

    def release(self, uuid: str) -> None:
        """Give a guest back."""
        self.version += 1
        self.machine.state.engine.release([uuid])

    def push(self) -> None:
        """Send the summary, if it may have changed."""
        if self.summary is not None and self.summary.version == self.version:
            return
        began = time.process_time()
        self.summary = self._summarizer.summary(self.machine.state, self.version)
        self.summary_seconds += time.process_time() - began
        self.messages += 1
        self.bytes += len(_encode(self.summary))
        self.claimed = (0, 0)


def _host(region: int, number: int, is_open: bool) -> Host:
    vcpus = (32, 64, 96)[number % 3]
    return Host(
        host=f"r{region}-{number}",
        vcpus_total=vcpus,
        vcpus_used=0 if is_open else vcpus,
        cpu_allocation_ratio=1.0,
        total_usable_ram_mb=vcpus * 4_096,
        total_usable_disk_gb=100_000,
    )


def _size(chance: random.Random) -> tuple[int, int]:
    return SIZES[min(int(chance.expovariate(0.6)), len(SIZES) - 1)]


def _request(chance: random.Random, size: tuple[int, int]) -> tuple[Asked, Wish]:
    spec = _SPECS[size]
    return asked(Request(spec=spec, instance_uuids=(_uuid(chance),))), wish_of(spec, 1)


def _uuid(chance: random.Random) -> str:
    text = f"{chance.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_SPECS: Final = {
    (vcpus, gib): RequestSpec(flavor=Flavor(name=f"{vcpus}x{gib}", vcpus=vcpus, memory_mb=1_024 * gib))
    for vcpus, gib in SIZES
}


class Parent:
    """The choice, and its record."""

    def __init__(self, regions: Sequence[Region], policy: RegionPolicy, attempts: int, doubtful: int) -> None:
        self._regions = {each.name: each for each in regions}
        self._policy, self._attempts, self._doubtful = policy, attempts, doubtful
        self.requests = self.placed = self.asked = self.regretted = self.refused = self.bytes = 0
        self.choice_seconds = 0.0

    def place(self, request: Asked, wish: Wish, now: float) -> Region | None:
        """The region that took it."""
        self.requests += 1
        began = time.process_time()
        known = [Known(each.name, each.options, each.summary, each.claimed) for each in self._regions.values()]
        order = ordered(known, wish, self._policy, attempts=self._attempts, doubtful=self._doubtful)
        self.choice_seconds += time.process_time() - began
        size = len(_encode(request))
        for name in order:
            region = self._regions[name]
            self.asked += 1
            self.bytes += 2 * size  # the answer is about as long as the question
            if region.place(request, now) is not None:
                region.claimed = (region.claimed[0] + wish.vcpus, region.claimed[1] + wish.memory_mb)
                self.placed += 1
                return region
        self.refused += 1
        for region in self._regions.values():
            if region.name not in order and region.place(request, now) is not None:
                self.regretted += 1
                return region
        return None


class World:
    """Regions under one parent, and the guests in them."""

    def __init__(self, regions: Sequence[Region], fill: float, chance: random.Random) -> None:
        """Fill the regions in turn, so that all are about as full, up to the part ``fill`` of their vCPUs."""
        self.regions, self._chance = regions, chance
        self._alive: list[tuple[Region, str, Wish]] = []
        self._most, self._used = fill * sum(each.free_vcpus for each in regions), 0
        while self._used < self._most:
            large = self._used < 0.9 * self._most
            region = regions[len(self._alive) % len(regions)]
            if not self._fill(region, SIZES[-1] if large else _size(chance)) and not self._fill(region, SIZES[0]):
                break
        for region in regions:
            region.push()
            region.messages = region.bytes = 0

    def _fill(self, region: Region, size: tuple[int, int]) -> bool:
        request, wish = _request(self._chance, size)
        if region.place(request, BEGIN) is None:
            return False
        self.came(region, request, wish)
        return True

    def came(self, region: Region, request: Asked, wish: Wish) -> None:
        """A guest is in a region."""
        self._alive.append((region, request.instance_uuids[0], wish))
        self._used += wish.vcpus

    def make_room(self) -> None:
        """Guests go until the regions are as full as they were at first."""
        alive = self._alive
        while self._used > self._most and alive:
            position = self._chance.randrange(len(alive))
            alive[position], alive[-1] = alive[-1], alive[position]
            region, uuid, wish = alive.pop()
            region.release(uuid)
            region.claimed = (region.claimed[0] - wish.vcpus, region.claimed[1] - wish.memory_mb)
            self._used -= wish.vcpus


def simulate(world: World, parent: Parent, *, age: float, seconds: float, rate: float, chance: random.Random) -> None:
    """``rate`` requests a second. ``age``: seconds between two summaries of a region; each sends its own at another
    moment."""
    regions = world.regions
    next_push = [BEGIN + age * number / len(regions) for number in range(len(regions))]
    for step in range(int(seconds * rate)):
        now = BEGIN + step / rate
        for number, region in enumerate(regions):
            if now >= next_push[number]:
                region.push()
                next_push[number] += age
        request, wish = _request(chance, _size(chance))
        found = parent.place(request, wish, now)
        if found is not None:
            world.came(found, request, wish)
        world.make_room()


def figures(regions: Sequence[Region], parent: Parent, seconds: float) -> dict[str, Any]:
    """What was found."""
    pushed, requests = sum(each.messages for each in regions), max(parent.requests, 1)
    sent = sum(each.bytes for each in regions)
    return {
        "requests": parent.requests,
        "refused": parent.refused,
        "regretted": parent.regretted,
        "regret_percent": round(100 * parent.regretted / requests, 4),
        "asked_a_request": round(parent.asked / requests, 3),
        "summaries_a_second": round(pushed / seconds, 2),
        "summary_bytes": round(sent / max(pushed, 1)),
        "summary_bytes_a_second": round(sent / seconds),
        "request_bytes_a_second": round(parent.bytes / seconds),
        "summary_cpu_ms": round(1_000 * sum(each.summary_seconds for each in regions) / (pushed + len(regions)), 3),
        "choice_cpu_us": round(1e6 * parent.choice_seconds / requests, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


@app.default
def main(
    *,
    regions: int = 10,
    hosts: int = 100_000,
    age: float = 1.0,
    seconds: float = 60.0,
    rate: float = 200.0,
    fill: float = 0.97,
    open: int = 300,
    policy: RegionPolicy = "cheapest",
    attempts: int = 10,
    doubtful: int = 9,
    seed: int = 1,
    as_json: bool = False,
) -> int:
    """Simulate, and print what was found.

    Parameters
    ----------
    age
        seconds between two summaries of a region
    rate
        requests a second
    fill
        part of the vCPUs of open hosts that is in use
    open
        hosts of a region that are not full from the start
    """
    chance = random.Random(seed)
    made = [Region(number, hosts, open) for number in range(regions)]
    world = World(made, fill, chance)
    parent = Parent(made, policy, attempts, doubtful)
    simulate(world, parent, age=age, seconds=seconds, rate=rate, chance=chance)
    found = {"regions": regions, "hosts_a_region": hosts, "open_hosts_a_region": open, "summary_age_s": age}
    found |= figures(made, parent, seconds)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            print(f"{key:>24}  {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(app(result_action="return_value"))
