"""A soak of the reconciler on real hosts: guests on two libvirtds and a folder of qcow2 volumes, and on models, are
created, moved, resized, snapshot, stopped and deleted while the service and the libvirtds are killed at random. At the
end what is desired is there, once, and nothing else; nothing is charged that is not there.

    python -m hostler.bench.reconcile_crashes [--operations 1000] [--seed 1]     (as root, as make demo-cloud)
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cyclopts
import msgspec

from hostler.core.engine_commands import asked
from hostler.core.lifecycle_commands import guest_volume
from hostler.core.rpc.client import BlockingClient
from hostler.drivers.demo_cloud import BANNER, LOOP, MOUNTED, QEMU_CONF
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.request import Flavor, Request, RequestSpec

app = cyclopts.App(name="reconcile_crashes", help="A soak of the reconciler on real hosts.")
HOSTS = ("host-1", "host-2")
MODELS = ("model-a", "model-b")
UUID_OF_FILE = re.compile(r"_([0-9a-f-]{36})_")
MOST_REAL, MOST_GUESTS = 6, 40
READY_SECONDS, SETTLE_SECONDS = 120.0, 600.0


class Libvirtd:
    """A libvirtd with folders of its own, which is killed and started again; its guests run on meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._process = folder, subprocess.Popen(["true"])
        for name, path in MOUNTED.items():
            (folder / name).mkdir(parents=True)
            Path(path).mkdir(parents=True, exist_ok=True)
        (folder / "etc" / "qemu.conf").write_text(QEMU_CONF)
        (folder / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{folder}"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\nhost_uuid = "{uuid.uuid4()}"\n'
        )
        self.uri = f"qemu:///system?socket={folder}/libvirt-sock"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        mounts = " && ".join(f"mount --bind '{self.folder / name}' {path}" for name, path in MOUNTED.items())
        start = f"{mounts} && exec libvirtd -f '{self.folder}/libvirtd.conf' -p '{self.folder}/pid'"
        with (self.folder / "log").open("ab") as log:
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", start]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + READY_SECONDS
        while self.virsh("capabilities") is None:
            if time.monotonic() > end or self._process.poll() is not None:
                raise SystemExit(f"{self.folder.name} does not answer")
            time.sleep(0.3)

    def kill(self) -> None:
        """End it without warning."""
        self._process.kill()
        self._process.wait()

    def virsh(self, *arguments: str) -> str | None:
        """What virsh prints; None if it fails."""
        done = subprocess.run(["virsh", "-q", "-c", self.uri, *arguments], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def end_guests(self) -> None:
        """End the guests that were started here, by the numbers of their processes, which have volumes of the run."""
        for file in (self.folder / "run" / "qemu").glob("*.pid"):
            number = file.read_text().strip()
            with suppress(OSError, ValueError):
                if str(self.folder.parent).encode() in Path("/proc", number, "cmdline").read_bytes():
                    os.kill(int(number), signal.SIGKILL)


class Cloud:
    """The service with its back ends, and what is done to them."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.hosts = [Libvirtd(folder / name) for name in HOSTS]
        self.counts: Counter[str] = Counter()
        self._service = subprocess.Popen(["true"], text=True)
        for name in ("volumes", "images"):
            (folder / name).mkdir()
        sector = (LOOP + BANNER + b"\0").ljust(510, b"\0") + b"\x55\xaa"
        (folder / "images" / "banner.raw").write_bytes(sector.ljust(1 << 20, b"\0"))
        (folder / "hostler.toml").write_text(self._configuration())

    def _configuration(self) -> str:
        uris = ", ".join(f'{host.folder.name} = "{host.uri}"' for host in self.hosts)
        reached = ", ".join(f'{name} = "tcp://127.0.0.1"' for name in HOSTS)
        models = "".join(
            f'[backends.{name}]\ndriver = "model"\ngrace = 3\n'
            f'[backends.{name}.options]\nprefix = "{name}-"\nnodes = 3\n'
            f'pools = 0\npage = 1000\npoll = 2\nfile = "{self.folder}/{name}.json"\nbuild_seconds = 0.3\n'
            "faults = { lost_requests = 0.05, lost_answers = 0.05, late = 0.3, delay = 0.05, full = 0.02 }\n"
            for name in MODELS
        )
        return (
            f'[rpc]\nlisten = ["unix:{self.folder}/rpc"]\n[data]\nfolder = "{self.folder}/data"\n'
            '[operation]\nlog_level = "warning"\nlog_format = "text"\n'
            '[backends.hosts]\ndriver = "libvirt"\ngrace = 3\n[backends.hosts.options]\ndomain_type = "qemu"\n'
            f'machine = "pc"\nhosts = {{ {uris} }}\nmigration_uris = {{ {reached} }}\n'
            "unsafe_migration = true\nshutdown_seconds = 0.5\npoll = 2\n"
            f'[backends.disks]\ndriver = "qcow2"\ngrace = 3\n'
            f'[backends.disks.options]\nimages = "{self.folder}/images"\n'
            f'pools = {{ fast = "{self.folder}/volumes" }}\npoll = 2\n{models}'
        )

    # the service

    def start(self) -> None:
        """Start the service, and wait until it listens."""
        command = [sys.executable, "-m", "hostler", "serve", "--config", str(self.folder / "hostler.toml")]
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._service.stdout is not None
        if not self._service.stdout.readline().startswith("ready"):
            raise SystemExit((self.folder / "service.log").read_text()[-3_000:])

    def kill(self) -> None:
        """End the service without warning."""
        self._service.kill()
        self._service.wait()

    def call(self, method: str, **what: Any) -> Any:
        """A call of the service. HostlerError."""
        with BlockingClient(f"unix:{self.folder}/rpc", within=60) as client:
            return client.call(method, what)

    def all(self, method: str) -> list[Any]:
        """All lines of a listing."""
        lines: list[Any] = []
        while True:
            key = {} if not lines else {"after": lines[-1].uuid}
            page = self.call(method, limit=500, **key)
            lines += page
            if len(page) < 500:
                return lines

    # what is done

    def operate(self) -> None:
        """One operation at random."""
        guests = self.all("guests")
        real = [each for each in guests if each.backend == "hosts" or each.node in HOSTS]
        kinds = ("create", "move", "resize", "snapshot", "stop", "start", "delete")
        what = self.chance.choices(kinds, (45, 15, 10, 5, 8, 7, 20))[0]
        if not guests or (what == "create" and len(guests) >= MOST_GUESTS):
            what = "delete" if guests else "create"
        try:
            if what == "create":
                self._create(real=len(real) < MOST_REAL and self.chance.random() < 0.3)
            else:
                guest = self.chance.choice(guests)
                snapshots = self.call("guest_snapshots", uuid=guest.uuid) if what == "delete" else []
                for each in snapshots:  # before the guest
                    self.call("delete_guest_snapshot", uuid=guest.uuid, snapshot=each.uuid)
                if not snapshots:
                    self.call(f"{what}_guest", uuid=guest.uuid, **self._more(what, guest))
            self.counts[what] += 1
        except HostlerError as error:
            self.counts[f"{what} refused"] += 1
            if error.__class__.__name__ in ("ConnectionLost", "Stopped"):
                raise

    def _more(self, what: str, guest: Any) -> dict[str, Any]:
        """What an operation on a guest is given besides."""
        if what == "move":
            return {"kind": self.chance.choice(("live_migrate", "cold_migrate"))}
        if what == "resize":
            flavor = Flavor(name="other", vcpus=1, memory_mb=64 if guest.memory_mb != 64 else 96)
            return {"request": asked(Request(spec=RequestSpec(flavor=flavor), project_id="p"))}
        return {}

    def _create(self, *, real: bool) -> None:
        others = [f"{name}-node-{number}" for name in MODELS for number in range(3)] if real else list(HOSTS)
        flavor = Flavor(name="small", vcpus=1, memory_mb=64)
        request = Request(spec=RequestSpec(flavor=flavor, ignore_hosts=tuple(others)), project_id="p")
        with_volume = real or self.chance.random() < 0.2
        volumes = [guest_volume(1, image="banner.raw" if real else "", project_id="p")] if with_volume else []
        self.call("create_guest", request=asked(request), volumes=volumes, build_seconds=120.0)

    # what is left

    def settle(self) -> None:
        """Wait until all is as desired, and inventories have found what is left over."""
        end = time.monotonic() + SETTLE_SECONDS
        calm = 0
        while calm < 6:
            status = self.call("reconcile_status")
            calm = calm + 1 if not status.unsettled and all(each.open for each in status.backends) else 0
            if time.monotonic() > end:
                raise SystemExit(f"it does not settle: {status}")
            time.sleep(2.0)

    def problems(self) -> list[str]:
        """What is not as it should be."""
        lines, installation = self.all("guests"), self.call("reconcile_status").installation
        wanted = {
            (each.uuid, each.node, each.status, each.memory_mb)
            for each in lines
            if each.status in ("active", "stopped")
        }
        found = [*self._domains(), *self._modelled(installation)]
        problems = [f"there twice: {each}" for each, count in Counter(uuid for uuid, *_ in found).items() if count > 1]
        problems += [f"desired, and not there: {each}" for each in sorted(wanted - set(found))]
        problems += [f"there, and not desired: {each}" for each in sorted(set(found) - wanted)]
        known = [each for line in lines for each in self.call("guest_snapshots", uuid=line.uuid)]
        snapshots = {each.uuid for each in known if each.status == "available"}
        problems += [f"snapshot that differs: {each}" for each in sorted(snapshots ^ self._snapshots(installation))]
        volumes = {each.uuid for each in self.all("volume_lives") if each.status in ("available", "in_use")}
        names = (path.name for path in (self.folder / "volumes").iterdir())
        files = {match[1] for match in map(UUID_OF_FILE.search, names) if match is not None}
        problems += [f"volume that differs: {each}" for each in sorted(volumes ^ files)]
        for host in (*HOSTS, *(f"{name}-node-{number}" for name in MODELS for number in range(3))):
            detail, there = self.call("host", name=host), {each.uuid for each in lines if each.node == host}
            memory_mb = sum(each.memory_mb for each in lines if each.node == host)
            if detail.inventory["MEMORY_MB"].used != memory_mb:
                used = detail.inventory["MEMORY_MB"].used
                problems.append(f"{host}: {used} MiB are charged, its guests have {memory_mb}")
            if set(detail.instances) != there or detail.inventory["VCPU"].used != len(there):
                used = detail.inventory["VCPU"].used
                problems.append(f"{host}: {used} CPUs are charged for {detail.instances}, there are {sorted(there)}")
        return problems

    def _domains(self) -> list[tuple[str, str, str, int]]:
        found = []
        for host in self.hosts:
            for name in (host.virsh("list", "--all", "--name") or "").split():
                runs = (host.virsh("domstate", name) or "").strip() == "running"
                memory = re.search(r"Max memory: *(\d+)", host.virsh("dominfo", name) or "")
                memory_mb = 0 if memory is None else int(memory[1]) // 1_024
                status = "active" if runs else "stopped"
                found.append((name.removeprefix("hostler-"), host.folder.name, status, memory_mb))
        return found

    def _modelled(self, installation: str) -> list[tuple[str, str, str, int]]:
        found = []
        for key, guest in self._of_models("guests", installation):
            status = "active" if guest.get("power", "on") == "on" else "stopped"
            found.append((key, guest["node"], status, guest["memory_mb"]))
        return found

    def _snapshots(self, installation: str) -> set[str]:
        return {key for key, _ in self._of_models("snapshots", installation)}

    def _of_models(self, kind: str, installation: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the files of the models have of this installation, with the uuids."""
        for name in MODELS:
            for each in msgspec.json.decode((self.folder / f"{name}.json").read_bytes())[kind].values():
                _, owner, key, *_ = each["mark"].split(":")
                if owner == installation:
                    yield key, each


def disturb(cloud: Cloud) -> None:
    """Kill the service, or a libvirtd, and start it again after a while."""
    if cloud.chance.random() < 0.6:
        cloud.kill()
        time.sleep(cloud.chance.choice((0.0, 0.5, 3.0)))
        cloud.start()
        cloud.counts["service killed"] += 1
    else:
        host = cloud.chance.choice(cloud.hosts)
        host.kill()
        time.sleep(cloud.chance.choice((0.0, 1.0, 5.0)))
        host.start()
        cloud.counts["libvirtd killed"] += 1


def play(cloud: Cloud, operations: int, every: int) -> None:
    """The operations, with a disturbance after ``every`` of them on average."""
    cloud.start()
    end = time.monotonic() + READY_SECONDS
    while len([name for each in cloud.call("backends") for name in each.nodes]) < 8:
        if time.monotonic() > end:
            raise SystemExit("not all nodes are known")
        time.sleep(0.5)
    for number in range(operations):
        cloud.operate()
        time.sleep(cloud.chance.uniform(0, 0.1))
        if cloud.chance.random() < 1 / every:
            disturb(cloud)
        if number % 100 == 99:
            print(number + 1, dict(sorted(cloud.counts.items())), flush=True)


@app.default
def main(*, operations: int = 1_000, seed: int = 1, every: int = 25, keep: str = "") -> int:
    """Play, and check what is left.

    Parameters
    ----------
    every
        operations between two disturbances, on average
    keep
        copy the service's log there
    """
    with tempfile.TemporaryDirectory(prefix="hostler-crashes-", ignore_cleanup_errors=True) as name:
        cloud = Cloud(Path(name), random.Random(seed))
        began = time.monotonic()
        try:
            play(cloud, operations, every)
            cloud.settle()
            problems = cloud.problems()
            statuses = cloud.call("reconcile_status").guests
            print(f"{time.monotonic() - began:.0f} s", dict(sorted(cloud.counts.items())), statuses, flush=True)
        finally:
            cloud.kill()
            for host in cloud.hosts:
                host.kill()
                host.end_guests()
            if keep:
                Path(keep).write_bytes((Path(name) / "service.log").read_bytes())
    print("\n".join(problems) or "as desired, once; nothing else is there, and nothing else is charged")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(app())
