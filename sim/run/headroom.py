"""N+k headroom: what would happen if hosts, racks, cells or zones failed at the busiest moment of a run, on trial."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ...placement.decide.engine import Engine
from ...placement.persist.file import load, save
from ...placement.types.request import Request
from .fleet_plan import DOMAINS, Place
from .run import RESOURCES, Run
from .site import minds_outages
from .sizing import Search

MARGIN: Final = 1.02
"""A moment is only busier than another if it is fuller by this factor: so few need to be kept."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """One failure: hosts that fail together, guests that lose their host, and those for which there is no other."""

    what: str
    hosts: int
    guests: int
    homeless: int


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the ``of`` hosts, racks, cells or zones (``kind``), the fullest ones, may fail together so that all
    guests find another host: the k of N+k. One more may not; that fewer may is taken for granted."""

    kind: str
    survives: int
    of: int


class Headroom(msgspec.Struct, frozen=True, kw_only=True):
    """Failures on trial, ``at_hours`` into the run, when so many guests were there and so many percent of each
    resource were given. ``losses``: the worst first."""

    at_hours: float
    guests: int
    used_percent: dict[str, float]
    survives: list[Survival]
    losses: list[Loss]


class Busiest:
    """The busiest moment of a run, within 2 %, and the failures tried there. Give ``look`` to ``Run.play``. ``spare``:
    how many of the fullest hosts are lost together.

    Busy is what has most of its scarcest resource given. The fleet of that moment is kept in a temporary file.
    """

    def __init__(self, run: Run, *, spare: int = 1) -> None:
        self.run, self.spare = run, spare
        self.percent = 0.0
        self.headroom: Headroom | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._kept: _Moment | None = None
        self._judges = minds_outages(run.engine.policy)

    def look(self) -> bool:
        """Take note of a step: what ``Run.play`` may call, so always True. Policies that would use hosts that are down
        have nothing tried. O(hosts + guests) for a moment that is kept."""
        busy = float(self.run.percent.max())
        if busy > self.percent * MARGIN and self._judges:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="hostler-")
            self._kept, self.percent = _Moment(self.run, Path(self._folder.name) / "fleet"), busy
        return True

    def tried(self) -> Headroom | None:
        """What failures would do at the busiest moment so far; None if no guest was there. O(guests) placements, a few
        times."""
        if self._kept is not None:
            self.headroom, self._kept = self._kept.headroom(self.spare), None
        self.close()
        return self.headroom

    def close(self) -> None:
        """Remove the temporary file; failures can then be tried only at moments that come later."""
        self._kept = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class _Moment:
    """A run as it stands, its fleet in a file."""

    def __init__(self, run: Run, file: Path) -> None:
        self.spec_of, self.file = run.spec_of, file
        self.policy, self.seed = run.engine.policy, run.engine.seed
        self.places: Sequence[Place] = tuple(run.site.places)
        self.hours, self.guests = run.hours, run.alive
        self.used_percent = dict(zip(RESOURCES, run.percent.round(3).tolist(), strict=True))
        save(run.engine.fleet, file, sync=False)

    def engine(self) -> Engine:
        """An engine of its own."""
        return Engine(load(self.file), self.policy, seed=self.seed)

    def headroom(self, spare: int) -> Headroom:
        """What failures would do."""
        engine = self.engine()
        domains = {kind: found for kind in DOMAINS if len(found := self._domains(engine, kind)) > 1}
        fullest = [host for hosts in list(domains.get("host", {}).values())[:spare] for host in hosts]
        lost = {f"the {spare} fullest hosts" if spare > 1 else "the fullest host": fullest}
        for kind in DOMAINS[1:]:
            lost |= {f"{kind} {name}": hosts for name, hosts in domains.get(kind, {}).items()}
        losses = [self._loss(engine, what, hosts) for what, hosts in lost.items() if 0 < len(hosts) < len(self.places)]
        return Headroom(
            at_hours=self.hours,
            guests=self.guests,
            used_percent=self.used_percent,
            survives=[
                Survival(kind=kind, survives=self._survives(engine, list(found.values())), of=len(found))
                for kind, found in domains.items()
            ],
            losses=sorted(losses, key=lambda loss: (-loss.homeless, -loss.guests, loss.what)),
        )

    def _domains(self, engine: Engine, kind: str) -> dict[str, list[str]]:
        """What there is of a kind, and its hosts, the fullest (by vCPUs) first."""
        found: dict[str, list[str]] = {}
        for place in self.places:
            found.setdefault(getattr(place, kind), []).append(place.host)
        found.pop("", None)
        fleet = engine.fleet
        given = fleet.store.inventory["used"][0]
        used = {name: sum(int(given[fleet.row(host)]) for host in hosts) for name, hosts in found.items()}
        return {name: found[name] for name in sorted(found, key=lambda name: (-used[name], name))}

    def _loss(self, engine: Engine, what: str, hosts: Sequence[str]) -> Loss:
        guests, homeless = self._fail(engine.fork(), hosts)
        return Loss(what=what, hosts=len(hosts), guests=guests, homeless=homeless)

    def _survives(self, engine: Engine, domains: Sequence[Sequence[str]]) -> int:
        """How many may fail together."""
        names = list(domains)
        search = Search(len(names) - self._bound(engine, names))
        while (left := search.candidate) is not None:
            failing = [host for hosts in names[: max(0, len(names) - left)] for host in hosts]
            search.note(left, holds=not failing or not self._fail(self.engine(), failing)[1])
        assert search.enough is not None
        return max(0, len(names) - search.enough)

    def _bound(self, engine: Engine, domains: Sequence[Sequence[str]]) -> int:
        """More cannot fail: the rest has not even room for the sums of what is given."""
        fleet = engine.fleet
        rows = [[fleet.row(host) for host in hosts] for hosts in domains]
        blocks = fleet.store.inventory
        limits = np.array([blocks["limit"][: len(RESOURCES), each].sum(axis=1) for each in rows])
        given = sum(blocks["used"][: len(RESOURCES), each].sum(axis=1) for each in rows)
        left = limits.sum(axis=0) - np.cumsum(limits, axis=0)
        return int(np.count_nonzero((left >= given).all(axis=1)))

    def _fail(self, trial: Engine, hosts: Sequence[str]) -> tuple[int, int]:
        """Let hosts fail, and place their guests again, the largest first; how many they are, and find no host."""
        fleet = trial.fleet
        named = [(uuid, self.spec_of(uuid)) for host in hosts for uuid in fleet.instances(fleet.row(host))]
        guests = sorted(named, key=lambda guest: (-guest[1].flavor.vcpus, guest[0][-12:]))
        grouped = fleet.consumer if fleet.group_uuids else None
        requests = [
            Request(
                spec=spec,
                instance_uuids=(uuid,),
                server_group=None if grouped is None else grouped(uuid).server_group,
            )
            for uuid, spec in guests
        ]
        fleet.set_service(hosts, forced_down=True)
        trial.release(uuid for uuid, _ in guests)
        return len(guests), len(guests) - trial.place_many(requests).placed
