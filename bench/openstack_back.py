"""The way there and back of a small real OpenStack, as docs/inside-openstack.md and docs/how-to/beside-nova.md tell
it: Hostler's class in nova-scheduler, nova-scheduler again, Hostler in place of nova-scheduler and Placement, and both
again. At each stage guests are created, moved, resized, shelved and deleted, those of the stages before among them,
and after each what Nova's databases and Placement (and the fleet, where there is one) say of every guest is compared.

    python -m hostler.bench.openstack_back [--computes 4] [--json]

Needs RabbitMQ and PostgreSQL; Nova comes from PyPI into an environment of its own, made the first time. Needs Hostler
as a checkout whose kernels are built for this Python. Takes some minutes.
"""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, cast

import cyclopts
from cyclopts import Parameter

from .engine import main
from .environments import ServiceUnavailable, kept
from .openstack_cloud import HOSTLER, PACKAGES, OpenStack
from .openstack_life import NOTHING_HEALED, Life, Step, report, show

INSIDE: Final = (
    *("os-traits>=3.8", "prometheus-client", "aiosqlite", "cyclopts", "msgpack", "msgspec", "numpy", "outcome"),
    *("rich", "sortedcontainers", "tomli-w", "trio"),
)
"""What Hostler's class needs in Nova's environment."""
SOURCE: Final = Path(__file__).resolve().parents[1] / "src"
AUDIT: Final = ("placement", "audit", "--delete", "--verbose")
HEAL: Final = ("placement", "heal_allocations", "--verbose")
HEAL_ONE: Final = ("placement", "heal_allocations", "--force", "--instance")
"""What the page has nova-manage do on the way back."""
_SCHEDULER: Final = "from hostler.drivers.openstack.nova.scheduler_service import main; main()"

app = cyclopts.App(
    name="openstack_back",
    help="A real OpenStack on the way to Hostler and back to nova-scheduler and Placement.",
    result_action="return_value",
)


