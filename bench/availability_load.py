"""Load of retrying clients on the members of a cluster, and the check of what was acknowledged: each key of a few is a
project whose two guests are placed together, released together, and read; the answers must be those of one machine that
did one call after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import UUID

import trio

from hostler.core.engine_commands import asked
from hostler.core.errors import StorageFailed
from hostler.core.rpc.client import Client, open_client
from hostler.placement.types.errors import DuplicateName, HostlerError, UnknownName
from hostler.placement.types.request import Flavor, Request, RequestSpec

from .linearizability import NEVER, Operation, linearizable

KEYS: Final = 12
GUESTS: Final = 2
VCPUS: Final = 3
PAUSE: Final = 0.01
SPEC: Final = RequestSpec(flavor=Flavor(name="pair", vcpus=VCPUS, memory_mb=64))


def guests_of(key: int) -> tuple[str, ...]:
    """The uuids of a key's guests."""
    return tuple(str(UUID(int=(key + 1 << 32) + number)) for number in range(GUESTS))


class Load:
    """Clients that call all the time, while ``on``. ``violations``: what one machine would not have answered."""

    def __init__(self, addresses: Sequence[str], seed: int, clients: int = 6, within: float = 60.0) -> None:
        self._addresses, self._clients, self._within = list(addresses), clients, within
        self._chance = random.Random(seed)
        self.history: dict[int, list[Operation]] = {key: [] for key in range(KEYS)}
        self.there: dict[int, set[bool]] = {key: {False} for key in range(KEYS)}
        self.violations: list[str] = []
        self.errors: list[str] = []
        """Of calls that were given up, or answered with what a cluster should not show its clients."""
        self.may_be_full = False
        """True while etcd is made full: commands may be refused with StorageFailed."""
        self.operations = 0
        self.longest = 0.0
        """Seconds between two answers of commands, at most."""
        self.under_way: dict[int, str] = {}
        """By client: what it has called, where it has no answer yet."""
        self._sequences: dict[int, int] = {}
        self._answered_at = 0.0
        self._on = trio.Event()
        self._busy = 0
        self._idle = trio.Event()

    async def run(self) -> None:
        """Call for ever."""
        async with trio.open_nursery() as nursery:
            for number in range(self._clients):
                nursery.start_soon(self._call_for_ever, number)

    def start(self) -> None:
        """Begin a round."""
        self.longest, self._answered_at = 0.0, trio.current_time()
        self._on.set()

    async def pause(self) -> None:
        """End a round: returns once no call is under way."""
        self._on = trio.Event()
        while self._busy:
            self._idle = trio.Event()
            await self._idle.wait()

    async def _call_for_ever(self, number: int) -> None:
        async with open_client(self._addresses, within=self._within) as client:
            while True:
                await self._on.wait()
                self._busy += 1
                key, which = self._chance.randrange(KEYS), self._chance.random()
                self.under_way[number] = f"{which:.2f} of key {key} at {client.address} since {trio.current_time():.1f}"
                try:
                    await self._call(client, key, which)
                finally:
                    del self.under_way[number]
                    self._busy -= 1
                    if not self._busy:
                        self._idle.set()
                await trio.sleep(PAUSE)

    async def _call(self, client: Client, key: int, which: float) -> None:
        kind: Literal["create", "remove", "read"] = "create" if which < 0.4 else "remove" if which < 0.8 else "read"
        began = trio.current_time()
        ended, result = NEVER, None
        try:
            if kind == "read":
                result = await self._read(client, key)
            elif kind == "create":
                result = await self._create(client, key)
            else:
                await client.call("release", {"uuids": guests_of(key)})
                result = True
            ended = trio.current_time()
        except (DuplicateName, UnknownName):
            ended, result = trio.current_time(), False
        except StorageFailed as error:
            if not self.may_be_full:
                self.errors.append(f"{kind} of key {key}: {error.code}: {error}")
            return  # nothing was done, it says; were it otherwise, the history would not be explained
        except HostlerError as error:
            self.errors.append(f"{kind} of key {key}: {error.code}: {error}")
        self.history[key].append(Operation(kind, began, ended, result))
        self.operations += 1
        if kind != "read" and ended != NEVER:
            self.longest = max(self.longest, ended - self._answered_at)
            self._answered_at = ended

    async def _create(self, client: Client, key: int) -> bool:
        request = Request(spec=SPEC, instance_uuids=guests_of(key), project_id=f"p{key}")
        decision = await client.call("place", {"request": asked(request)})
        if not decision.placed:
            self.violations.append(f"key {key} was refused although there is room")
        known = self._sequences.setdefault(decision.sequence, key)
        if known != key:
            self.violations.append(f"decision {decision.sequence} was made for keys {known} and {key}")
        return True

    async def _read(self, client: Client, key: int) -> bool:
        lines = await client.call("instances", {"project": f"p{key}"}, stale_ms=0)
        if len(lines) not in (0, GUESTS):
            self.violations.append(f"key {key} had {len(lines)} of {GUESTS} guests")
        return bool(lines)

    # checks, while nothing is under way

    async def check(self, members: Sequence[str]) -> None:
        """Compare all members with what was acknowledged, once they have carried out the same; a new round's history
        begins with what is there then."""
        found: list[dict[int, bool]] = []
        for address in members:
            async with open_client(address, within=self._within) as client:
                found.append({key: await self._read_here(client, key) for key in range(KEYS)})
                used = (await client.call("capacity"))["VCPU"].used
                expected = GUESTS * VCPUS * sum(found[-1].values())
                if used != expected:
                    self.violations.append(f"{address} counts {used} vCPUs in use, its guests take {expected}")
        for mine in found[1:]:
            if mine != found[0]:
                self.violations.append(f"members differ: {found[0]} and {mine}")
        now = trio.current_time()
        for key, there in found[0].items():
            history = [*self.history[key], Operation("read", now, now, there)]
            ends = set[bool]().union(*(linearizable(history, there=before) for before in self.there[key]))
            if not ends:
                self.violations.append(f"no order explains the history of key {key}: {history}")
            # What had no answer may still come: the model of the next round knows it.
            self.history[key] = [each for each in self.history[key] if each.ended == NEVER]
            self.there[key] = {there}

    @staticmethod
    async def _read_here(client: Client, key: int) -> bool:
        lines: list[Any] = await client.call("instances", {"project": f"p{key}"})
        return bool(lines)
