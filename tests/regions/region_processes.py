"""Regions and their parent as processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from hostler.core.engine_commands import Asked, asked
from hostler.core.machine.region_queries import RegionLine
from hostler.placement.types.request import Flavor, Request, RequestSpec

from ..cluster.members import until
from ..daemon.processes import Daemon


def uuid_of(number: int) -> str:
    return str(UUID(int=number))


def wish(
    number: int, *, vcpus: int = 2, hints: Mapping[str, tuple[str, ...]] | None = None, project: str = "p"
) -> Asked:
    """A guest of some vCPUs and as many GiB."""
    flavor = Flavor(name=f"f{vcpus}", vcpus=vcpus, memory_mb=1_024 * vcpus)
    spec = RequestSpec(flavor=flavor, scheduler_hints=dict(hints or {}))
    return asked(Request(spec=spec, instance_uuids=(uuid_of(number),), project_id=project))


def hosts(region: str, count: int) -> dict[str, Any]:
    """Hosts of 16 vCPUs that are not oversubscribed, and 64 GiB."""
    figures = {
        "vcpus_total": 16,
        "cpu_allocation_ratio": 1.0,
        "total_usable_ram_mb": 65_536,
        "total_usable_disk_gb": 999,
    }
    return {"hosts": [{"host": f"{region}-{number}", **figures} for number in range(count)]}


PATIENT: Final = "[cascade]\nask_seconds = 25.0\n"
"""A parent that does not pass a region over because a machine is busy: for tests in which all regions answer."""


class Parent(Daemon):
    """A parent of regions; ``regions`` are the tables by name, ``rest`` what is before them."""

    def __init__(self, folder: Path, regions: Mapping[str, str], rest: str = "") -> None:
        folder.mkdir()
        tables = "\n".join(f"[regions.{name}]\n{table}" for name, table in regions.items())
        super().__init__(folder, config=f"{rest}\n{tables}")

    def lines(self) -> dict[str, RegionLine]:
        with self.client() as client:
            return {line.name: line for line in client.call("regions")}

    def settle(self, *, without: tuple[str, ...] = ()) -> None:
        """Wait until all regions have told a summary, but for some that do not answer."""
        until(
            lambda: all(
                not line.alive if name in without else line.alive and line.summary_age_ms is not None
                for name, line in self.lines().items()
            )
        )

    def region_of(self, number: int) -> str:
        with self.client() as client:
            return str(client.call("region_of", {"uuid": uuid_of(number)}).region)


def region(folder: Path, name: str, count: int) -> Daemon:
    """A region's daemon, which is to be entered, and have ``count`` hosts then (``fill``)."""
    (folder / name).mkdir()
    return Daemon(folder / name)


def fill(daemon: Daemon, name: str, count: int) -> None:
    """Give a region its hosts."""
    if count:
        with daemon.client() as client:
            client.call("add_hosts", hosts(name, count))


@contextmanager
def cascade(
    folder: Path, counts: Mapping[str, int], more: Mapping[str, str] | None = None, rest: str = PATIENT
) -> Iterator[tuple[Parent, dict[str, Daemon]]]:
    """A parent of regions with so many hosts each; the first is the cheapest. ``rest``: of its configuration; as it is,
    the parent waits long for answers."""
    with ExitStack() as stack:
        regions = {name: stack.enter_context(region(folder, name, count)) for name, count in counts.items()}
        for name, count in counts.items():
            fill(regions[name], name, count)
        tables = {
            name: f'addresses = ["{daemon.address}"]\nprice = {price}\n{(more or {}).get(name, "")}'
            for price, (name, daemon) in enumerate(regions.items(), 1)
        }
        parent = Parent(folder / "parent", tables, rest)
        stack.enter_context(parent)
        parent.settle()
        yield parent, regions


def guests_in(daemon: Daemon) -> list[str]:
    """Uuids of all guests of a region."""
    with daemon.client() as client:
        return sorted(line.uuid for line in client.call("instances"))
