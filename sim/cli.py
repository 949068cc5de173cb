"""The command ``hostler simulate``: plans capacity from the command line, and writes reports."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ..placement.types.counting import counted
from ..placement.types.errors import InvalidValue
from .experiments import Flag, Seed, print_json
from .inputs import ONE_KIND, Buying, Confidence, Inputs, NotNegative
from .progress import INTERRUPTED, Reached, Stop, progress
from .questions import planning
from .questions.orders import Ordering, check_ordering
from .questions.purchase import Wish, purchases
from .questions.tasks import Task, outcomes, start
from .report.cost_rows import check_rows, write_rows
from .report.findings import Report
from .report.report import write
from .report.terminal import show, show_compared, show_forecast, show_headroom, show_purchase, show_size
from .run import checkpoint
from .run.charges import Charges
from .run.fleet_plan import FleetPlan
from .run.headroom import Busiest
from .run.policies import ABOUT
from .run.run import Outcome

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


@app.command
def run(
    inputs: Inputs,
    *,
    seed: Seed = 0,
    spare: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    resume: Path | None = None,
    focus: Path | None = None,
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
    focus
        Write usage and cost of each guest and day to this file, .csv or .parquet, with the names of FOCUS.
    """
    if focus is not None:
        check_rows(focus)
        if resume is not None:
            raise InvalidValue("usage and cost of a run that is resumed are not known", field="focus")
    task = inputs.task(seed)
    if resume is not None:
        checkpoint.check(resume)
    playing, digest = start(task), f"{task.digest} {spare}" if resume is not None else ""
    busiest = Busiest(playing, spare=spare)
    charges = Charges(playing) if focus is not None else None
    if resume is not None and resume.exists():
        checkpoint.resume(playing, busiest, digest, resume)
    with Stop() as stop, progress(playing.workload.name, playing.expected_steps - playing.played) as advance:
        reached = Reached(advance, playing.played)

        def step() -> bool:
            busiest.look()
            reached(playing.played)
            return not stop.requested

        outcome = playing.play(step)
    if charges is not None and focus is not None:
        write_rows(charges.rows(), focus)
        print(f"usage and cost: {focus}", file=sys.stderr)
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
    inputs: Inputs,
    *,
    hardware: str = "",
    target: NotNegative = 0.0,
    buying: Buying = ONE_KIND,
    seed: Seed = 0,
    resume: Path | None = None,
) -> int:
    """The fewest hosts of one kind that keep refusals within a target, beside what a perfect packing would need. With
    --objective the best mix of several kinds.

    Parameters
    ----------
    hardware
        Which kind of host of the fleet file or the catalogue; the first, of the catalogue if there is one, if it is
        not named. With --objective several, with commas between them; all of the catalogue, or of the fleet file
        without one, if none is named.
    target
        Guests that need not be served, in percent of the requests.
    seed
        The same seed gives the same answer.
    resume
        A file that outcomes are kept in: what it has already is not played again. Without --objective.
    """
    buyable = _listed(hardware) or inputs.buyable()
    wish = buying.wish(buyable, target, seed)
    if wish is not None:
        if resume is not None:
            raise InvalidValue("a search for a mix cannot be resumed", field="resume")
        return _buy(inputs, wish)
    found: planning.Size | None = None
    task = inputs.task(seed)
    kind = hardware or next(iter(buyable), "")
    known = planning.sizes(task, hardware=kind, target_percent=target, resume=resume, watch=progress)
    try:
        for each in known:
            found = each
    except KeyboardInterrupt:
        if found is None:
            raise
    assert found is not None
    played = [found.outcome] if found.outcome is not None else []
    made = _report("How many hosts", inputs, task, played, seed=str(seed), target=f"{target} %")
    if inputs.report and not found.interrupted:
        found = planning.with_curve(task, found, watch=progress)
    made.size = answer = found
    _finish(made, inputs, answer, lambda: show_size(answer))
    return INTERRUPTED if answer.interrupted else 0


def _buy(inputs: Inputs, wish: Wish) -> int:
    """The best mix of several kinds of host."""
    task, found = inputs.task(wish.seeds[0]), None
    try:
        for each in purchases(task, wish, progress):
            found = each
    except KeyboardInterrupt:
        if found is None:
            raise
    assert found is not None
    answer, target = found, f"{wish.target_percent:g} %"
    played = [answer.outcome] if answer.outcome is not None else []
    made = _report("Which hosts", inputs, task, played, objective=wish.objective, target=target)
    made.purchase = answer
    _finish(made, inputs, answer, lambda: show_purchase(answer))
    return INTERRUPTED if answer.interrupted else 0


