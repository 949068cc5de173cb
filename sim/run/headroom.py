"""N+k headroom: what would happen if hosts, racks, cells or zones failed at the busiest moment of a run, on trial."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ...placement.decide.engine import Engine
from ...placement.persist.file import load, save
from ...placement.types.errors import InvalidValue
from .failure_trials import Loss, Survival, Trials
from .fleet_plan import DOMAINS, Place, rack_of_its_own
from .run import Run
from .site import minds_outages

MARGIN: Final = 1.02
"""A moment is only busier than another if it is fuller by this factor: so few need to be kept."""


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


class AtSteps:
    """Failures on trial at some steps of a run, by number. Give ``look`` to ``Run.play``. InvalidValue for a policy
    that would use hosts that are down."""

    def __init__(self, run: Run, steps: Iterable[int]) -> None:
        if not minds_outages(run.engine.policy):
            problem = f"policy {run.engine.policy.name} has no ComputeFilter: it would use hosts that have failed"
            raise InvalidValue(problem, field="policy", hint="enable ComputeFilter, or ask for no reserve")
        self.run, self._steps = run, set(steps)
        self._folder = tempfile.TemporaryDirectory(prefix="hostler-")
        self._kept: list[_Moment] = []

    def look(self) -> bool:
        """Take note of a step; always True. O(hosts + guests) for one of the steps."""
        if self.run.step in self._steps:
            self._kept.append(_Moment(self.run, Path(self._folder.name) / f"fleet-{self.run.step}"))
        return True

    def failing(self, kind: str) -> str | None:
        """A host, rack or zone whose failure would leave guests without a host at one of the steps; None if any one of
        them may fail. Of a single one, nothing is left."""
        for moment in self._kept:
            found = moment.failing(kind)
            if found is not None:
                return found
        return None

    def close(self) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()


class _Moment:
    """A run as it stands, its fleet in a file."""

    def __init__(self, run: Run, file: Path) -> None:
        self.spec_of, self.file = run.spec_of, file
        self.policy, self.seed = run.engine.policy, run.engine.seed
        self.places: Sequence[Place] = tuple(run.site.places)
        self.down = {host for host, reasons in run.site.down.items() if reasons > 0}
        self.hours, self.guests = run.hours, run.alive
        self.used_percent = dict(zip(run.resources, run.percent.round(3).tolist(), strict=True))
        save(run.engine.fleet, file, sync=False)

    def engine(self) -> Engine:
        """An engine of its own."""
        return Engine(load(self.file), self.policy, seed=self.seed)

    def headroom(self, spare: int) -> Headroom:
        """What failures would do."""
        engine = self.engine()
        domains = {kind: found for kind in DOMAINS if len(found := self._domains(engine, kind)) > 1}
        trials = Trials(engine, [place for place in self.places if place.host not in self.down], self.spec_of)
        # A rack that stands for a host without one is no other failure than that host's.
        alone = {place.rack for place in self.places if place.rack == rack_of_its_own(place.zone, place.host)}
        fullest = [host for hosts in list(domains.get("host", {}).values())[:spare] for host in hosts]
        lost = {f"the {spare} fullest hosts" if spare > 1 else "the fullest host": fullest}
        for kind in DOMAINS[1:]:
            lost |= {f"{kind} {name}": hosts for name, hosts in domains.get(kind, {}).items() if name not in alone}
        running = len(self.places) - len(self.down)
        losses = [trials.loss(what, hosts) for what, hosts in lost.items() if 0 < len(hosts) < running]
        return Headroom(
            at_hours=self.hours,
            guests=self.guests,
            used_percent=self.used_percent,
            survives=[trials.survival(kind, found) for kind, found in domains.items()],
            losses=sorted(losses, key=lambda loss: (-loss.homeless, -loss.guests, loss.what)),
        )

    def failing(self, kind: str) -> str | None:
        """One of the hosts, racks or zones that may not fail."""
        engine = self.engine()
        domains = self._domains(engine, kind)
        trials = Trials(engine, [place for place in self.places if place.host not in self.down], self.spec_of)
        return next(iter(domains), None) if len(domains) < 2 and self.guests else trials.failing(kind, domains)

    def _domains(self, engine: Engine, kind: str) -> dict[str, list[str]]:
        """What there is of a kind, and its hosts, the fullest (by vCPUs) first."""
        found: dict[str, list[str]] = {}
        for place in self.places:
            if place.host in self.down:
                continue
            found.setdefault(getattr(place, kind), []).append(place.host)
        found.pop("", None)
        fleet = engine.fleet
        given = fleet._store.inventory["used"][0]
        used = {name: sum(int(given[fleet.row(host)]) for host in hosts) for name, hosts in found.items()}
        return {name: found[name] for name in sorted(found, key=lambda name: (-used[name], name))}
