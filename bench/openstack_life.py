"""The life of a small real OpenStack in which Hostler is nova-scheduler and Placement: guests are created, moved,
resized, shelved, rebuilt, evacuated and deleted, computes and the service are killed, and after each part what Nova's
databases, the Placement API and the fleet say of each guest is compared.

    python -m hostler.bench.openstack_life [--computes 6] [--cells 1] [--guests 0] [--only PART] [--stock] [--json]

Needs RabbitMQ and PostgreSQL; Nova comes from PyPI into an environment of its own, made the first time. Takes some
minutes.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import cyclopts
import msgspec
from cyclopts import Parameter

from ..core.rpc.client import BlockingClient
from .engine import main
from .environments import ServiceUnavailable, kept
from .openstack_cloud import OpenStack

FLAVORS: Final = {"1": (1, 512, 1), "2": (2, 1024, 1), "3": (64, 65_536, 1), "4": (1, 64, 1)}
"""Id -> vCPUs, memory in MiB, disk in GiB; 3 fits nowhere, and of 4 some 110 fit on a host."""
CROWD_REQUEST: Final = 10
"""Guests that are asked for at a time where there are many."""
IMAGE: Final = "70a599e0-31e7-49b7-b260-868f441e862b"
OTHER_IMAGE: Final = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
NOTHING_HEALED: Final = 4
"""What nova-manage says if every guest had its allocations."""
ORPHAN: Final = re.compile(r"consumer UUID (\S+) on Resource Provider (\S+) can be deleted")
"""What it says of an allocation without a guest."""
FEW_HOSTS: Final = 6
"""Of a zone for groups that are to have all hosts of it, where there are many."""
Part = Literal["life", "crowd", "killed"]
"""What each host function of Nova does once; many guests; many guests while the service is killed."""
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SETTLE_SECONDS: Final = 60.0
"""How long Nova may take to bring Placement to what its databases say."""

app = cyclopts.App(
    name="openstack_life",
    help="The life of a real OpenStack with Hostler as nova-scheduler and Placement.",
    result_action="return_value",
)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and whether it came out as Nova's documentation says."""

    name: str
    ok: bool
    detail: str


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Guests that were asked for at once. ``states``: by uuid; ``seconds``: from the request that each was in until it
    ran; ``hosts``: where they are; ``servers``, ``database``: CPU seconds, meanwhile, of what decides and of the
    database of all of Nova."""

    states: dict[str, str]
    seconds: list[float]
    hosts: list[str]
    servers: float
    database: float


class Life:
    """One life. ``steps``: what was done so far."""

    def __init__(
        self, cloud: OpenStack, say: Callable[[Step], None], *, guests: int = 0, only: Collection[Part] = ()
    ) -> None:
        """``guests``: those of a crowd. ``only``: the parts, all if empty."""
        self.cloud, self.steps, self._say, self._guests = cloud, list[Step](), say, guests
        self._only = {"crowd"} if cloud.stock else set(only or get_args(Part))
        self._left: dict[str, str] = {}
        """Evacuated server -> the dead host, which is charged until its nova-compute is back."""
        self._flavors = {id: dict(zip(("VCPU", "MEMORY_MB", "DISK_GB"), size, strict=True)) for id, size in _sizes()}

    def parts(self) -> list[Callable[[], None]]:
        """What is done, in this order; with Nova's own scheduler only the crowd."""
        parts = [self.begin]
        if "life" in self._only:
            parts += [self.create, self.move, self.shelve_and_rebuild, self.lose_a_compute, self.end]
        if "crowd" in self._only and self._guests:
            parts.append(self.crowd)
        if "killed" in self._only and self._guests:
            parts.append(self.interrupted_crowd)
        return parts

    def run(self) -> None:
        """The parts, one after the other, each with a comparison."""
        for part in self.parts():
            try:
                part()
            except ServiceUnavailable as error:
                self._step(part.__name__, ok=False, detail=error)
            self.compare(part.__name__)

    def _step(self, name: str, ok: bool, detail: object = "") -> None:
        self.steps.append(Step(name=name, ok=ok, detail=str(detail)))
        self._say(self.steps[-1])

    # Nova

    def _server(self, flavor: str, count: int = 1, *, zone: str = "", group: str = "") -> list[str]:
        server = {"name": "s", "flavorRef": flavor, "imageRef": IMAGE, "networks": "none"}
        body: dict[str, Any] = {"server": server | ({"availability_zone": zone} if zone else {})}
        if group:
            body["os:scheduler_hints"] = {"group": group}
        if count == 1:
            return [self.cloud.call("POST", "servers", body)["server"]["id"]]
        body["server"] |= {"min_count": count, "max_count": count, "return_reservation_id": True}
        reservation = self.cloud.call("POST", "servers", body)["reservation_id"]
        found: list[str] = []

        def are_there() -> bool:
            path = f"servers?all_tenants=1&reservation_id={reservation}"
            found[:] = [each["id"] for each in self.cloud.call("GET", path)["servers"]]
            return len(found) == count

        self.cloud.until(are_there, "the servers of a reservation")
        return found

    def _settled(self, servers: Iterable[str], seconds: float = 120.0) -> dict[str, str]:
        """Wait until nothing is done with servers; their states, GONE for those that are no more."""
        wanted, states = list(servers), dict[str, str]()

        def all_settled() -> bool:
            known = self.cloud.servers()
            states.clear()
            for each in wanted:
                server = known.get(each)
                if server is not None and (server["OS-EXT-STS:task_state"] or server["status"] == "BUILD"):
                    return False
                states[each] = "GONE" if server is None else server["status"]
            return True

        self.cloud.until(all_settled, "servers in a settled state", seconds)
        return states

    def _make(
        self, name: str, wanted: str, flavor: str, count: int = 1, *, zone: str = "", group: str = ""
    ) -> list[str]:
        """Create servers, all of which should come to be in the state ``wanted``."""
        made = self._server(flavor, count, zone=zone, group=group)
        states = self._settled(made)
        self._step(name, set(states.values()) == {wanted}, dict(Counter(states.values())))
        return made

    def _act(self, name: str, server: str, action: dict[str, Any], wanted: str = "ACTIVE") -> None:
        """An action on a server, after which it should be in the state ``wanted``."""
        self.cloud.call("POST", f"servers/{server}/action", action)
        end = time.monotonic() + SETTLE_SECONDS
        while True:  # some actions set no task before the compute begins with them
            time.sleep(0.5)
            (state,) = self._settled([server]).values()
            if state == wanted or time.monotonic() > end:
                break
        self._step(name, state == wanted, f"{state} on {self._host(server)}")

    def _host(self, server: str) -> str:
        return str(self.cloud.servers()[server]["OS-EXT-SRV-ATTR:host"] or "")

    def _moved(self, name: str, server: str, action: dict[str, Any], wanted: str = "ACTIVE") -> None:
        before = self._host(server)
        self._act(name, server, action, wanted)
        self._step(f"{name}: on another host", self._host(server) != before, before)

    # parts

    def begin(self) -> None:
        """Flavors, and a zone of half of the hosts; where there are many, one of few as well."""
        call = self.cloud.call
        for id, (vcpus, ram, disk) in FLAVORS.items():
            call("POST", "flavors", {"flavor": {"id": id, "name": f"f{id}", "vcpus": vcpus, "ram": ram, "disk": disk}})
        computes = self.cloud.computes
        half = len(computes) // 2
        self.zone, self.few, self.few_zone = computes[:half], computes, ""
        if half > FEW_HOSTS:
            self.few, self.few_zone = computes[half : half + FEW_HOSTS], "few"
        for zone, hosts in (("a", self.zone), (self.few_zone, self.few)):
            if zone:
                body = {"aggregate": {"name": zone, "availability_zone": zone}}
                aggregate = call("POST", "os-aggregates", body)["aggregate"]
                for host in hosts:
                    call("POST", f"os-aggregates/{aggregate['id']}/action", {"add_host": {"host": host}})
        self._step("nova-scheduler is up", self.cloud.up("nova-scheduler") == ["control"])

    def create(self) -> None:
        """One, several, in a zone, in groups, and such as fit nowhere."""
        groups = {}
        for policy in ("affinity", "anti-affinity", "soft-anti-affinity"):
            body = {"server_group": {"name": policy, "policy": policy}}
            groups[policy] = self.cloud.call("POST", "os-server-groups", body)["server_group"]["id"]
        count, few = len(self.few), self.few_zone
        self.one = self._make("create", "ACTIVE", "2")[0]
        self.many = self._make("multi-create", "ACTIVE", "1", 8)
        zoned = self._make("in a zone", "ACTIVE", "1", 3, zone="a")
        self._step("in a zone: there", {self._host(each) for each in zoned} <= set(self.zone))
        self.together = together = self._make("affinity", "ACTIVE", "1", 3, group=groups["affinity"])
        self._step("affinity: one host", len({self._host(each) for each in together}) == 1)
        self.apart = self._make("anti-affinity", "ACTIVE", "1", count, zone=few, group=groups["anti-affinity"])
        self._step("anti-affinity: all hosts", len({self._host(each) for each in self.apart}) == count)
        group = groups["anti-affinity"]
        self.refused = self._make("anti-affinity, one too many", "ERROR", "1", zone=few, group=group)
        self._make("soft anti-affinity", "ACTIVE", "1", count + 1, zone=few, group=groups["soft-anti-affinity"])
        self.refused += self._make("larger than any host", "ERROR", "3")

    def move(self) -> None:
        """Resize, cold and live migration."""
        one, other = self.one, self.many[0]
        self._moved("resize", one, {"resize": {"flavorRef": "1"}}, "VERIFY_RESIZE")
        self.compare("resize, both held", moving=1)
        self._act("resize: confirm", one, {"confirmResize": None})
        before = self._host(other)
        self._moved("resize up", other, {"resize": {"flavorRef": "2"}}, "VERIFY_RESIZE")
        self._act("resize: revert", other, {"revertResize": None})
        self._step("resize: back", self._host(other) == before, before)
        self._moved("cold migration", other, {"migrate": None}, "VERIFY_RESIZE")
        self._act("cold migration: confirm", other, {"confirmResize": None})
        self._moved("live migration", one, {"os-migrateLive": {"host": None, "block_migration": "auto"}})
        self._act("resize to what fits nowhere", one, {"resize": {"flavorRef": "3"}})

    def shelve_and_rebuild(self) -> None:
        """Shelve, unshelve and rebuild."""
        one, stays = self.many[1], self.many[2]
        self._act("shelve", one, {"shelve": None}, "SHELVED_OFFLOADED")
        self._act("unshelve", one, {"unshelve": None})
        self._act("shelve, to stay", stays, {"shelve": None}, "SHELVED_OFFLOADED")
        self._act("rebuild", self.many[3], {"rebuild": {"imageRef": IMAGE}})
        self._act("rebuild with another image", self.many[4], {"rebuild": {"imageRef": OTHER_IMAGE}})

    def lose_a_compute(self) -> None:
        """Disable a host, and evacuate one that is dead."""
        # Some have no other host to go to. Nova's fake driver keeps a guest that was live-migrated on the host that it
        # left, and refuses it there.
        call, bound = self.cloud.call, {*self.apart, *self.together, self.one}
        services = {each["host"]: each["id"] for each in call("GET", "os-services?binary=nova-compute")["services"]}
        closed, dead = self.zone[0], self.cloud.computes[-1]
        call("PUT", f"os-services/{services[closed]}", {"status": "disabled"})
        time.sleep(2.0)
        made = self._make("beside a disabled host", "ACTIVE", "1", 6)
        self._step("none on a disabled host", closed not in {self._host(each) for each in made})
        call("PUT", f"os-services/{services[closed]}", {"status": "enabled"})
        made = self._make("on a host by name", "ACTIVE", "1", 2, zone=f"nova:{dead}")
        self._step("on a host by name: there", {self._host(each) for each in made} == {dead})
        self.cloud.kill(dead)
        self.cloud.until(lambda: dead not in self.cloud.up(), "a dead compute that counts as down")
        for server, each in self.cloud.servers().items():
            if each["OS-EXT-SRV-ATTR:host"] == dead and server not in bound and each["status"] == "ACTIVE":
                self._left[server] = dead
                self._moved("evacuate", server, {"evacuate": {}}, "SHUTOFF")
        made = self._make("beside a dead host", "ACTIVE", "1", 4)
        self._step("none on a dead host", dead not in {self._host(each) for each in made})

    def end(self) -> None:
        """Kill the service with requests under way, and delete all servers."""
        made = [self._server("1")[0] for _ in range(4)]
        self.cloud.kill("hostler")
        self.cloud.start_hostler()
        states = self._settled(made, 300.0)
        self._step("killed in the middle", set(states.values()) <= {"ACTIVE", "ERROR"}, dict(Counter(states.values())))
        made = self._make("after it was killed", "ACTIVE", "1", 4)
        self.audit()
        self._delete("delete", list(self.cloud.servers()))

    def audit(self) -> None:
        """What Nova's own tool says: every guest has its allocations, and no allocation is without a guest on its host,
        but for those that evacuated guests have on the dead host. Claims whose answers were lost are given back within
        seconds."""
        healed, _ = self.cloud.manage("placement", "heal_allocations", "--dry-run", "--max-count", "100000")
        self._step("heal_allocations finds nothing", healed == NOTHING_HEALED, f"exit code {healed}")
        end = time.monotonic() + SETTLE_SECONDS
        while (found := self._orphans())[1] and time.monotonic() < end:
            time.sleep(1.0)
        code, orphans = found
        self._step("no orphaned allocations", not orphans, "; ".join((f"exit code {code}", *orphans[:3])))

    def _orphans(self) -> tuple[int, list[str]]:
        """The exit code of `nova-manage placement audit`, and the allocations that it would delete."""
        code, told = self.cloud.manage("placement", "audit", "--verbose")
        providers = self.cloud.placement.get("/resource_providers").json()["resource_providers"]
        names = {each["uuid"]: each["name"] for each in providers}
        lines = [(consumer, names.get(provider, provider)) for consumer, provider in ORPHAN.findall(told)]
        found = [f"{consumer} on {host}" for consumer, host in lines if self._left.get(consumer) != host]
        return code, found if lines or not code else [told.strip()[-200:]]

    def interrupted_crowd(self) -> None:
        """Many guests, while the service is killed; those whose calls were lost are deleted, and nothing is left of
        them."""
        cloud, made, count = self.cloud, list[str](), self._guests // CROWD_REQUEST
        for number in range(count):
            made += self._server("4", CROWD_REQUEST)
            if number == count // 2:
                cloud.kill("hostler")
                cloud.start_hostler()
        states = self._settled(made, 3_600.0)
        lost = [server for server, state in states.items() if state == "ERROR"]
        detail = f"{dict(Counter(states.values()))} {self._faults(lost)}"
        self._step(f"{len(made)} guests, killed in the middle", set(states.values()) <= {"ACTIVE", "ERROR"}, detail)
        for each in lost:
            cloud.call("DELETE", f"servers/{each}")
        self._settled(lost, 600.0)
        self.compare("killed in the middle of many")
        self.audit()
        self._delete("killed in the middle: delete", [each for each in made if each not in lost])

    def _faults(self, servers: Iterable[str]) -> dict[str, int]:
        """What Nova says of servers in ERROR, without the names of guests, and how often."""
        known = self.cloud.servers()
        told = (known[each].get("fault", {}).get("message", "") for each in servers if each in known)
        return dict(Counter(UUID.sub("UUID", each)[:120] for each in told).most_common(5))

    def _delete(self, name: str, servers: Sequence[str]) -> None:
        for each in servers:
            self.cloud.call("DELETE", f"servers/{each}")
        wanted, left = set(servers), dict[str, str]()

        def gone() -> bool:  # one that is DELETED is listed for a moment longer
            left.clear()
            left.update({id: each["status"] for id, each in self.cloud.servers().items() if id in wanted})
            return not left

        with suppress(ServiceUnavailable):
            self.cloud.until(gone, "the end of servers", 3_600.0)
        self._step(name, not left, dict(Counter(left.values())))

    def crowd(self) -> None:
        """Many guests, what they cost, and their end."""
        found = self.batch(self._guests)
        states = Counter(found.states.values())
        self._step(f"{len(found.states)} guests", set(states) == {"ACTIVE"}, dict(states))
        cells = Counter(self.cloud.cell(host) for host in found.hosts if host)
        median = statistics.median(found.seconds) if found.seconds else float("nan")
        detail = (
            f"{1e3 * found.servers / len(found.states):.1f} ms of CPU a guest, {median:.1f} s to active (p50), "
            f"guests by cell {dict(cells)}"
        )
        self._step("what they cost", len(found.seconds) == len(found.states), detail)
        self.compare("crowd", moving=0)
        self._delete("crowd: delete", list(found.states))

    def batch(self, count: int) -> Batch:
        """Ask for guests, CROWD_REQUEST at a time, and wait for them."""
        cloud, asked = self.cloud, dict[str, float]()
        before = cloud.scheduler_cpu(), cloud.database_cpu()
        for first in range(0, count, CROWD_REQUEST):
            began = time.time()
            asked |= dict.fromkeys(self._server("4", min(CROWD_REQUEST, count - first)), began)
        states = self._settled(asked, 3_600.0)
        spent = cloud.scheduler_cpu() - before[0], cloud.database_cpu() - before[1]
        servers = {id: each for id, each in cloud.servers().items() if id in asked}
        launched = {id: each["OS-SRV-USG:launched_at"] for id, each in servers.items()}
        seconds = [_epoch(at) - asked[id] for id, at in launched.items() if at]
        hosts = [each["OS-EXT-SRV-ATTR:host"] for each in servers.values()]
        return Batch(states=states, seconds=seconds, hosts=hosts, servers=spent[0], database=spent[1])

    # what the three say

    def compare(self, name: str, *, moving: int = 0) -> None:
        """Compare until all agree, for at most SETTLE_SECONDS. ``moving``: consumers that are migrations."""
        end = time.monotonic() + SETTLE_SECONDS
        while (differ := self._differences(moving)) and time.monotonic() < end:
            time.sleep(1.0)
        self._step(f"all agree: {name}", not differ, "; ".join(differ[:3]))

    def _differences(self, moving: int) -> list[str]:
        nova, placement = self._of_nova(), self._of_placement()
        fleet = {} if self.cloud.stock else self._of_fleet()
        beside = [consumer for consumer in placement if consumer not in nova]
        found = [f"{consumer} holds {placement[consumer]} and is no guest" for consumer in beside[moving:]]
        for server, wanted in nova.items():
            if placement.get(server, {}) != wanted:
                found.append(f"{server}: Nova {wanted}, Placement {placement.get(server, {})}")
        if self.cloud.stock:
            return found
        found += [f"{each}: the fleet differs from Placement" for each in fleet if fleet[each] != placement.get(each)]
        return found + [f"{each}: not in the fleet" for each in placement if each not in fleet]

    def _of_nova(self) -> dict[str, dict[str, dict[str, int]]]:
        found: dict[str, dict[str, dict[str, int]]] = {}
        for server, each in self.cloud.servers().items():
            host, flavor = each["OS-EXT-SRV-ATTR:host"], each["flavor"]
            held = {"VCPU": flavor["vcpus"], "MEMORY_MB": flavor["ram"], "DISK_GB": flavor["disk"]}
            found[server] = {host: held} if host and each["status"] != "SHELVED_OFFLOADED" else {}
            if server in self._left:
                found[server][self._left[server]] = held
        return found

    def _of_placement(self) -> dict[str, dict[str, dict[str, int]]]:
        found: dict[str, dict[str, dict[str, int]]] = {}
        get = self.cloud.placement.get
        for provider in get("/resource_providers").json()["resource_providers"]:
            path, total = f"/resource_providers/{provider['uuid']}", Counter[str]()
            for consumer, each in get(f"{path}/allocations").json()["allocations"].items():
                found.setdefault(consumer, {})[provider["name"]] = each["resources"]
                total.update(each["resources"])
            usages = get(f"{path}/usages").json()["usages"]
            if total != Counter(usages):
                found.setdefault(f"the usages of {provider['name']}", {})[provider["name"]] = usages
        return found

    def _of_fleet(self) -> dict[str, dict[str, dict[str, int]]]:
        with BlockingClient(self.cloud.address) as client:
            lines = client.call("allocations", {"limit": 10_000})
            return {each.consumer: {name: dict(held) for name, held in each.allocations.items()} for each in lines}


