"""A small cloud on this machine, from nothing: two emulated hosts, a pool of volumes, and three guests that boot. The
service is killed in the middle and goes on; a guest moves while it runs. ``make demo-cloud``, as root on Debian."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

PACKAGES: Final = {
    "libvirtd": "libvirt-daemon",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
}
"""Debian packages by the program that each is needed for; and those without a program:"""
MORE_PACKAGES: Final = ("libvirt-daemon-driver-qemu", "libvirt-dev", "pkg-config", "gcc")
ACCOUNT: Final = "libvirt-qemu"
"""libvirt's QEMU driver needs an account of this name, even if it does not use it."""
HOSTS: Final = ("host-1", "host-2")
GUESTS: Final = ("web", "db", "batch")
BANNER: Final = b"HOSTLER GUEST IS UP\r\n"
READY_SECONDS: Final = 90.0
BOOT_SECONDS: Final = 30.0

# A boot sector in real mode: for ever, write the text behind it to the first serial line, then wait for 18 ticks.
LOOP: Final = bytes.fromhex("31c0 8ed8 be1b7c ac 84c0 7406 baf803 ee ebf5 fb b91200 f4 e2fd ebe9".replace(" ", ""))

QEMU_CONF: Final = """user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
"""
MOUNTED: Final = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "etc": "/etc/libvirt",
}
"""Folders of libvirtd, each of which a host has to itself."""


def main() -> int:
    """Run it. Exit code 1 if the machine cannot."""
    problem = _install()
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostler-cloud-")))
        stack.callback(_end_guests, folder)
        _say(f"two hosts, each with a libvirtd of its own, in {folder}")
        for host in HOSTS:
            stack.enter_context(_host(folder / host))
        _play(Cloud(folder, stack))
    print(f"\nall is removed again; it took {time.monotonic() - began:.0f} s")
    return 0


def _say(text: str) -> None:
    print(f"\n# {text}", flush=True)


# the machine


def _install() -> str | None:
    """Install what is missing; the reason if that is not possible."""
    if os.geteuid() != 0:
        return "make demo-cloud starts hosts, for which it has to be root"
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not _has_bindings() and shutil.which("pkg-config") is None:
        missing += MORE_PACKAGES
    if missing or not _has_bindings():
        packages = sorted({*missing, *MORE_PACKAGES})
        print(f"Debian packages to be installed: {' '.join(packages)}; Python package: libvirt-python", flush=True)
        if shutil.which("apt-get") is None:
            return "this machine has no apt-get: install them yourself"
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-y", "-q", "--no-install-recommends"]):
            more = packages if command[1] == "install" else []
            done = subprocess.run([*command, *more], env=environment, stdout=subprocess.DEVNULL, check=False)
            if done.returncode:
                return f"{' '.join(command)} failed with exit code {done.returncode}"
        if not _has_bindings():
            install = [sys.executable, "-m", "pip", "install", "-q", "libvirt-python"]
            if subprocess.run(install, check=False).returncode:
                return "libvirt-python could not be installed"
    if subprocess.run(["getent", "passwd", ACCOUNT], stdout=subprocess.DEVNULL, check=False).returncode:
        print(f"the account {ACCOUNT}, which libvirt needs, is made", flush=True)
        subprocess.run(["useradd", "-r", "-s", "/usr/sbin/nologin", "-d", "/nonexistent", ACCOUNT], check=True)
    return None


def _has_bindings() -> bool:
    check = [sys.executable, "-c", "import libvirt"]
    return subprocess.run(check, stderr=subprocess.DEVNULL, check=False).returncode == 0


