"""How fast simulations are: events a second by number of hosts, and the OpenB experiments.

    python -m hostler.bench.simulate [--trace FILE] [--sizes 1000,10000] [--policy NAME,NAME|all] [--year]
        [--openb FOLDER]

An event is an arrival or a departure. Without a trace the builds of four working weeks are played. ``--policy all``
plays them under every policy that has a name, but those that make a difference for GPUs only. ``--year`` plays a year
made after the trace instead, of ``--events`` events, and tells how large the process is at each tenth of it.
``--openb`` is a folder with the OpenB node list and the default pod list.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from hostler.sim.questions.tasks import Source, Task, start
from hostler.sim.run.fleet_plan import FleetPlan, Hardware, read_fleet
from hostler.sim.run.policies import NAMES, ON_GPUS, policy_of
from hostler.sim.run.run import Run
from hostler.sim.trace import openb
from hostler.sim.trace.files import read_trace
from hostler.sim.trace.generator import DEVOPS_CLOUDS, Made, devops
from hostler.sim.trace.workload import Guests, Workload


def fleet(hosts: int) -> FleetPlan:
    """So many hosts of 64 vCPUs and 256 GiB, over-commit none."""
    kind = Hardware(name="host", count=hosts, vcpus=64, memory_gb=256, disk_gb=10_000, zones=DEVOPS_CLOUDS)
    return FleetPlan(hardware=(kind,))


def replay(
    workload: Guests, hosts: int, policy: str, advance: Callable[[Run], bool] = lambda run: True
) -> dict[str, Any]:
    """One run, timed from an empty fleet that is there to the outcome."""
    run = Run(fleet(hosts), workload, policy_of(policy))
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = run.play(lambda: advance(run))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    events = outcome.requests + outcome.placed - run.alive
    return {
        "hosts": hosts,
        "policy": policy,
        "events": events,
        "refused": outcome.refused,
        "peak_guests": outcome.peak_guests,
        "peak_vcpu_percent": outcome.peak_percent["VCPU"],
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "events_per_cpu_s": round(events / cpu),
        "cpu_us_per_event": round(1e6 * cpu / events, 2),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "outcome_bytes": len(msgspec.json.encode(outcome)),
    }


class Watch:
    """Notes at each tenth of a run how large the process is."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.points = steps, 0, list[dict[str, Any]]()

    def __call__(self, run: Run) -> bool:
        before, self.done = self.done, run.played
        if self.done * 10 // self.steps > before * 10 // self.steps:
            point = {
                "percent": self.done * 100 // self.steps,
                "events": run.offered + run.placed - run.alive,
                "guests": run.alive,
                "rss_mb": _resident_mb(),
                "cpu_s": round(time.process_time(), 1),
            }
            self.points.append(point)
            words = (
                "{percent:>4} %  {events:>11,} events  {guests:>8,} guests there  {rss_mb:>6,} MB  {cpu_s:>7,} s CPU"
            )
            print(words.format(**point), file=sys.stderr, flush=True)
        return True


def _resident_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def year(trace: Workload, hosts: int, policy: str, events: int) -> dict[str, Any]:
    """A year of about ``events`` arrivals and departures after a trace, made day by day."""
    plain = Made(trace, hours=365 * 24, seed=1)
    made = Made(trace, hours=365 * 24, seed=1, scale=events / 2 / plain.expected)
    watch = Watch(len(made.steps))
    return replay(made, hosts, policy, watch) | {"points": watch.points}


NODES: Final = "openb_node_list_gpu_node.csv.gz"
PODS: Final = "openb_pod_list_default.csv.gz"
THROUGH: Final = ("nova", "fgd", "gpu-packing", "best-fit", "gpu-clustering")
"""Policies under which the list goes through ``run``."""


def gpu_cluster(folder: Path, policy: str) -> dict[str, Any]:
    """The default list under one policy, the least of three: CPU of the experiment itself, with the lists read before
    it, and of a whole process from its start to its end, imports included."""
    experiments, readings = [], []
    for _ in range(3):
        started = time.process_time()
        nodes, pods = openb.read_nodes(folder / NODES), openb.read_pods(folder / PODS)
        order = openb.made_order(nodes, pods, seed=42)
        read = time.process_time()
        result = openb.openb(nodes, pods, policy, order=order, seed=42)
        experiments.append(time.process_time() - read)
        readings.append(read - started)
    whole = [_process(folder, policy) for _ in range(3)]
    return {
        "policy": policy,
        "nodes": len(nodes),
        "requests": result.offered_pods,
        "cpu_s": round(min(experiments), 3),
        "with_reading_cpu_s": round(min(experiments) + min(readings), 3),
        "process_cpu_s": round(min(cpu for cpu, _ in whole), 3),
        "process_wall_s": round(min(wall for _, wall in whole), 3),
    }


