"""What all questions of ``hostler simulate`` are asked about, as options of the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..placement.types.errors import InvalidValue
from .experiments import Flag
from .questions.purchase import Objective, Wish
from .questions.tasks import Source, Task, workload_of
from .report.report import check
from .run.fleet_plan import FleetPlan, Hardware, checked, read_fleet
from .run.hardware_catalogue import read_hardware
from .run.standing_state import with_state

NotNegative = Annotated[float, Parameter(validator=Number(gte=0))]
Confidence = Annotated[float, Parameter(validator=Number(gt=0, lte=1))]
SHAPE: Final = "host"
"""Name of the hardware of a fleet that is given by its shape."""
SHAPE_OF_HOSTS: Final[Mapping[str, float]] = {"hosts": 100, "vcpus": 64, "memory_gb": 256.0, "disk_gb": 10_000}
"""Of such a fleet, where it is not named."""
POLICY: Final = "nova"
"""The policy of a question that names none."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What all questions are asked about.

    Parameters
    ----------
    fleet
        A fleet file (TOML), or a table (CSV) of named hosts. Without one: --hosts hosts of --vcpus and --memory-gb.
    catalogue
        Kinds of host that can be bought, while the hosts of --fleet stand beside them: a fleet file's [[hardware]], or
        a table (CSV) with their sizes, prices, watts, rack units and lead times.
    state
        The fleet that stands already: a file of hostler import, whose hosts and guests are there from the beginning,
        beside the hosts of --fleet.
    standing_stay
        The guests of --state stay to the end. Without it, they leave as guests of the trace do where guests are made
        after it.
    trace
        The guests: a table of any columns (CSV, Parquet, Excel, JSON lines or JSON, compressed or not), a trace that
        Azure, Google or Alibaba have published; the data folder of a Hostler service that has ended, or a copy of it;
        or devops.
    columns
        What the trace's columns are called: vcpus=cores,memory_gb=mem,...
    time_unit
        How times are written, where their looks do not tell: s, ms, us, ns, days (of Excel) or iso.
    tz
        Time zone of dates without an offset, such as Europe/Berlin; UTC otherwise.
    usage
        What guests use of their vCPUs: range results of Prometheus (JSON), by the ids of the trace. The columns
        cpu_usage_percent and cpu_usage_p95_percent tell the same.
    machine
        vCPUs x GiB of the machine that sizes are fractions of, in traces that Azure, Google and Alibaba have published;
        64x256 if it is not named.
    flavors
        A catalogue of instance types (CSV: AWS's, Azure's, OpenStack's or your own) that the trace's column flavor
        names one of.
    hosts
        Number of hosts, where there is no fleet file; 100 if it is not named.
    vcpus
        vCPUs of such a host; 64 if it is not named.
    memory_gb
        Memory of such a host in GiB; 256 if it is not named.
    disk_gb
        Disk of such a host in GiB; 10,000 if it is not named.
    hours
        Only the first hours of the trace.
    make_hours
        So many hours of guests like the trace's, from the seed.
    growth
        How much more guests come per year, as a part: 0.3 is 30 %. For made guests.
    growth_error
        Standard deviation of the growth, as a part: each seed draws its own growth. For made guests.
    scale
        How many times as many guests. For made guests.
    policy
        A name that hostler simulate policies lists, a policy file (.toml), a weigher's name, or module:name of a
        Policy or a class of weighers; nova if none is named.
    wait
        Hours that a request may wait for a host.
    until
        Hours into the run at which it ends; without it when the last guest with a known end has left and none waits,
        or at the horizon of guests that are made.
    refuse_impossible
        Refuse guests that no host could ever hold, rather than not to begin.
    report
        Write a report: .html, .json, .csv, .parquet, .png or .svg; several may be named.
    json
        Print the answer for programs.
    """

    trace: str
    fleet: Path | None = None
    catalogue: Path | None = None
    state: Path | None = None
    standing_stay: Flag = False
    columns: str = ""
    time_unit: str = ""
    tz: str = ""
    usage: str = ""
    machine: str = ""
    flavors: str = ""
    hosts: Annotated[int | None, Parameter(validator=Number(gte=1, lte=10_000_000))] = None
    vcpus: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1_000_000))] = None
    memory_gb: Annotated[float | None, Parameter(validator=Number(gt=0, lte=1_000_000))] = None
    disk_gb: Annotated[int | None, Parameter(validator=Number(gte=0, lte=10_000_000))] = None
    hours: NotNegative = 0.0
    make_hours: NotNegative = 0.0
    growth: float = 0.0
    growth_error: NotNegative = 0.0
    scale: float = 1.0
    policy: str | None = None
    wait: NotNegative = 0.0
    refuse_impossible: Flag = False
    until: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
    report: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = ()
    json: Flag = False

    def plan(self, zones: Sequence[str]) -> FleetPlan:
        """The fleet; one that is given by its shape stands in ``zones``. InvalidValue if it is given by its shape and
        by files."""
        given = {"hosts": self.hosts, "vcpus": self.vcpus, "memory_gb": self.memory_gb, "disk_gb": self.disk_gb}
        named = {name: value for name, value in given.items() if value is not None}
        if named and not (self.fleet is self.catalogue is self.state is None):
            option = next(iter(named))
            problem = f"--{option.replace('_', '-')} says nothing where --fleet, --catalogue or --state tells the hosts"
            raise InvalidValue(problem, field=option)
        plan = read_fleet(self.fleet) if self.fleet is not None else None
        if self.catalogue is not None:
            kinds, currency = read_hardware(self.catalogue)
            plan = plan or FleetPlan(name=self.catalogue.name.partition(".")[0])
            if currency and plan.currency and currency != plan.currency:
                problem = f"{self.catalogue}: prices in {currency}, those of the fleet in {plan.currency}"
                raise InvalidValue(problem, field="catalogue")
            currency = plan.currency or currency
            plan = checked(msgspec.structs.replace(plan, hardware=(*plan.hardware, *kinds), currency=currency))
        if self.state is not None:
            return with_state(plan, self.state)
        if plan is not None:
            return plan
        shape = {**SHAPE_OF_HOSTS, **named}
        count = shape.pop("hosts")
        kind = msgspec.convert({"name": SHAPE, "count": count, "zones": zones or ("zone-1",), **shape}, Hardware)
        return checked(FleetPlan(name=f"{kind.vcpus} vCPU, {kind.memory_gb:g} GiB hosts", hardware=(kind,)))

    def buyable(self) -> tuple[str, ...]:
        """The kinds of host of the catalogue, which alone are to be bought where none is named: those of the fleet
        stand there. Empty without a catalogue."""
        return tuple(kind.name for kind in read_hardware(self.catalogue)[0]) if self.catalogue is not None else ()

    def source(self) -> Source:
        """Where the guests come from. InvalidValue for columns that are not written as name=name."""
        pairs = [part.partition("=") for part in self.columns.split(",") if part.strip()]
        if not all(name.strip() and sign and given.strip() for name, sign, given in pairs):
            raise InvalidValue(f"{self.columns!r} is not a list of name=name", field="columns")
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) < len(names):
            raise InvalidValue(f"{self.columns!r} names a column twice", field="columns")
        return Source(
            trace=self.trace,
            columns={name.strip(): given.strip() for name, _, given in pairs},
            flavors=self.flavors,
            time_unit=self.time_unit,
            tz=self.tz,
            usage=self.usage,
            machine=self.machine,
            first_hours=self.hours,
            made_hours=self.make_hours,
            growth_per_year=self.growth,
            growth_error=self.growth_error,
            scale=self.scale,
        )

    def task(self, seed: int = 0, *, made_hours: float | None = None) -> Task:
        """The run that all of this makes, of ``made_hours`` if that is said. InvalidValue also for reports that could
        not be written at its end."""
        check(self.report)
        source = self.source()
        if made_hours is not None:
            source = msgspec.structs.replace(source, made_hours=made_hours)
        if self.state is not None:
            source = msgspec.structs.replace(source, standing=False)
        elif self.standing_stay:
            raise InvalidValue("no guests stand there without --state", field="standing_stay")
        workload = workload_of(source, seed)
        specs = workload.specs
        for note in workload.notes:
            print(f"note: {note}", file=sys.stderr)
        zones = sorted({spec.availability_zone for spec in specs if spec.availability_zone is not None})
        return Task(
            plan=self.plan(zones),
            source=source,
            policy=POLICY if self.policy is None else self.policy,
            seed=seed,
            wait_hours=self.wait,
            until_hours=self.until,
            refuse_impossible=self.refuse_impossible,
            standing_stay=self.standing_stay,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Buying:
    """What a mix of several kinds of host is to be.

    Parameters
    ----------
    objective
        The best mix of several kinds of host, rather than the fewest of one: of least cost, of fewest hosts, or of
        least power.
    reserve
        With --objective: any one host, rack or zone may fail when most is asked for, and its guests find another host.
    years
        With --objective: how long the cost is counted.
    energy_price
        With --objective: price of a kWh, for the cost.
    seeds
        With --objective and guests that are made: how many workloads, from seed on.
    confidence
        With --objective: in which part of the seeds the mix must hold.
    trials
        With --objective: mixes that are played at most.
    """

    objective: Objective | None = None
    reserve: Literal["host", "rack", "zone"] | None = None
    years: Annotated[float, Parameter(validator=Number(gt=0, lte=100))] = 5.0
    energy_price: NotNegative = 0.0
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 1
    confidence: Confidence = 0.9
    trials: Annotated[int, Parameter(validator=Number(gte=1))] = 60

    def wish(self, kinds: Sequence[str], target_percent: float, seed: int) -> Wish | None:
        """The mix; None without an objective. InvalidValue for options that are for one."""
        if self.objective is None:
            if self != ONE_KIND:
                raise InvalidValue("options of a mix are for --objective cost, hosts or power", field="objective")
            return None
        return Wish(
            objective=self.objective,
            kinds=tuple(kinds),
            years=self.years,
            energy_price=self.energy_price,
            target_percent=target_percent,
            reserve=self.reserve or "",
            seeds=tuple(range(seed, seed + self.seeds)),
            confidence=self.confidence,
            trials=self.trials,
        )


ONE_KIND: Final = Buying()