@contextmanager
def _host(folder: Path) -> Iterator[None]:
    """A libvirtd with folders of its own, mounted for it alone."""
    for name in MOUNTED:
        (folder / name).mkdir(parents=True)
        Path(MOUNTED[name]).mkdir(parents=True, exist_ok=True)
    (folder / "etc" / "qemu.conf").write_text(QEMU_CONF)
    (folder / "libvirtd.conf").write_text(
        f'unix_sock_dir = "{folder}"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\nhost_uuid = "{uuid.uuid4()}"\n'
    )
    mounts = " && ".join(f"mount --bind '{folder / name}' {path}" for name, path in MOUNTED.items())
    start = f"{mounts} && exec libvirtd -f '{folder}/libvirtd.conf' -p '{folder}/pid'"
    with (folder / "log").open("wb") as log:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", start]
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(lambda: _answers(folder), READY_SECONDS, f"libvirtd of {folder.name}", daemon, folder / "log")
        yield
    finally:
        daemon.terminate()
        with suppress(subprocess.TimeoutExpired):
            daemon.wait(15)
        daemon.kill()
        daemon.wait()


def _uri(folder: Path) -> str:
    return f"qemu:///system?socket={folder}/libvirt-sock"


def _answers(folder: Path) -> bool:
    return subprocess.run(["virsh", "-q", "-c", _uri(folder), "capabilities"], capture_output=True).returncode == 0


def _wait_for(
    ready: object, seconds: float, what: str, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    assert callable(ready)
    end = time.monotonic() + seconds
    while not ready():
        over = process is not None and process.poll() is not None
        if over or time.monotonic() > end:
            said = "" if log is None else "\n" + log.read_text(errors="replace")[-2_000:]
            raise SystemExit(f"{what} {'ended' if over else f'is not ready after {seconds:g} s'}{said}")
        time.sleep(0.2)


def _end_guests(folder: Path) -> None:
    """Guests outlive libvirtd: end those that were started here, by the numbers of their processes."""
    for host in HOSTS:
        for file in (folder / host / "run" / "qemu").glob("*.pid"):
            number = file.read_text().strip()
            command = Path("/proc", number, "cmdline")
            with suppress(OSError, ValueError):
                if str(folder).encode() in command.read_bytes():
                    os.kill(int(number), signal.SIGKILL)


# the cloud


class Cloud:
    """The service and the commands of its command line."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._socket = f"unix:{folder}/rpc"
        self._daemon: subprocess.Popen[bytes] | None = None
        stack.callback(self.kill)
        (folder / "volumes").mkdir()
        (folder / "images").mkdir()
        sector = (LOOP + BANNER + b"\0").ljust(510, b"\0") + b"\x55\xaa"
        (folder / "images" / "banner.raw").write_bytes(sector.ljust(1 << 20, b"\0"))
        hosts = ", ".join(f'{host} = "{_uri(folder / host)}"' for host in HOSTS)
        reached = ", ".join(f'{host} = "tcp://127.0.0.1"' for host in HOSTS)
        (folder / "hostler.toml").write_text(
            f'[rpc]\nlisten = ["{self._socket}"]\n[data]\nfolder = "{folder}/data"\n'
            '[operation]\nlog_level = "error"\nlog_format = "text"\n'
            '[backends.hosts]\ndriver = "libvirt"\n[backends.hosts.options]\ndomain_type = "qemu"\nmachine = "pc"\n'
            f"hosts = {{ {hosts} }}\nmigration_uris = {{ {reached} }}\n"
            "unsafe_migration = true\nshutdown_seconds = 1\npoll = 2\n"
            f'[backends.disks]\ndriver = "qcow2"\n[backends.disks.options]\nimages = "{folder}/images"\n'
            f'pools = {{ fast = "{folder}/volumes" }}\npoll = 2\n'
        )

    def start(self) -> None:
        """Start the service, and wait until it knows hosts and pools."""
        command = [sys.executable, "-m", "hostler", "serve", "--config", str(self.folder / "hostler.toml")]
        with (self.folder / "service.log").open("ab") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log)
        _wait_for(self._ready, READY_SECONDS, "the service", self._daemon, self.folder / "service.log")

    def _ready(self) -> bool:
        found = self._run(["backend", "list", "--json"])
        return found.returncode == 0 and '"host-2"' in found.stdout and '"fast"' in found.stdout

    def kill(self) -> None:
        """End the service without warning."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hostler", *arguments, "--server", self._socket]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def do(self, *arguments: str, code: int = 0) -> str:
        """Run a command and show it with what it prints. SystemExit if it ends with another code."""
        print(f"$ hostler {' '.join(arguments)}", flush=True)
        done = self._run(arguments)
        print(done.stdout + done.stderr, end="", flush=True)
        if done.returncode != code:
            log = (self.folder / "service.log").read_text(errors="replace")[-2_000:]
            raise SystemExit(f"this ended with exit code {done.returncode}, not {code}\n{log}")
        return done.stdout

    def boots(self, guest: str) -> bool:
        """True if a guest writes its banner to its serial line."""
        for host in HOSTS:
            shown = ["virsh", "-q", "-c", _uri(self.folder / host), "ttyconsole", guest]
            line = subprocess.run(shown, capture_output=True, text=True, check=False).stdout.strip()
            if line and _reads(line, BANNER.strip()):
                print(f"{guest} on {host}: {BANNER.decode().strip()}", flush=True)
                return True
        return False