class BothWays(OpenStack):
    """A cloud that begins with Hostler's class in nova-scheduler, and a Placement of its own."""

    def __init__(self, folder: Path, venv: Path, *, computes: int) -> None:
        super().__init__(folder, venv, computes=computes, stock=True, packages=(*PACKAGES, *INSIDE))

    def _conf(self, host: str) -> str:
        """``[hostler]`` stays there when nova-scheduler is back."""
        return f"{super()._conf(host)}[scheduler]\nworkers = 1\n[hostler]\nmode = live\nfallback = never\n"

    def _start_schedulers(self) -> None:
        self.start_placement()
        self.start_inside()

    def start_inside(self) -> None:
        """Start hostler-nova-scheduler."""
        command = (str(self._python), "-P", "-c", _SCHEDULER, "--config-file", str(self.folder / "nova.conf"))
        self.begin_process("scheduler", *command, PYTHONPATH=str(SOURCE), EVENTLET_NO_GREENDNS="yes")

    def replace(self) -> None:
        """Nova's own end, and Hostler begins with what their databases have."""
        self.stop("scheduler")
        self.stop("placement")
        self.import_data()
        self.start_hostler()
        self.stock = False

    def keep_for_comparison(self) -> None:
        """Stop the service, and start another one on its data for comparison, which Nova does not use."""
        self.stop("hostler")
        options = ("--rpc", self.address, "--data", str(self.folder / "data"))
        self.begin_process("compared", HOSTLER, "serve", *options)
        self.until(lambda: self.drift() is not None, "what is compared with")
        self.stock = True

    def drift(self) -> list[dict[str, Any]] | None:
        """The differences that `hostler drift` tells between the service and Placement's database; None if it does
        not answer."""
        command = [HOSTLER, "drift", "--placement", self.url("placement"), "--server", self.address, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            return None
        return cast("list[dict[str, Any]]", jsonlib.loads(done.stdout))


class WayBack(Life):
    """There and back."""

    cloud: BothWays

    def __init__(self, cloud: BothWays, say: Callable[[Step], None]) -> None:
        super().__init__(cloud, say)
        self.cloud = cloud

    def parts(self) -> list[Callable[[], None]]:
        """The stages."""
        return [self.begin, self.inside, self.inside_back, self.beside, self.beside_back, self.end]

    def inside(self) -> None:
        """Hostler's class in nova-scheduler."""
        self.old = self._make("inside: create", "ACTIVE", "1", 8)
        self._cold(self.old[0], self.old[1], "inside")
        self._act("inside: shelve, to stay", self.old[2], {"shelve": None}, "SHELVED_OFFLOADED")

    def inside_back(self) -> None:
        """nova-scheduler again: a restart is all it takes."""
        self.cloud.stop("scheduler")
        self.cloud.start_nova("scheduler")
        self.audit()
        self._cold(self.old[1], self.old[0], "nova-scheduler again")
        self._make("nova-scheduler again: create", "ACTIVE", "1", 2)

    def beside(self) -> None:
        """Hostler in place of nova-scheduler and Placement; every kind of change that the old Placement misses."""
        self.cloud.replace()
        self.cloud.until(lambda: self.cloud.up("nova-scheduler") == ["control"], "the service among Nova's")
        old = self.old
        self._cold(old[0], old[3], "beside")
        self._act("beside: unshelve", old[2], {"unshelve": None})
        self._act("beside: shelve, to stay", old[4], {"shelve": None}, "SHELVED_OFFLOADED")
        there = self._host(old[5])
        for turn in ("there", "and back"):  # at last on the host that the old Placement has, with another size
            flavor = {"resize": {"flavorRef": "2"}} if turn == "there" else {"migrate": None}
            self._act(f"beside: moved {turn}", old[5], flavor, "VERIFY_RESIZE")
            self._act(f"beside: moved {turn}, confirm", old[5], {"confirmResize": None})
            if turn == "there" and self._host(old[5]) != there:
                self._only_to(there)
        self._only_to(None)
        self._step("beside: resized and back", self._host(old[5]) == there, there)
        self._delete("beside: delete", [old[6]])
        self._make("beside: create", "ACTIVE", "1", 4)

    def beside_back(self) -> None:
        """nova-scheduler and Placement again, by the steps of the page."""
        cloud, before = self.cloud, self._of_nova()
        cloud.keep_for_comparison()
        cloud.start_placement()
        missing = cloud.drift() or []
        self._step(
            "the old Placement misses what happened", bool(missing), dict(Counter(each["kind"] for each in missing))
        )
        self._heal()
        cloud.start_nova("scheduler")
        cloud.until(lambda: cloud.up("nova-scheduler") == ["control"], "nova-scheduler")
        left = [each for each in cloud.drift() or [] if each["kind"] == "consumer"]
        self._step("hostler drift names no guest", not left, left[:3])
        self._step("Nova's guests are as they were", self._of_nova() == before, len(before))
        cloud.stop("compared")
        self.compare("Placement again")
        self.audit()
        self._cold(self.old[3], self.old[0], "Placement again")
        self._act("Placement again: unshelve", self.old[4], {"unshelve": None})
        self._make("Placement again: create", "ACTIVE", "1", 4)

    def end(self) -> None:
        """Delete all."""
        self.audit()
        self._delete("delete", list(self.cloud.servers()))

    def _cold(self, moved: str, sized: str, stage: str) -> None:
        """A cold migration of one guest; another is resized."""
        self._moved(f"{stage}: cold migration", moved, {"migrate": None}, "VERIFY_RESIZE")
        self._act(f"{stage}: cold migration, confirm", moved, {"confirmResize": None})
        flavor = "2" if self._flavor_of(sized) == "1" else "1"
        self._moved(f"{stage}: resize", sized, {"resize": {"flavorRef": flavor}}, "VERIFY_RESIZE")
        self._act(f"{stage}: resize, confirm", sized, {"confirmResize": None})

    def _flavor_of(self, server: str) -> str:
        return "1" if self.cloud.servers()[server]["flavor"]["vcpus"] == 1 else "2"

    def _only_to(self, host: str | None) -> None:
        """Disable all hosts but one; None: enable all."""
        services = self.cloud.call("GET", "os-services?binary=nova-compute")["services"]
        for each in services:
            wanted = "enabled" if host in (None, each["host"]) else "disabled"
            if each["status"] != wanted:
                self.cloud.call("PUT", f"os-services/{each['id']}", {"status": wanted})

    def _heal(self) -> None:
        """What the page has an operator do before nova-scheduler starts."""
        cloud = self.cloud
        code, told = cloud.manage(*AUDIT)
        self._step("audit --delete", code in (0, 4), f"exit code {code}, {told.count('Deleted allocations')} deleted")
        code, told = cloud.manage(*HEAL)
        self._step("heal_allocations", code in (0, NOTHING_HEALED), f"exit code {code}, {told.strip()[-80:]}")
        named = sorted({each["name"] for each in cloud.drift() or [] if each["kind"] == "consumer"})
        for each in named:
            code, told = cloud.manage(*HEAL_ONE, each)
            self._step("heal_allocations --force", code == 0, f"exit code {code}")


@app.default
def command(
    *, computes: int = 4, venv: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False
) -> int:
    """Go there and back. Exit code 1 if a step fails, 3 if the cloud does not start.

    Parameters
    ----------
    computes
        Hosts, each a nova-compute with the fake driver; at least 4.
    venv
        Folder of the environment with Nova; made if it is not there. ~/.cache/hostler/openstack-back if left out.
    """
    with tempfile.TemporaryDirectory(prefix="hostler-os-") as folder:
        os.chmod(folder, 0o755)
        try:
            environment = venv or kept("openstack-back")
            with BothWays(Path(folder), environment, computes=max(computes, 4)) as cloud:
                life = WayBack(cloud, (lambda step: None) if json else show)
                life.run()
        except ServiceUnavailable as error:
            print(f"{error}; {error.hint}" if error.hint else str(error), file=sys.stderr)
            return 3
    return report(life.steps, json=json)


if __name__ == "__main__":
    sys.exit(main(program=app))