@app.command
def forecast(
    inputs: Inputs,
    *,
    days: Annotated[float, Parameter(validator=Number(gt=0))] = 365.0,
    target: NotNegative = 0.0,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 20,
    order: str = "",
    order_days: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    confidence: Confidence = 0.9,
    workers: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    cluster: str = "",
    resume: Path | None = None,
) -> int:
    """When capacity runs out under growth, over workloads made from several seeds, with a band; and which hosts to
    order by when so that it does not.

    Parameters
    ----------
    days
        The horizon.
    target
        Refusals of a day that are no cause for concern, in percent.
    seeds
        How many workloads are made: seeds 0, 1 and so on.
    order
        Kinds of host that can be ordered, with commas between them: the cheapest of those that come in time is taken.
        Those with a price of the catalogue, or of the fleet file without one, if none is named; or the one with a
        lead time where none has a price.
    order_days
        How many days an order is to last; 0: to the horizon.
    confidence
        In which part of the seeds capacity is to last with the orders.
    workers
        Processes; 0: one per core.
    cluster
        Address of a Dask scheduler, tcp://...
    resume
        A file that outcomes are kept in: what it has already is not played again.
    """
    if inputs.make_hours:
        raise InvalidValue("a forecast makes guests for its horizon", field="make_hours", hint="name it: --days")
    task = inputs.task(made_hours=days * 24)
    tasks = planning.forecast_tasks(task, range(seeds), target_percent=target)
    how = Ordering(kinds=_orderable(order, task.plan, inputs), every_days=order_days, confidence=confidence)
    check_ordering(task.plan, how)
    results, _ = _played(tasks, workers, cluster, resume)
    found = planning.foreseen(tasks, results)
    if not found.interrupted:
        try:
            found = planning.with_orders(
                found,
                tasks,
                how,
                lambda each: _played(each, workers, cluster, None, strict=True, label=_tried(each))[0],
            )
        except KeyboardInterrupt:
            found = msgspec.structs.replace(found, interrupted=True)
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
        Which kind of host the sizes are of; the first, of the catalogue if there is one, if it is not named.
    seeds
        How many: 0, 1 and so on.
    workers
        Processes; 0: one per core.
    cluster
        Address of a Dask scheduler, tcp://...
    resume
        A file that outcomes are kept in: what it has already is not played again.
    """
    if policies and inputs.policy is not None:
        raise InvalidValue("--policy says nothing beside --policies", field="policy")
    task = inputs.task()
    tasks = planning.grid(
        task,
        policies=_listed(policies) or [task.policy],
        cpu_ratios=[_number(each, "cpu_ratios", float) for each in _listed(cpu_ratios)],
        hosts=[_number(each, "sizes", int) for each in _listed(sizes)],
        seeds=range(seeds),
        hardware=hardware or next(iter(inputs.buyable()), ""),
    )
    results, interrupted = _played(tasks, workers, cluster, resume)
    compared = planning.compare(tasks[: len(results)], results)
    told = {"policy": policies or task.policy, "seeds": f"0 to {seeds - 1}"}
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


def _played(
    tasks: Sequence[Task], workers: int, cluster: str, resume: Path | None, *, strict: bool = False, label: str = ""
) -> tuple[list[Outcome], bool]:
    """What came of the first of the tasks, and True if Ctrl-C ended it before the last; ``strict``: that ends all.
    ``label``: what is played, in words."""
    results: list[Outcome] = []
    with progress(f"{label}{counted(len(tasks), 'run')}", len(tasks)) as advance:
        try:
            for _, outcome in outcomes(tasks, workers=workers, cluster=cluster, resume=resume):
                results.append(outcome)
                advance()
        except KeyboardInterrupt:
            if strict:
                raise
            return results, True
    return results, False


def _tried(tasks: Sequence[Task]) -> str:
    """The order that tasks try, in words."""
    order = tasks[0].plan.growth[-1]
    return f"{order.add:,} more {order.hardware} from day {order.at_hours / 24 + 1:,.0f}: "


def _orderable(order: str, plan: FleetPlan, inputs: Inputs) -> tuple[str, ...]:
    """The kinds that can be ordered: those that are named, or those of the catalogue with a price, or with a lead time
    where none has a price; empty for those of the fleet file."""
    if order or inputs.catalogue is None:
        return tuple(_listed(order))
    buyable = inputs.buyable()
    kinds = [kind for kind in plan.hardware if kind.name in buyable]
    priced = tuple(kind.name for kind in kinds if kind.price or kind.price_per_hour)
    return priced or tuple(kind.name for kind in kinds if kind.lead_time_days) or buyable


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
    given = {"trace": source.trace, "policy": task.policy, "hours that requests may wait": f"{inputs.wait:g}"}
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
