"""What reports of hosts cost: rounds of complete reports of a fleet with guests, in CPU seconds and as the share
of one core at one round a minute.

    python -m hostler.bench.reports

Each round changes the metrics of every host and includes all its guests; ``--encoded`` adds what the service does with
the command before it applies it: reading MessagePack, and making values of the columns.
"""

from __future__ import annotations

import time
from typing import Annotated, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from ..core.engine_commands import ReportHosts
from ..core.machine.report_columns import columns_of, reports_of
from ..placement.decide.engine import Engine
from ..placement.fleet.fleet import Fleet
from ..placement.load.bulk import add_hosts
from ..placement.load.reports import report_hosts
from ..placement.types.host import Host
from ..placement.types.host_report import HostReport
from ..placement.types.request import Flavor, Request, RequestSpec

BAR: Final = 0.02
"""Share of one core that reports of 10,000 hosts a minute may take."""
FLAVOR: Final = Flavor(name="small", vcpus=1, memory_mb=512, root_gb=1)
RAM_MB: Final = 262_144
DISK_GB: Final = 4_000


def host(number: int, guests: dict[str, dict[str, str]], metric: float) -> Host:
    """A host of 64 CPUs as its compute node reports it."""
    taken = len(guests)
    return Host(
        host=f"node-{number}",
        vcpus_total=64,
        vcpus_used=taken,
        total_usable_ram_mb=RAM_MB,
        free_ram_mb=RAM_MB - 512 * taken,
        total_usable_disk_gb=DISK_GB,
        free_disk_mb=(DISK_GB - taken) * 1024,
        num_instances=taken,
        metrics={"cpu.percent": metric},
        instances=guests,
    )


def filled(hosts: int, guests: int) -> tuple[Fleet, list[dict[str, dict[str, str]]]]:
    """A fleet with so many guests a host, and the guests by host."""
    fleet = Fleet(capacity=hosts)
    add_hosts(fleet, (host(number, {}, 0.0) for number in range(hosts)))
    spec = RequestSpec(flavor=FLAVOR)
    uuids = [f"00000000-0000-4000-8000-{number:012x}" for number in range(hosts * guests)]
    rows = Engine(fleet).place_many([Request(spec=spec, instance_uuids=(uuid,)) for uuid in uuids]).rows
    here: list[dict[str, dict[str, str]]] = [{} for _ in range(hosts)]
    for uuid, row in zip(uuids, rows.tolist(), strict=True):
        here[row][uuid] = {}
    return fleet, here


def main(
    *,
    hosts: int = 10_000,
    guests: Annotated[int, Parameter(help="on each host, on average")] = 20,
    rounds: int = 5,
    encoded: bool = False,
) -> int:
    """Exit code 1 if the least of the rounds takes more than the bar allows."""
    fleet, here = filled(hosts, guests)
    decoder = msgspec.msgpack.Decoder(ReportHosts)
    least = float("inf")
    for number in range(rounds):
        at = 60.0 * (number + 1)
        reports = [HostReport(host=host(i, held, float((7 * i + number) % 100)), at=at) for i, held in enumerate(here)]
        data = msgspec.msgpack.encode(columns_of(reports)) if encoded else b""
        start = time.process_time()
        answer = report_hosts(fleet, reports_of(decoder.decode(data), at) if encoded else reports)
        least = min(least, time.process_time() - start)
        assert answer.applied == hosts
        assert not answer.drift
    share, allowed = least / 60, BAR * hosts / 10_000
    print(f"{hosts} hosts, {hosts * guests} guests: {least:.3f} s a round, {share:.2%} of one core (bar {allowed:.2%})")
    if encoded:
        print(f"{len(data) / hosts:.0f} bytes a host in the journal")
    return int(share > allowed)


if __name__ == "__main__":
    cyclopts.run(main)
