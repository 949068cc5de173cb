"""``hostler host``, ``usage``, ``top`` and ``pool``: hosts, how full they are, and resource pools."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from ...placement.types.counting import counted
from ...placement.types.errors import InvalidValue
from ...placement.types.from_builtins import from_plain
from ...placement.types.host import Host
from ..engine_commands import AddHosts
from ..machine.host_detail import CellDetail
from ..machine.report_columns import columns_of, read_reports
from .remote import LOCAL, Remote
from .state_hosts import add_to, read_hosts

host = cyclopts.App(name="host", help="List, show, add, remove, enable and disable hosts.")
pool = cyclopts.App(name="pool", help="Resource pools: sets of hosts, granted to domains and projects.")
usage = cyclopts.App(name="usage", help="What is used: of everything, or by a domain or project.")
top = cyclopts.App(name="top", help="How full the hosts are, renewed every few seconds.")


@host.command(name="list")
def list_hosts(
    prefix: str = "",
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 100,
    after: Annotated[str | None, Parameter(help="continue after this node")] = None,
    remote: Remote = LOCAL,
) -> int:
    """Hosts, in load order, whose node names begin with PREFIX."""
    found = remote.ask("hosts", {"prefix": prefix, "limit": limit, "after": after})
    remote.table(found)
    remote.more(found, limit, "node")
    return 0


@host.command(name="show")
def show_host(name: str, *, remote: Remote = LOCAL) -> int:
    """One host in full."""
    found = remote.ask("host", {"name": name})
    if remote.as_json:
        remote.show(found)
        return 0
    fields = {field: getattr(found.line, field) for field in found.line.__struct_fields__}
    fields |= {"aggregates": found.aggregates, "traits": found.traits, "instances": found.instances}
    fields["disabled reason"] = found.service.disabled_reason
    if found.facts is not None:
        fields |= {field: getattr(found.facts, field) for field in found.facts.__struct_fields__}
    fields["service version"] = found.service.version
    remote.lines(["", name], [[field.replace("_", " "), _plain(value)] for field, value in fields.items()])
    stock = [
        [name, each.total, each.limit, each.used, each.limit - each.used] for name, each in found.inventory.items()
    ]
    remote.lines(["resource class", "total", "limit", "used", "free"], stock)
    if found.numa_cells:
        remote.lines(_CELL_HEAD, [_cell_row(cell) for cell in found.numa_cells])
    if found.pci_pools:
        pools = [[_tags(each.tags), each.numa_node, each.card, each.free, each.total] for each in found.pci_pools]
        remote.lines(["PCI devices", "NUMA cell", "card", "free", "total"], pools)
    return 0


_CELL_HEAD = ["NUMA cell", "shared CPUs", "vCPUs used", "dedicated CPUs", "pinned", "MiB", "MiB used", "pages used"]


def _plain(value: Any) -> Any:
    """A value of a table: mappings as NAME=VALUE, lists of lists with slashes."""
    if isinstance(value, Mapping):
        return _tags(value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return ["/".join(each) for each in value]
    return value


def _tags(tags: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(tags.items()))


def _cell_row(cell: CellDetail) -> list[Any]:
    pages = [f"{each.used + each.reserved} of {each.total} of {each.size_kb} KiB" for each in cell.pages]
    cpus = [cpu_ranges(each) for each in (cell.cpus, cell.pinnable, cell.pinned)]
    return [cell.id, cpus[0], cell.cpu_usage, cpus[1], cpus[2], cell.memory, cell.memory_usage, pages]


def cpu_ranges(cpus: Sequence[int]) -> str:
    """CPUs in ascending order as Linux writes them: 0-3,8."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


@host.command(name="add")
def add(
    file: Path | None = None,
    *,
    state: Annotated[
        Path | None, Parameter(help="in place of it, a fleet's file of `hostler import`: its hosts and their guests")
    ] = None,
    remote: Remote = LOCAL,
) -> int:
    """Add the hosts of a JSON file: a list of objects with the fields of hostler.Host."""
    if (file is None) == (state is None):
        raise InvalidValue("give either a JSON file of hosts or --state", field="file")
    if state is not None:
        return _add_state(state, remote)
    assert file is not None
    try:
        values = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(f"{file} cannot be read: {error}", field="file") from None
    hosts = from_plain(values, tuple[Host, ...], "hosts")
    return remote.do("add_hosts", AddHosts(hosts=hosts, negative_free=True), f"{counted(len(hosts), 'host')} added")


def _add_state(path: Path, remote: Remote) -> int:
    found = read_hosts(path)
    with remote.client() as client:
        added = add_to(client, found)
    if remote.as_json:
        remote.show([each for answer in added.answers for each in answer])
        return 0
    print(f"{counted(added.hosts, 'host')} with {counted(added.guests, 'guest')} added")
    if added.there:
        print(f"{counted(added.there, 'host')} of the file {'was' if added.there == 1 else 'were'} there already")
    return 0


@host.command(name="report")
def report(file: Path, *, remote: Remote = LOCAL) -> int:
    """Replace what is known of the hosts of a JSON file: a list of objects with the fields of hostler.Host, and beside
    them ``at`` (seconds since the epoch; now), ``includes``, ``service`` and ``inventories`` of hostler.HostReport."""
    try:
        values = msgspec.json.decode(file.read_bytes(), type=list[dict[str, Any]])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(f"{file} cannot be read: {error}", field="file") from None
    answer = remote.ask("report_hosts", columns_of(read_reports(values, time.time())))
    if remote.as_json:
        remote.show(answer)
        return 0
    print(f"{counted(answer.applied, 'host')} reported, {answer.added} of them new")
    for name in ("stale", "expired", "drift"):
        found = getattr(answer, name)
        if found:
            print(f"{name}: {', '.join(found)}")
    return 0


