"""The command ``hostler simulate``: plans capacity from the command line, and writes reports."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..placement.types.errors import InvalidValue
from .experiments import Flag, Seed, print_json
from .progress import INTERRUPTED, Stop, progress
from .questions import planning
from .questions.tasks import Source, Task, outcomes, start, workload_of
from .report.findings import Report
from .report.report import check, write
from .report.terminal import counted, show, show_compared, show_forecast, show_headroom, show_size
from .run import checkpoint
from .run.fleet_plan import FleetPlan, Hardware, checked, read_fleet
from .run.headroom import Busiest
from .run.policies import ABOUT
from .run.run import Outcome
from .run.standing_state import with_state

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
        A fleet file (TOML), or a table (CSV) of named hosts. Without one: --hosts hosts of --vcpus and --memory-gb.
    state
        The fleet that stands already: a file of hostler import, whose hosts and guests are there from the beginning,
        beside the hosts of --fleet.
    standing_stay
        The guests of --state stay to the end. Without it, they leave as guests of the trace do where guests are made
        after it.
    trace
        The guests: a CSV file, gzipped or not, of any columns, of Azure's 2017 trace or of OpenB; the data folder of a
        Hostler service that has ended, or a copy of it; or devops.
    columns
        What the trace's columns are called: vcpus=cores,memory_gb=mem,...
    time_unit
        How times are written, where their looks do not tell: s, ms, us, ns, days (of Excel) or iso.
    tz
        Time zone of dates without an offset, such as Europe/Berlin; UTC otherwise.
    usage
        What guests use of their vCPUs: range results of Prometheus (JSON), by the ids of the trace. The columns
        cpu_usage_percent and cpu_usage_p95_percent tell the same.
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
    growth_error
        Standard deviation of the growth, as a part: each seed draws its own growth. For made guests.
    scale
        How many times as many guests. For made guests.
    policy
        A name that hostler simulate policies lists, a policy file (.toml), a weigher's name, or module:name of a
        Policy or a class of weighers.
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
    state: Path | None = None
    standing_stay: Flag = False
    columns: str = ""
    time_unit: str = ""
    tz: str = ""
    usage: str = ""
    flavors: str = ""
    hosts: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000_000))] = 100
    vcpus: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 64
    memory_gb: Annotated[float, Parameter(validator=Number(gt=0, lte=1_000_000))] = 256.0
    disk_gb: Annotated[int, Parameter(validator=Number(gte=0, lte=10_000_000))] = 10_000
    hours: NotNegative = 0.0
    make_hours: NotNegative = 0.0
    growth: float = 0.0
    growth_error: NotNegative = 0.0
    scale: float = 1.0
    policy: str = "nova"
    wait: NotNegative = 0.0
    refuse_impossible: Flag = False
    until: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
    report: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=True)] = ()
    json: Flag = False

    def plan(self, zones: Sequence[str]) -> FleetPlan:
        """The fleet; one that is given by its shape stands in ``zones``."""
        if self.state is not None:
            return with_state(read_fleet(self.fleet) if self.fleet is not None else None, self.state)
        if self.fleet is not None:
            return read_fleet(self.fleet)
        shape = {"vcpus": self.vcpus, "memory_gb": self.memory_gb, "disk_gb": self.disk_gb}
        kind = msgspec.convert({"name": SHAPE, "count": self.hosts, "zones": zones or ("zone-1",), **shape}, Hardware)
        return checked(FleetPlan(name=f"{self.vcpus} vCPU, {self.memory_gb:g} GiB hosts", hardware=(kind,)))

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
        workload = workload_of(source, seed)
        specs = workload.specs
        for note in workload.notes:
            print(f"note: {note}", file=sys.stderr)
        zones = sorted({spec.availability_zone for spec in specs if spec.availability_zone is not None})
        return Task(
            plan=self.plan(zones),
            source=source,
            policy=self.policy,
            seed=seed,
            wait_hours=self.wait,
            until_hours=self.until,
            refuse_impossible=self.refuse_impossible,
            standing_stay=self.standing_stay,
        )


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
    if resume is not None:
        checkpoint.check(resume)
    playing, digest = start(task), f"{task.digest} {spare}" if resume is not None else ""
    busiest = Busiest(playing, spare=spare)
    if resume is not None and resume.exists():
        checkpoint.resume(playing, busiest, digest, resume)
    with Stop() as stop, progress(playing.workload.name, playing.expected_steps - playing.played) as advance:

        def step() -> bool:
            busiest.look()
            advance()
            return not stop.requested

        outcome = playing.play(step)
    if resume is not None and outcome.interrupted:
        checkpoint.save(playing, busiest, digest, resume)
    made = _report(f"{outcome.policy} on {counted(outcome.hosts, 'host')}", inputs, task, [outcome], seed=str(seed))
    made.headroom = busiest.tried()

    def shown() -> None:
        show(outcome)
        if made.headroom is not None:
            show_headroom(made.headroom)

    _finish(made, inputs, {"outcome": outcome, "headroom": made.headroom}, shown)
    if resume is not None and not outcome.interrupted:
        resume.unlink(missing_ok=True)
    return INTERRUPTED if outcome.interrupted else 0


@app.command
def size(
    inputs: Inputs, *, hardware: str = "", target: NotNegative = 0.0, seed: Seed = 0, resume: Path | None = None
) -> int:
    """The fewest hosts of one kind that keep refusals within a target, beside what a perfect packing would need.

    Parameters
    ----------
    hardware
        Which kind of host of the fleet file; the first if it is not named.
    target
        Refusals allowed, in percent of the requests.
    seed
        The same seed gives the same answer.
    resume
        A file that outcomes are kept in: what it has already is not played again.
    """
    found: planning.Size | None = None
    task = inputs.task(seed)
    known = planning.sizes(task, hardware=hardware, target_percent=target, resume=resume, watch=progress)
    try:
        for each in known:
            found = each
    except KeyboardInterrupt:
        if found is None:
            raise
    assert found is not None
    played = [found.outcome] if found.outcome is not None else []
    made = _report("How many hosts", inputs, task, played, seed=str(seed), target=f"{target} %")
    made.size = answer = found
    _finish(made, inputs, answer, lambda: show_size(answer))
    return INTERRUPTED if answer.interrupted else 0


@app.command
def forecast(
    inputs: Inputs,
    *,
    days: Annotated[float, Parameter(validator=Number(gt=0))] = 365.0,
    target: NotNegative = 0.0,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 20,
    workers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    cluster: str = "",
    resume: Path | None = None,
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
    resume
        A file that outcomes are kept in: what it has already is not played again.
    """
    task = inputs.task(made_hours=days * 24)
    tasks = planning.forecast_tasks(task, range(seeds), target_percent=target)
    results, _ = _played(tasks, workers, cluster, resume)
    found = planning.foreseen(tasks, results)
    made = _report("When capacity runs out", inputs, task, results, seeds=f"0 to {seeds - 1}", target=f"{target} %")
    made.forecast = found
    _finish(made, inputs, found, lambda: show_forecast(found))
    return INTERRUPTED if found.interrupted else 0


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
    task = inputs.task()
    tasks = planning.grid(
        task,
        policies=_listed(policies) or [inputs.policy],
        cpu_ratios=[_number(each, "cpu_ratios", float) for each in _listed(cpu_ratios)],
        hosts=[_number(each, "sizes", int) for each in _listed(sizes)],
        seeds=range(seeds),
        hardware=hardware,
    )
    results, interrupted = _played(tasks, workers, cluster, resume)
    compared = planning.compare(tasks[: len(results)], results)
    told = {"policy": policies or inputs.policy, "seeds": f"0 to {seeds - 1}"}
    made = _report(f"{len(compared)} ways side by side", inputs, task, results, **told)
    made.compared, made.interrupted = compared, interrupted
    _finish(
        made,
        inputs,
        {"compared": compared, "interrupted": interrupted},
        lambda: show_compared(compared, len(results), len(tasks)),
    )
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