def _reads(path: str, text: bytes) -> bool:
    """True if a terminal writes a text soon."""
    terminal, found = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK), b""
    end = time.monotonic() + BOOT_SECONDS
    try:
        while text not in found and time.monotonic() < end:
            if select.select([terminal], [], [], 1.0)[0]:
                with suppress(BlockingIOError):
                    found = (found + os.read(terminal, 4_096))[-4_096:]
    except OSError:
        return False  # the guest has moved away
    finally:
        os.close(terminal)
    return text in found


def _play(cloud: Cloud) -> None:
    _say("the service, with both hosts as one back end and a folder of qcow2 files as another")
    cloud.start()
    cloud.do("backend", "list")
    uuids = {name: str(uuid.uuid4()) for name in GUESTS}
    small = ("--vcpus", "1", "--memory-mb", "64", "--volume", "size=1,image=banner.raw", "--wait", "--within", "120")
    _say("three guests, each with a volume that it boots from")
    for name in GUESTS[:2]:
        cloud.do("guest", "create", "--name", name, "--uuid", uuids[name], *small)
    _say("the service is killed while it builds the third one, and comes back")
    cloud.do("guest", "create", "--name", GUESTS[2], "--uuid", uuids[GUESTS[2]], *small[:-3])
    cloud.kill()
    cloud.start()
    _wait_for(lambda: _status(cloud, uuids[GUESTS[2]]) == "active", 120.0, "the third guest")
    cloud.do("guest", "lives")
    cloud.do("volume", "lives")
    _say("what the guests write to their serial lines")
    for name in GUESTS:
        if not cloud.boots(f"hostler-{uuids[name]}"):
            raise SystemExit(f"guest {name} writes nothing")
    _say("one moves to the other host while it runs")
    cloud.do("guest", "move", uuids["web"], "--wait", "--within", "180")
    if not cloud.boots(f"hostler-{uuids['web']}"):
        raise SystemExit("the guest that has moved writes nothing")
    cloud.do("guest", "events", uuids["web"])
    _say("all of it is removed")
    for name in GUESTS:
        cloud.do("guest", "delete", uuids[name], "--wait", "--within", "120")
    cloud.do("reconcile", "status")
    left = [each.name for each in (cloud.folder / "volumes").iterdir()]
    if left:
        raise SystemExit(f"volumes are left: {left}")


def _status(cloud: Cloud, guest: str) -> str:
    found = re.search(rf'"uuid": "{guest}".*?"status": "(\w+)"', cloud._run(["guest", "lives", "--json"]).stdout, re.S)
    status = "" if found is None else found[1]
    if status == "error":
        cloud.do("guest", "lives")
        raise SystemExit(f"guest {guest} is in error")
    return status


if __name__ == "__main__":
    sys.exit(main())
