"""Counts what a replay does, step by step, and sums it up: guests, refusals, usage, and two stories."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...placement.decide.explain.explanation import Explanation
from ...placement.types.request import Request
from .cloud import Cloud
from .replay import Replay, Step
from .summary import Chosen, Explained, Hour, Machines, Part, Refusals, Summary, Timing, Usage

LOOKED_AT: Final = 500
"""Best hosts among which the second best is looked for; those before it score the same as the best."""
RESOURCES: Final = ("VCPU", "MEMORY_MB", "DISK_GB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How things stood after a step: ``used`` = [zone, resource]."""

    at_s: int
    arrived: int
    departed: int
    alive: int
    used: NDArray[np.int64]


class Tally:
    """What has happened so far in one replay. ``add`` is called with every step, before the next one is played."""

    def __init__(self, cloud: Cloud, replay: Replay) -> None:
        self.cloud, self.replay, self.engine = cloud, replay, replay.engine
        self.requests = self.placed = self.departed = 0
        self.refused: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self._first_refusals: dict[str, Explained] = {}
        self._last_arrivals: Step | None = None
        self._started = self._reached = time.perf_counter()

    def add(self, step: Step) -> None:
        """Take a step into account."""
        self.requests += len(step.requests)
        self.placed += step.decisions.placed
        self.departed += len(step.departed)
        for index in np.flatnonzero(step.decisions.rows < 0).tolist():
            self._refuse(step, index)
        if step.decisions.placed:
            self._last_arrivals = step
        self.samples.append(
            Sample(
                at_s=step.at_s,
                arrived=step.decisions.placed,
                departed=len(step.departed),
                alive=self.placed - self.departed,
                used=self._used(),
            )
        )
        self._reached = time.perf_counter()

    def _refuse(self, step: Step, index: int) -> None:
        refusal = step.decisions[index].refusal
        assert refusal is not None
        self.refused[refusal.stage] += 1
        if refusal.stage not in self._first_refusals:
            # Guests that came later in the step have taken more since, and none has left: it is refused still.
            request = step.requests[index]
            told = self._explained(step.at_s, request, self.engine.explain(request, top=0), None)
            self._first_refusals[refusal.stage] = told

    # how things stand

    def _used(self) -> NDArray[np.int64]:
        """What is taken, by zone and resource, as the hosts' figures have it."""
        column = self.engine.fleet.column
        return self._by_zone(
            column("vcpus_used"),
            column("total_usable_ram_mb") - column("free_ram_mb"),
            column("total_usable_disk_gb") - column("free_disk_mb") / 1024,
        )

    def _totals(self) -> NDArray[np.int64]:
        """What there is, by zone and resource."""
        column = self.engine.fleet.column
        return self._by_zone(
            column("vcpus_total") * column("cpu_allocation_ratio"),
            column("total_usable_ram_mb") * column("ram_allocation_ratio"),
            column("total_usable_disk_gb") * column("disk_allocation_ratio"),
        )

    def _by_zone(self, *amounts: NDArray[np.float64]) -> NDArray[np.int64]:
        """Amounts per host, one array per resource, summed up: [zone, resource]."""
        zone_of, zones = self.cloud.zone_of, len(self.cloud.zones)
        return np.stack([np.bincount(zone_of, each, zones) for each in amounts], axis=1).astype(np.int64)

    def _inventories(self) -> dict[str, int]:
        """What the inventories of all hosts say is taken. O(hosts)."""
        used: dict[str, int] = {}
        for name in self.cloud.names:
            for resource, (_, taken) in self.engine.fleet.inventory(name).items():
                used[resource] = used.get(resource, 0) + taken
        return used

    def _held(self) -> dict[str, int]:
        """What the guests that are alive asked for."""
        workload, alive = self.replay.workload, self.replay.alive
        amounts = {
            "VCPU": workload.amounts(lambda flavor: flavor.vcpus),
            "MEMORY_MB": workload.amounts(lambda flavor: flavor.memory_mb),
            "DISK_GB": workload.amounts(lambda flavor: flavor.root_gb),
        }
        return {resource: int(each[alive].sum()) for resource, each in amounts.items()}

    # summing up

    def summary(self, *, seed: int, interrupted: bool) -> Summary:
        """All of it as a value, after one step at least. O(hosts + guests)."""
        workload, held = self.replay.workload, self._held()
        inventories = self._inventories()
        peak = max(self.samples, key=lambda sample: int(sample.used[:, 0].sum()))
        return Summary(
            workload=workload.name,
            hosts=len(self.cloud),
            zones=self.cloud.zones,
            machines=self._machines(),
            out_of_service=int(np.count_nonzero(self.engine.fleet.column("service_up") == 0)),
            seed=seed,
            start_s=workload.start_s,
            end_s=workload.end_s,
            reached_s=self.samples[-1].at_s,
            interrupted=interrupted,
            standing=workload.standing,
            requests=self.requests,
            placed=self.placed,
            refused=self.refused.total(),
            departed=self.departed,
            alive=self.placed - self.departed,
            refusals=self._refusals(),
            used={resource: inventories.get(resource, 0) for resource in RESOURCES},
            held=held,
            peak_s=peak.at_s,
            usage=self._usage(peak),
            hours=self._hours(),
            decision=self._decision(),
            refusal=self.refusal(),
            timing=self._timing(),
        )

    def _machines(self) -> tuple[Machines, ...]:
        templates, template_of = self.cloud.templates, self.cloud.template_of
        kinds: Counter[tuple[int, int, int | None]] = Counter()
        for host, count in zip(templates, np.bincount(template_of, minlength=len(templates)).tolist(), strict=True):
            kinds[host.vcpus_total, host.total_usable_ram_mb, host.hypervisor_version] += count
        return tuple(
            Machines(hosts=hosts, vcpus=vcpus, memory_mb=memory_mb, hypervisor_version=version)
            for (vcpus, memory_mb, version), hosts in kinds.most_common()
            if hosts
        )

    def _refusals(self) -> tuple[Refusals, ...]:
        """The most frequent stage first."""
        stages = sorted(self.refused.items(), key=lambda each: (-each[1], each[0]))
        return tuple(Refusals(stage=stage, guests=n, first=self._first_refusals[stage]) for stage, n in stages)

    def _usage(self, peak: Sample) -> tuple[Usage, ...]:
        """Per zone and resource class that there is any of, and for all zones together if there are several."""
        totals, samples = self._totals(), (self.samples[0], peak, self.samples[-1])
        zones = self.cloud.zones
        rows = [(zone, [row]) for row, zone in enumerate(zones)]
        if len(zones) > 1:
            rows.append(("all", list(range(len(zones)))))
        return tuple(
            Usage(
                zone=zone,
                resource_class=resource,
                total=int(totals[row, column].sum()),
                start=int(samples[0].used[row, column].sum()),
                peak=int(samples[1].used[row, column].sum()),
                end=int(samples[2].used[row, column].sum()),
            )
            for zone, row in rows
            for column, resource in enumerate(RESOURCES)
            if totals[:, column].any()
        )

    def _hours(self) -> tuple[Hour, ...]:
        """Hour by hour; the arrival of the standing guests is in none."""
        start_s = self.replay.workload.start_s
        by_hour: dict[int, list[Sample]] = {}
        for sample in self.samples:
            if sample.at_s >= start_s:
                by_hour.setdefault((sample.at_s - start_s) // 3600, []).append(sample)
        return tuple(
            Hour(
                arrived=sum(sample.arrived for sample in samples),
                departed=sum(sample.departed for sample in samples),
                alive=samples[-1].alive,
                vcpus_used=int(samples[-1].used[:, 0].sum()),
            )
            for samples in by_hour.values()
        )

    def _timing(self) -> Timing:
        placing = self.replay.placing
        return Timing(
            placing_cpu_s=placing.cpu_s,
            placing_wall_s=placing.wall_s,
            replay_wall_s=self._reached - self._started,
            decisions_per_cpu_s=self.requests / max(placing.cpu_s, 1e-9),
            decisions_per_wall_s=self.requests / max(placing.wall_s, 1e-9),
        )

    # explaining

    def refusal(self) -> Explained | None:
        """Of the first refusals of all stages the one where most things would have helped."""
        told = [each.first for each in self._refusals()]
        return max(told, key=lambda each: len(each.counterfactuals), default=None)

    def _decision(self) -> Explained | None:
        """The most demanding of the last requests that were placed, made once more, on trial, on the fleet as it is."""
        step = self._last_arrivals
        if step is None:
            return None
        placed = [request for request, row in zip(step.requests, step.decisions.rows.tolist(), strict=True) if row >= 0]
        request = max(placed, key=_wishes).with_changes(instance_uuids=())
        trial = self.engine.what_if()
        explanation, decision = trial.explain(request, top=LOOKED_AT), trial.place(request)
        zone = decision.selected.availability_zone if decision.placed and len(self.cloud.zones) > 1 else None
        return self._explained(step.at_s, request, explanation, zone)

    def _explained(self, at_s: int, request: Request, explanation: Explanation, zone: str | None) -> Explained:
        return Explained(
            at_s=at_s,
            hosts=len(self.cloud),
            asked=_asked(request),
            considered=explanation.considered,
            removed={stage: hosts for stage, hosts in explanation.removed.items() if hosts},
            chosen=_chosen(explanation, zone),
            sentence=explanation.refusal.sentence if explanation.refusal else None,
            counterfactuals=explanation.counterfactuals,
        )


def _asked(request: Request) -> str:
    """What a request asks for, in words."""
    flavor, zone = request.flavor, request.spec.availability_zone
    words = [f"{flavor.vcpus} vCPU, {flavor.memory_mb / 1024:g} GiB"]
    words += [f"{flavor.root_gb} GB disk"] if flavor.root_gb else []
    words += [_extra(*spec) for spec in flavor.extra_specs.items()]
    words += [f"in {zone}"] if zone else []
    words += ["apart from its anti-affinity group"] if request.server_group is not None else []
    return ", ".join(words)


def _extra(key: str, value: str) -> str:
    scope, _, name = key.partition(":")
    return f"trait {name}" if scope == "trait" else f"{name} {value}"


def _wishes(request: Request) -> tuple[int, int]:
    """How demanding a request is."""
    spec, flavor = request.spec, request.flavor
    wishes = 2 * (request.server_group is not None) + (spec.availability_zone is not None) + len(flavor.extra_specs)
    return wishes, flavor.vcpus


def _chosen(explanation: Explanation, zone: str | None) -> Chosen | None:
    if not explanation.top:
        return None
    best = explanation.top[0]
    second = next((host for host in explanation.top if host.weight < best.weight), None)
    points: Mapping[str, float] = {part.weigher: part.points for part in second.parts} if second else {}
    parts = tuple(
        Part(
            weigher=part.weigher,
            raw=part.raw,
            normalised=part.normalised,
            multiplier=part.multiplier,
            points=part.points,
            second=points.get(part.weigher, 0.0),
        )
        for part in best.parts
    )
    return Chosen(
        host=best.host,
        zone=zone,
        weight=best.weight,
        parts=parts,
        second=second.host if second else None,
        second_weight=second.weight if second else None,
        equals=sum(host.weight == best.weight for host in explanation.top) - 1,
    )