def _played(tasks: Sequence[Task], workers: int, cluster: str, resume: Path | None) -> tuple[list[Outcome], bool]:
    """What came of the first of the tasks, and True if Ctrl-C ended it before the last."""
    results: list[Outcome] = []
    with progress(counted(len(tasks), "run"), len(tasks)) as advance:
        try:
            for _, outcome in outcomes(tasks, workers=workers, cluster=cluster, resume=resume):
                results.append(outcome)
                advance()
        except KeyboardInterrupt:
            return results, True
    return results, False


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


def _report(title: str, inputs: Inputs, task: Task, results: Sequence[Outcome], **more: str) -> Report:
    source = task.source
    given = {"trace": source.trace, "policy": inputs.policy, "hours that requests may wait": f"{inputs.wait:g}"}
    if source.made_hours:
        given |= {"hours made": f"{source.made_hours:g}", "growth per year": f"{source.growth_per_year:g}"}
        given |= {"times as many guests": f"{source.scale:g}"}
    if source.flavors:
        given["flavors"] = source.flavors
    given |= more | {"Hostler": version("hostler")}
    command = shlex.join(["hostler", *sys.argv[1:]])
    return Report(title=title, command=command, inputs=given, plan=task.plan, outcomes=list(results))


def _finish(made: Report, inputs: Inputs, answer: Any, shown: Callable[[], None]) -> None:
    """Print the answer, then write the reports: all that can be, then the error of one that cannot."""
    if inputs.json:
        print_json(answer)
    else:
        shown()
    sys.stdout.flush()
    failed: list[InvalidValue] = []
    for path in inputs.report:
        try:
            write(made, path)
        except InvalidValue as error:
            failed.append(error)
            continue
        print(f"report: {path}", file=sys.stderr)
    if failed:
        raise failed[0]
