"""The command ``hostler simulate``: plans capacity from the command line, and writes reports."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..placement.errors import InvalidValue
from . import checkpoint, planning
from .evacuation import Disruption
from .experiments import Flag, Seed, print_json
from .fleet_plan import FleetPlan, Hardware, checked, read_fleet
from .policies import ABOUT
from .progress import INTERRUPTED, Stop, progress
from .report import Report, write
from .run import Outcome, headroom
from .tasks import DEVOPS, Source, Task, outcomes, start

app = cyclopts.App(name="simulate", help="Plan capacity: play traces on fleets that don't exist yet.")
# Imported when called, so what each is for is said here.
app.command(
    "hostler.sim.experiments:openb",
    name="openb",
    help="Fill a cluster with guests that share GPUs, as in the OpenB experiments, and measure what is left in pieces.",
)
app.command(
    "hostler.sim.pack.command:pack",
    name="pack",
    help="Pack sets of items into as few equal bins as can be found, and say below which number there is no packing. "
    "Ctrl-C ends it with what is packed until then, the set at hand included; a second one at once.",
)

NotNegative = Annotated[float, Parameter(validator=Number(gte=0))]
SHAPE: Final = "host"
"""Name of the hardware of a fleet that is given by its shape."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What all questions are asked about.

    Parameters
    ----------
    fleet
        A fleet file (TOML). Without one: --hosts hosts of --vcpus and --memory-gb.
    trace
        The guests: a CSV file, gzipped or not, of any columns, of Azure's 2017 trace or of OpenB; the data folder of a
        Hostler service that has ended, or a copy of it; or devops.
    columns
        What the trace's columns are called: vcpus=cores,memory_gb=mem,...
    flavors
        A catalogue of instance types (CSV: AWS's, Azure's, OpenStack's or your own) that the trace's column flavor
        names one of.
    hosts
        Number of hosts, where there is no fleet file.
    vcpus
        vCPUs of a host.
    memory_gb
        Memory of a host in GiB.
    disk_gb
        Disk of a host in GiB.
    hours
        Only the first hours of the trace.
    make_hours
        So many hours of guests like the trace's, from the seed.
    growth
        How much more guests come per year, as a part: 0.3 is 30 %. For made guests.
    scale
        How many times as many guests. For made guests.
    policy
        A name that hostler simulate policies lists, a policy file (.toml), a weigher's name, or module:name of a
        Policy or a class of weighers.
    wait
        Hours that a request may wait for a host.
    report
        Write a report: .html, .json, .csv, .parquet, .png or .svg; several may be named.
    json
        Print the answer for programs.
    """

    trace: str
    fleet: Path | None = None
    columns: str = ""
    flavors: str = ""
    hosts: Annotated[int, Parameter(validator=Number(gte=1))] = 100
    vcpus: Annotated[int, Parameter(validator=Number(gte=1))] = 64
    memory_gb: Annotated[float, Parameter(validator=Number(gt=0))] = 256.0
    disk_gb: Annotated[int, Parameter(validator=Number(gte=0))] = 10_000
    hours: NotNegative = 0.0
    make_hours: NotNegative = 0.0
    growth: float = 0.0
    scale: float = 1.0
    policy: str = "nova"
    wait: NotNegative = 0.0
    report: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = ()
    json: Flag = False

    def plan(self) -> FleetPlan:
        """The fleet."""
        if self.fleet is not None:
            return read_fleet(self.fleet)
        shape = {"vcpus": self.vcpus, "memory_gb": self.memory_gb, "disk_gb": self.disk_gb}
        kind = msgspec.convert({"name": SHAPE, "count": self.hosts, "zones": self._zones(), **shape}, Hardware)
        return checked(FleetPlan(name=f"{self.vcpus} vCPU, {self.memory_gb:g} GiB hosts", hardware=(kind,)))

    def _zones(self) -> tuple[str, ...]:
        return ("cloud-1", "cloud-2", "cloud-3") if self.trace == DEVOPS else ("zone-1",)

    def source(self) -> Source:
        """Where the guests come from. InvalidValue for columns that are not written as name=name."""
        pairs = [part.partition("=") for part in self.columns.split(",") if part.strip()]
        if not all(name.strip() and sign and given.strip() for name, sign, given in pairs):
            raise InvalidValue(f"{self.columns!r} is not a list of name=name", field="columns")
        return Source(
            trace=self.trace,
            columns={name.strip(): given.strip() for name, _, given in pairs},
            flavors=self.flavors,
            first_hours=self.hours,
            made_hours=self.make_hours,
            growth_per_year=self.growth,
            scale=self.scale,
        )

    def task(self, seed: int = 0) -> Task:
        """The run that all of this makes."""
        return Task(plan=self.plan(), source=self.source(), policy=self.policy, seed=seed, wait_hours=self.wait)


@app.command
def run(
    inputs: Inputs,
    *,
    seed: Seed = 0,
    spare: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    resume: Path | None = None,
) -> int:
    """Play a trace on a fleet: how full it gets, what is refused and why, waits, costs, and what a failure would do.

    Parameters
    ----------
    seed
        The same seed gives the same answer.
    spare
        How many of the fullest hosts are lost together in the trial of failures.
    resume
        A file that the run is kept in when Ctrl-C ends it: it goes on from there, and the file is deleted at the end.
    """
    task = inputs.task(seed)
    playing, digest = start(task), task.digest if resume is not None else ""
    if resume is not None and resume.exists():
        checkpoint.resume(playing, digest, resume)
    with Stop() as stop, progress(playing.workload.name, len(playing.workload.steps) - playing.played) as advance:

        def step() -> bool:
            advance()
            return not stop.requested

        outcome = playing.play(step)
    if resume is not None and outcome.interrupted:
        checkpoint.save(playing, digest, resume)
    losses = headroom(playing, hosts=spare)
    made = _report(f"{outcome.policy} on {outcome.hosts:,} hosts", inputs, [outcome], seed=str(seed))
    made.losses = losses
    _finish(made, inputs, {"outcome": outcome, "losses": losses}, lambda: _show(outcome))
    if resume is not None and not outcome.interrupted:
        resume.unlink(missing_ok=True)
    return INTERRUPTED if outcome.interrupted else 0


@app.command
def size(inputs: Inputs, *, hardware: str = "", target: NotNegative = 0.0, seed: Seed = 0) -> int:
    """The fewest hosts of one kind that keep refusals within a target, beside what a perfect packing would need.

    Parameters
    ----------
    hardware
        Which kind of host of the fleet file; the first if it is not named.
    target
        Refusals allowed, in percent of the requests.
    seed
        The same seed gives the same answer.
    """
    found = planning.size(inputs.task(seed), hardware=hardware, target_percent=target)
    made = _report(f"How many hosts: {found.hosts:,}", inputs, [found.outcome], seed=str(seed), target=f"{target} %")
    made.size = found

    def show() -> None:
        print(f"{found.hosts:,} hosts of {found.hardware} refuse no more than {target:g} %; ", end="")
        print(f"a perfect packing needs at least {found.lower_bound:,}: this is {found.gap_percent:.1f} % above")
        for trial in found.trials:
            print(f"  {trial.hosts:>9,} hosts: {'holds' if trial.held else f'{trial.refused:,} refused and more'}")
        _show(found.outcome)

    _finish(made, inputs, found, show)
    return 0


@app.command
def forecast(
    inputs: Inputs,
    *,
    days: Annotated[float, Parameter(validator=Number(gt=0))] = 365.0,
    target: NotNegative = 0.0,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 5,
    workers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    cluster: str = "",
) -> int:
    """When capacity runs out under growth, over workloads made from several seeds, with a band.

    Parameters
    ----------
    days
        The horizon.
    target
        Refusals of a day that are no cause for concern, in percent.
    seeds
        How many workloads are made: seeds 0, 1 and so on.
    workers
        Processes; 0: one per core.
    cluster
        Address of a Dask scheduler, tcp://...
    """
    task = inputs.task()
    source = msgspec.structs.replace(task.source, made_hours=days * 24)
    task = msgspec.structs.replace(task, source=source)
    found = planning.forecast(task, range(seeds), target_percent=target, workers=workers, cluster=cluster)
    made = _report("When capacity runs out", inputs, found.outcomes, seeds=f"0 to {seeds - 1}", target=f"{target} %")
    made.inputs["hours made"] = f"{days * 24:g}"
    made.forecast = found

    def show() -> None:
        words = [f"day {day}" if day else f"beyond {days:g} days" for day in (found.early_day, found.late_day)]
        median = f"on day {found.median_day}" if found.median_day else f"not within {days:g} days"
        print(f"capacity runs out {median} (80 % of {seeds} seeds: {words[0]} to {words[1]})")

    _finish(made, inputs, found, show)
    return 0


@app.command
def compare(
    inputs: Inputs,
    *,
    policies: str = "nova,best-fit,worst-fit,first-fit",
    cpu_ratios: str = "",
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    workers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    cluster: str = "",
    resume: Path | None = None,
) -> int:
    """Policies and over-commit ratios side by side on the same guests, with confidence intervals over seeds.

    Parameters
    ----------
    policies
        Names with commas between them.
    cpu_ratios
        Over-commit of CPUs to try, with commas between them; as in the fleet file if there are none.
    seeds
        How many: 0, 1 and so on. More than one matters where guests are made (--make-hours).
    workers
        Processes; 0: one per core.
    cluster
        Address of a Dask scheduler, tcp://...
    resume
        A file that outcomes are kept in: what it has already is not played again.
    """
    return sweep(
        inputs,
        policies=policies,
        cpu_ratios=cpu_ratios,
        seeds=seeds,
        workers=workers,
        cluster=cluster,
        resume=resume,
    )


@app.command
def sweep(
    inputs: Inputs,
    *,
    policies: str = "",
    cpu_ratios: str = "",
    sizes: str = "",
    hardware: str = "",
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    workers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    cluster: str = "",
    resume: Path | None = None,
) -> int:
    """All combinations of policies, over-commit, sizes and seeds, on all cores or a cluster; the answer is the same.

    Parameters
    ----------
    policies
        Names with commas between them; --policy if there are none.
    cpu_ratios
        Over-commit of CPUs to try, with commas between them.
    sizes
        Numbers of hosts to try, with commas between them.
    hardware
        Which kind of host the sizes are of; the first if it is not named.
    seeds
        How many: 0, 1 and so on.
    workers
        Processes; 0: one per core.
    cluster
        Address of a Dask scheduler, tcp://...
    resume
        A file that outcomes are kept in: what it has already is not played again.
    """
    tasks = planning.grid(
        inputs.task(),
        policies=_listed(policies) or [inputs.policy],
        cpu_ratios=[_number(each, "cpu_ratios", float) for each in _listed(cpu_ratios)],
        hosts=[_number(each, "sizes", int) for each in _listed(sizes)],
        seeds=range(seeds),
        hardware=hardware,
    )
    results: list[Outcome] = []
    interrupted = False
    with progress(f"{len(tasks)} runs", len(tasks)) as advance:
        try:
            for _, outcome in outcomes(tasks, workers=workers, cluster=cluster, resume=resume):
                results.append(outcome)
                advance()
        except KeyboardInterrupt:
            interrupted = True
    compared = planning.compare(tasks[: len(results)], results)
    told = {"policy": policies or inputs.policy, "seeds": f"0 to {seeds - 1}"}
    made = _report(f"{len(compared)} ways side by side", inputs, results, **told)
    made.compared = compared

    def show() -> None:
        for each in compared:
            ratio = f", over-commit {each.cpu_ratio:g}" if each.cpu_ratio else ""
            band = each.refused_percent
            spread = "" if band.low is None else f" ({band.low:.2f} to {band.high:.2f})"
            peak = each.peak_vcpu_percent.mean
            print(f"{each.policy}{ratio}, {each.hosts:,} hosts: {band.mean:.2f} %{spread} refused, peak {peak:.1f} %")

    _finish(made, inputs, {"compared": compared, "interrupted": interrupted}, show)
    return INTERRUPTED if interrupted else 0


@app.command
def policies(*, json: Flag = False) -> int:
    """The policies that there are by name, and what each prefers.

    Parameters
    ----------
    json
        Print them for programs.
    """
    if json:
        print_json(ABOUT)
        return 0
    for name, about in ABOUT.items():
        print(f"{name:<21} {about}")
    print(
        "or a policy file (.toml), the name of an installed weigher, or module:name of a Policy or a class of weighers"
    )
    return 0


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str, field: str, kind: Callable[[str], Any]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < 2**31:
        raise InvalidValue(f"{text!r} is no positive number", field=field)
    return value


# what is shown


def _report(title: str, inputs: Inputs, results: Sequence[Outcome], **more: str) -> Report:
    given = {"fleet": str(inputs.fleet or f"{inputs.hosts} x {inputs.vcpus} vCPU, {inputs.memory_gb:g} GiB")}
    given |= {"trace": inputs.trace, "policy": inputs.policy, "hours that requests may wait": f"{inputs.wait:g}"}
    if inputs.make_hours or inputs.growth:
        given |= {"hours made": f"{inputs.make_hours:g}", "growth per year": f"{inputs.growth:g}"}
    command = shlex.join(["hostler", *sys.argv[1:]])
    return Report(title=title, command=command, inputs=given | more, outcomes=list(results))


def _finish(made: Report, inputs: Inputs, answer: Any, show: Callable[[], None]) -> None:
    """Write the reports, then print the answer."""
    for path in inputs.report:
        write(made, path)
    if inputs.json:
        print_json(answer)
    else:
        show()
    for path in inputs.report:
        print(f"report: {path}", file=sys.stderr)


WIDTH: Final = 72


def sparkline(values: Sequence[float], *, most: float = 0.0) -> str:
    """A line of blocks, from 0 up to ``most`` or the greatest value."""
    from .screen import LEVELS  # with rich's tables, which JSON does not need

    if not values:
        return ""
    size = max(1, -(-len(values) // WIDTH))
    means = [statistics.fmean(values[at : at + size]) for at in range(0, len(values), size)]
    top = most or max(means) or 1.0
    return "".join(LEVELS[min(len(LEVELS) - 1, int(value / top * len(LEVELS)))] for value in means)


def _show(outcome: Outcome) -> None:
    cut = " (interrupted)" if outcome.interrupted else ""
    print(f"{outcome.workload} on {outcome.hosts:,} hosts for {outcome.hours:,.1f} h under {outcome.policy}{cut}")
    for name, word in (("VCPU", "vCPUs"), ("MEMORY_MB", "memory")):
        curve = sparkline([sample.used_percent["all"][name] for sample in outcome.samples], most=100.0)
        print(f"{word:<8} {curve}  peak {outcome.peak_percent[name]:.1f} %, mean {outcome.mean_percent[name]:.1f} %")
    print(f"guests   {sparkline([float(sample.guests) for sample in outcome.samples])}  peak {outcome.peak_guests:,}")
    print(f"{outcome.requests:,} requests: {outcome.placed:,} placed, {outcome.refused:,} refused", end="")
    print(f" ({outcome.refused_percent:.2f} %), {outcome.waiting:,} waiting at the end")
    for stage, count in outcome.refusals.items():
        print(f"  refused by {stage}: {count:,}")
    if outcome.waited:
        print(f"{outcome.waited:,} waited, {outcome.mean_wait_hours:.2f} h on average", end="")
        print(f", {outcome.longest_wait_hours:.2f} h at most")
    if outcome.disruption is not None:
        _show_disruption(outcome.disruption)
    if outcome.cost:
        each = f", {outcome.cost_per_guest_hour:.4f} per guest-hour" if outcome.cost_per_guest_hour else ""
        print(f"cost {outcome.cost:,.2f}{each}; the refused in a public cloud: {outcome.burst_cost:,.2f}")


def _show_disruption(told: Disruption) -> None:
    print(f"outages: {told.down_host_hours:,.1f} host-hours down, {told.migrated:,} guests moved before maintenance")
    print(
        f"  {told.stopped:,} guests stopped with their hosts: {told.evacuated:,} evacuated, {told.lost:,} lost", end=""
    )
    print(f", {told.waiting:,} waiting; {told.downtime_hours:,.2f} h of downtime", end="")
    print(f", {told.longest_downtime_hours:.2f} h at most" if told.longest_downtime_hours else "")
    for why, count in told.lost_for.items():
        print(f"  lost for {why}: {count:,}")