def _sizes() -> Sequence[tuple[str, tuple[int, int, int]]]:
    return list(FLAVORS.items())


def _epoch(text: str) -> float:
    """Seconds since the epoch of a time as Nova tells it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def show(step: Step) -> None:
    """Print it as a line."""
    print(f"{'ok    ' if step.ok else 'FAILED'} {step.name}{f': {step.detail}' if step.detail else ''}", flush=True)


@app.default
def command(
    *,
    computes: int = 6,
    cells: int = 1,
    guests: int = 0,
    stock: Annotated[bool, Parameter(negative="")] = False,
    only: Annotated[tuple[Part, ...], Parameter(negative="")] = (),
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Live through it. Exit code 1 if a step fails, 3 if the cloud does not start.

    Parameters
    ----------
    computes
        Hosts, each a nova-compute with the fake driver; at least 4, which the cells share. Of more than 20, each 20 are
        in a process.
    cells
        Cells, each with a database, a virtual host of RabbitMQ and a nova-conductor of its own; at least 3 hosts each.
    guests
        So many guests at once, twice: the second time the service is killed on the way. About 110 fit on a host.
    stock
        Nova's own nova-scheduler and Placement, with only the guests of ``guests``, for comparison.
    only
        These parts, all if left out: life (everything that is done with a guest, once), crowd (the guests of
        ``guests``), killed (the same while the service is killed).
    venv
        Folder of the environment with Nova; made if it is not there. ~/.cache/hostler/openstack-life if left out.
    """
    with tempfile.TemporaryDirectory(prefix="hostler-os-") as folder:
        os.chmod(folder, 0o755)
        try:
            environment, count = venv or kept("openstack-life"), max(computes, 4, 3 * cells)
            with OpenStack(Path(folder), environment, computes=count, cells=cells, stock=stock) as cloud:
                life = Life(cloud, (lambda step: None) if json else show, guests=guests, only=only)
                life.run()
        except ServiceUnavailable as error:
            print(f"{error}; {error.hint}" if error.hint else str(error), file=sys.stderr)
            return 3
    return report(life.steps, json=json)


def report(steps: Sequence[Step], *, json: bool) -> int:
    """Print how many failed, with ``json`` all steps; the exit code."""
    failed = sum(not step.ok for step in steps)
    print(msgspec.json.encode(steps).decode() if json else f"{len(steps)} steps, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(program=app))
