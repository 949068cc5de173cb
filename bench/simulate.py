"""How fast simulations are: events a second by number of hosts, and the OpenB experiments.

    python -m hostler.bench.simulate [--trace FILE] [--sizes 1000,10000] [--openb FOLDER] [--json]

An event is an arrival or a departure. Without a trace the builds of four working weeks are played. ``--openb`` is a
folder with the OpenB node list and the default pod list.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

from hostler.sim import openb
from hostler.sim.fleet_plan import FleetPlan, Hardware
from hostler.sim.generator import DEVOPS_CLOUDS, devops
from hostler.sim.policies import policy_of
from hostler.sim.run import Run
from hostler.sim.trace import read_trace
from hostler.sim.workload import NEVER, Workload


def replay(workload: Workload, hosts: int, policy: str) -> dict[str, Any]:
    """One run, timed from an empty fleet that is there to the outcome."""
    kind = Hardware(name="host", count=hosts, vcpus=64, memory_gb=256, disk_gb=10_000, zones=DEVOPS_CLOUDS)
    run = Run(FleetPlan(hardware=(kind,)), workload, policy_of(policy))
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = run.play()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    departed = int((workload.departure_s < min(NEVER, workload.end_s)).sum()) - outcome.refused
    events = outcome.requests + max(0, departed)
    return {
        "hosts": hosts,
        "policy": policy,
        "events": events,
        "refused": outcome.refused,
        "wall_s": round(wall, 3),
        "cpu_s": round(cpu, 3),
        "events_per_cpu_s": round(events / cpu),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def gpu_cluster(folder: Path, policy: str) -> dict[str, Any]:
    """The default list under one policy, timed from the lists read to the result."""
    nodes = openb.read_nodes(folder / "openb_node_list_gpu_node.csv.gz")
    pods = openb.read_pods(folder / "openb_pod_list_default.csv.gz")
    order = openb.made_order(nodes, pods, seed=42)
    times = []
    for _ in range(3):
        started = time.process_time()
        result = openb.openb(nodes, pods, policy, order=order, seed=42)
        times.append(time.process_time() - started)
    return {"policy": policy, "nodes": len(nodes), "requests": result.offered_pods, "cpu_s": round(min(times), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of simulations.")
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--sizes", default="1000,3000,10000")
    parser.add_argument("--policy", default="nova")
    parser.add_argument("--openb", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    workload = devops(days=28, seed=1) if arguments.trace is None else read_trace(arguments.trace)
    runs = [replay(workload, int(hosts), arguments.policy) for hosts in arguments.sizes.split(",")]
    clusters = [] if arguments.openb is None else [gpu_cluster(arguments.openb, name) for name in openb.WEIGHERS]
    if arguments.json:
        print(json.dumps({"workload": workload.name, "runs": runs, "openb": clusters}))
        return
    print(f"{workload.name}: {len(workload):,} guests")
    for row in runs:
        print(
            f"{row['hosts']:>8,} hosts  {row['events']:>9,} events  {row['cpu_s']:7.2f} s CPU, {row['wall_s']:7.2f} s"
            f"  {row['events_per_cpu_s']:>8,} events/s of CPU  {row['refused']:>7,} refused  {row['peak_rss_mb']:,} MB"
        )
    for row in clusters:
        print(f"OpenB {row['policy']:<15} {row['requests']:,} requests on {row['nodes']:,} hosts  {row['cpu_s']:.2f} s")


if __name__ == "__main__":
    main()