def gpu_run(folder: Path, policy: str) -> dict[str, Any]:
    """The default list through ``hostler simulate run``, the least of three: ten guests come in each step, and stay.
    In turn with it the experiment under the policy of that name, if there is one."""
    nodes, pods = openb.read_nodes(folder / NODES), openb.read_pods(folder / PODS)
    order = openb.made_order(nodes, pods, seed=42)
    named = {pod.name: pod for pod in pods}
    with tempfile.TemporaryDirectory() as place:
        hosts, guests = Path(place, "hosts.csv"), Path(place, "guests.csv")
        with hosts.open("w") as file:
            file.write("name,vcpus,memory_gb,gpus,gpu_model\n")
            for node in nodes:
                sizes = f"{node.cpu_milli // 1000},{node.memory_mib / 1024},{node.gpus},{node.model}"
                file.write(f"{node.name},{sizes}\n")
        with guests.open("w") as file:
            file.write("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n")
            for number, name in enumerate(order.pods):
                pod, last = named[name], 30 * len(order.pods) + 30_000
                sizes = f"{pod.cpu_milli},{pod.memory_mib},{pod.gpus},{pod.gpu_milli},{pod.models}"
                file.write(f"g{number},{sizes},{30 * number},{last}\n")
        source = Source(trace=str(guests))
        task = Task(plan=read_fleet(hosts), source=source, policy=policy, refuse_impossible=True)
        times, experiments = [], []
        for _ in range(3):
            run, began = start(task), time.process_time()
            outcome = run.play()
            times.append(time.process_time() - began)
            if policy in openb.WEIGHERS:
                began = time.process_time()
                openb.openb(nodes, pods, policy, order=order, seed=42)
                experiments.append(time.process_time() - began)
    return {
        "policy": policy,
        "hosts": outcome.hosts,
        "requests": outcome.requests,
        "placed": outcome.placed,
        "cpu_s": round(min(times), 3),
        "cpu_us_per_guest": round(1e6 * min(times) / outcome.requests, 1),
        "experiment_cpu_us_per_guest": round(1e6 * min(experiments) / outcome.requests, 1) if experiments else None,
    }


def _process(folder: Path, policy: str) -> tuple[float, float]:
    """CPU and wall time of ``hostler simulate openb``."""
    lists = ["--nodes", str(folder / NODES), "--pods", str(folder / PODS), "--policy", policy, "--json"]
    start = "import sys; from hostler.core.cli import main; sys.exit(main())"
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", start, "simulate", "openb", *lists], capture_output=True, check=True)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of simulations.")
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--sizes", default="1000,3000,10000")
    parser.add_argument("--policy", default="nova")
    parser.add_argument("--year", action="store_true")
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--openb", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    workload = devops(days=28, seed=1) if arguments.trace is None else read_trace(arguments.trace)
    sizes = [int(hosts) for hosts in arguments.sizes.split(",")]
    every = [name for name in NAMES if name not in ON_GPUS]
    policies = every if arguments.policy == "all" else arguments.policy.split(",")
    if arguments.year:
        runs = [year(workload, hosts, name, arguments.events) for name in policies for hosts in sizes]
    else:
        runs = [replay(workload, hosts, name) for name in policies for hosts in sizes]
    clusters = [] if arguments.openb is None else [gpu_cluster(arguments.openb, name) for name in openb.WEIGHERS]
    through = [] if arguments.openb is None else [gpu_run(arguments.openb, name) for name in THROUGH]
    if arguments.json:
        print(json.dumps({"workload": workload.name, "runs": runs, "openb": clusters, "run": through}))
        return
    print(f"{workload.name}: {len(workload):,} guests{', of which a year is made' if arguments.year else ''}")
    for row in runs:
        print(
            f"{row['policy']:<20} {row['hosts']:>8,} hosts  {row['events']:>9,} events  {row['cpu_s']:7.2f} s CPU,"
            f" {row['wall_s']:7.2f} s  {row['events_per_cpu_s']:>8,} events/s of CPU,"
            f" {row['cpu_us_per_event']:6.2f} us each  {row['refused']:>7,} refused  {row['peak_rss_mb']:,} MB"
        )
    for row in clusters:
        print(
            f"OpenB {row['policy']:<14} {row['requests']:,} on {row['nodes']:,} hosts: {row['cpu_s']:.2f} s CPU,"
            f" {row['with_reading_cpu_s']:.2f} s with the lists read, {row['process_cpu_s']:.2f} s the whole process"
            f" ({row['process_wall_s']:.2f} s wall)"
        )
    for row in through:
        beside = row["experiment_cpu_us_per_guest"]
        print(
            f"OpenB through run, {row['policy']:<14} {row['requests']:,} on {row['hosts']:,} hosts:"
            f" {row['cpu_s']:.2f} s CPU, {row['cpu_us_per_guest']:.0f} us a guest, {row['placed']:,} placed"
            + (f"; the experiment {beside:.0f} us" if beside else "")
        )


if __name__ == "__main__":
    main()