@host.command(name="drift")
def drift(*, remote: Remote = LOCAL) -> int:
    """Hosts that differ from what their guests take, or whose guests no longer fit."""

    def row(line: Any) -> list[Any]:
        beyond = ", ".join(f"{name} {amount}" for name, amount in line.beyond_capacity.items())
        unexplained = [line.unexplained_vcpus, line.unexplained_memory_mb, line.unexplained_disk_gb]
        return [line.node, *unexplained, beyond, line.lost_instances]

    head = ["node", "unexplained VCPU", "MiB", "GiB", "beyond capacity", "lost instances"]
    return remote.listed(remote.ask("drift"), head, row)


@host.command(name="remove")
def remove(
    name: str,
    *,
    force: Annotated[bool, Parameter(help="even one that Placement's clients keep", negative="")] = False,
    remote: Remote = LOCAL,
) -> int:
    """Remove a host without allocations."""
    return remote.do("remove_host", {"name": name, "force": force}, f"{name} removed")


@host.command(name="enable")
def enable(name: str, *, remote: Remote = LOCAL) -> int:
    """Let a host take new guests."""
    return remote.do("set_service", {"name": name, "disabled": False, "forced_down": False}, f"{name} enabled")


@host.command(name="disable")
def disable(name: str, *, reason: str = "", remote: Remote = LOCAL) -> int:
    """Disable a host: it takes no new guests."""
    values = {"name": name, "disabled": True, "disabled_reason": reason}
    return remote.do("set_service", values, f"{name} disabled")


@usage.default
def show_usage(scope: str | None = None, *, remote: Remote = LOCAL) -> int:
    """What is used of each resource class, of all hosts, or by SCOPE (domain:ID or project:ID) with its limits."""
    if scope is None:
        found = remote.ask("capacity")
        if remote.as_json:
            remote.show(found)
        else:
            remote.lines(*capacity_lines(found))
        return 0
    used = remote.ask("usage", {"scope": scope})
    if remote.as_json:
        remote.show(used)
        return 0
    names = sorted({*used.used, *used.limits})
    if not names:
        print(f"{scope} uses nothing and has no limits")
        return 0
    remote.lines(["", "used", "limit"], [[name, used.used.get(name, 0), used.limits.get(name)] for name in names])
    return 0


def capacity_lines(found: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Capacity as a table: its head and its lines."""
    rows = [
        [name, each.total, each.used, f"{each.used / each.total:.1%}", f"{each.fragmentation:.1%}"]
        for name, each in found.items()
    ]
    return ["resource class", "total", "used", "", "free on nearly full hosts"], rows


@top.default
def show_top(
    *,
    seconds: Annotated[float, Parameter(help="between two looks", validator=Number(gt=0))] = 2.0,
    times: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    remote: Remote = LOCAL,
) -> int:
    """Capacity, and the fullest hosts by memory. TIMES 0 repeats until Ctrl-C."""
    with remote.client() as client, suppress(KeyboardInterrupt):
        looks = 0
        while looks == 0 or looks != times:
            status, capacity = client.call("status"), client.call("capacity")
            hosts = sorted(client.call("hosts", {"limit": 10_000}), key=lambda each: _memory_used(each), reverse=True)
            looks += 1
            if remote.as_json:
                remote.show({"status": status, "capacity": capacity, "fullest": hosts[:10]})
            else:
                print(f"\n{counted(status.hosts, 'host')}, command {status.sequence}, {status.queued} wait")
                remote.lines(*capacity_lines(capacity))
                remote.table(hosts[:10])
            if looks != times:
                time.sleep(seconds)
    return 0


def _memory_used(line: Any) -> float:
    used: float = 1.0 - line.free_ram_mb / max(line.total_usable_ram_mb, 1)
    return used


@pool.command(name="list")
def list_pools(*, remote: Remote = LOCAL) -> int:
    """All pools."""
    return remote.table(remote.ask("pools"))


@pool.command(name="create")
def create_pool(name: str, *hosts: str, exclusive: bool = False, remote: Remote = LOCAL) -> int:
    """Make a pool of hosts. The hosts of an EXCLUSIVE pool take guests only of those it is granted to."""
    values = {"id": name, "hosts": hosts, "exclusive": exclusive}
    return remote.do("create_pool", values, f"pool {name} created")


@pool.command(name="delete")
def delete_pool(name: str, *, remote: Remote = LOCAL) -> int:
    """Delete a pool; its hosts stay."""
    return remote.do("delete_pool", {"id": name}, f"pool {name} deleted")


@pool.command(name="set")
def set_pool(name: str, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = (), remote: Remote = LOCAL) -> int:
    """Put hosts into a pool, and take hosts out of it."""
    return remote.do("set_pool_hosts", {"id": name, "add": add, "remove": remove}, f"pool {name} changed")


@pool.command(name="grant")
def grant_pool(name: str, scope: str, *, remote: Remote = LOCAL) -> int:
    """Grant a pool to domain:ID or project:ID."""
    return remote.do("grant_pool", {"id": name, "scope": scope}, f"pool {name} granted to {scope}")


@pool.command(name="ungrant")
def ungrant_pool(name: str, scope: str, *, remote: Remote = LOCAL) -> int:
    """Take a grant back."""
    return remote.do("ungrant_pool", {"id": name, "scope": scope}, f"pool {name} taken from {scope}")
