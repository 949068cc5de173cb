"""The life of a cinder-scheduler with Hostler's class in it, beside one with Cinder's own: the same requests over a
real RabbitMQ, to processes of their own with a real PostgreSQL, and every answer compared. Volumes are created,
extended, retyped, moved, taken over and put into groups; the scheduler is killed and started again in the middle.

    python -m hostler.bench.cinder_life [--creates 1000] [--json]

Needs RabbitMQ and PostgreSQL; Cinder comes from PyPI into an environment of its own, made the first time. cinder-api
and the three volume services are one process, which uses Cinder's own clients, objects and database.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cyclopts
import msgspec
from cyclopts import Parameter

from .driver_process import DriverProcess, driving
from .engine import Count, main
from .environments import ServiceUnavailable, clean, kept, ready, run
from .placement_database import database
from .rabbit_broker import Broker, missing

PACKAGES: Final = (
    *("cinder==29.0.0", "pyparsing==3.3.2", "psycopg2-binary", "setuptools<81", "prometheus-client"),
    *("os-resource-classes", "os-traits>=3.8", "aiosqlite", "cyclopts", "msgpack", "msgspec", "numpy", "outcome"),
    *("rich", "sortedcontainers", "tomli-w", "trio"),
)
DRIVER: Final = Path(__file__).resolve().with_name("cinder_life_driver.py")
SOURCE: Final = Path(__file__).resolve().parents[1] / "src"
SCHEDULERS: Final = {
    "cinder": "cinder.scheduler.filter_scheduler.FilterScheduler",
    "hostler": "hostler_cinder.Scheduler",
}
TYPES: Final[dict[str, dict[str, str]]] = {
    "any": {},
    "lvm": {"volume_backend_name": "lvm"},
    "thin": {"capabilities:thin_provisioning_support": "<is> True"},
    "thick": {"thick_provisioning_support": "<is> True"},
    "fast": {"tier": "<in> fast"},
    "nowhere": {"volume_backend_name": "none"},
}
REPORT_EVERY: Final = 100
"""Requests between two reports of the volume services."""

Answer = dict[str, Any]
app = cyclopts.App(
    name="cinder_life",
    help="The life of a cinder-scheduler with Hostler's class, and with Cinder's.",
    result_action="return_value",
)


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What one scheduler did. ``cpu_ms``: of its process, a request; ``p50_ms``: from the request for a volume to its
    volume service. ``by_outcome``: requests by what became of them."""

    answers: list[Answer]
    cpu_ms: float
    p50_ms: float
    by_outcome: dict[str, int]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Both. ``differences``: requests with the two answers."""

    requests: int
    creates: int
    cinder_cpu_ms: float
    hostler_cpu_ms: float
    cinder_p50_ms: float
    hostler_p50_ms: float
    by_outcome: dict[str, int]
    differences: list[tuple[Answer, Answer, Answer]]


def services() -> list[Answer]:
    """Three volume services with two pools each, whose figures never come out equal."""
    made = []
    for number, (name, zone) in enumerate((("lvm", "nova"), ("ceph", "nova"), ("lvm", "other")), 1):
        pools = []
        for pool, size, thin in (("big", 9_000.31, number == 2), ("small", 4_000.17, True)):
            total = round(size + 311.07 * number, 2)
            figures = {"total_capacity_gb": total, "free_capacity_gb": total, "allocated_capacity_gb": 0}
            pools.append(
                {
                    **figures,
                    **{"pool_name": pool, "provisioned_capacity_gb": 0, "reserved_percentage": 5, "tier": pool},
                    **{"max_over_subscription_ratio": "4.0", "thin_provisioning_support": thin, "QoS_support": False},
                    **{"thick_provisioning_support": not thin, "multiattach": True},
                }
            )
            pools[-1]["tier"] = "fast" if pool == "small" else "slow"
        made.append({"host": f"node{number}@{name}", "zone": zone, "backend_name": name, "pools": pools})
    return made


def requests(creates: int, seed: int = 1) -> Iterator[Answer]:
    """``creates`` volumes, and other requests between them. O(creates)."""
    chance = random.Random(seed)
    pools = [f"{each['host']}#{pool['pool_name']}" for each in services() for pool in each["pools"]]
    kinds = list(TYPES)
    for number in range(creates):
        zone = chance.choice((None, None, "nova", "other", "nowhere" if number % 50 == 7 else None))
        kind = chance.choices(kinds, (30, 20, 20, 15, 12, 3))[0]
        yield {"do": "create", "size": chance.choice((1, 2, 5, 10, 20, 40, 400)), "type": kind, "zone": zone}
        if number % 10 == 9:
            known, kind = chance.randrange(1_000_000), chance.choice(kinds)
            backend, host = chance.choice(pools), chance.choice(pools).partition("#")[0]
            yield {"do": "extend", "number": known, "by": chance.choice((1, 10, 90_000))}
            yield {"do": "retype", "number": known + 1, "type": kind, "policy": chance.choice(("never", "on-demand"))}
            yield {"do": "migrate", "number": known + 2, "backend": backend}
            yield {"do": "capacity", "backend": backend, "type": kind, "size": chance.choice((3, 90_000))}
            yield {"do": "manage", "backend": host, "type": kind, "size": chance.choice((4, 90_000))}
            yield {"do": "snapshot", "number": known + 3}
            yield {"do": "group", "types": chance.sample(kinds[:5], 2)}
            yield {"do": "pools", "filters": chance.choice(({}, {"volume_backend_name": "lvm"}))}


class Cloud:
    """A database, a broker, a scheduler, and who talks to it; started and ended by the context."""

    def __init__(self, folder: Path, python: Path, kind: str) -> None:
        self._folder, self._python, self._kind, self._stack = folder, python, kind, ExitStack()
        self._conf = folder / "cinder.conf"
        self._scheduler: subprocess.Popen[bytes] | None = None
        self.cpu_seconds = 0.0
        """Of the schedulers that were killed."""

    @contextmanager
    def running(self) -> Iterator[DriverProcess]:
        """The cloud, whose scheduler has had the reports of all services."""
        with self._stack:
            (self._folder / "rabbit").mkdir(parents=True)
            (self._folder / "lock").mkdir()
            broker = Broker(self._folder / "rabbit")
            self._stack.callback(broker.end)
            broker.start()
            url = self._stack.enter_context(database("postgresql", self._folder)).url
            own = {"mode": "live", "fallback": "never", "log_differences": "false"}
            self._conf.write_text(
                f"[DEFAULT]\nhost = control\nmy_ip = 127.0.0.1\ntransport_url = {broker.url}\n"
                f"state_path = {self._folder}\nservice_down_time = 1000000\n"
                f"scheduler_driver = {SCHEDULERS[self._kind]}\n"
                f"[database]\nconnection = {url}\n[oslo_concurrency]\nlock_path = {self._folder}/lock\n"
                "[oslo_messaging_notifications]\ndriver = noop\n"
                f"[hostler]\n{''.join(f'{name} = {value}{chr(10)}' for name, value in own.items())}"
            )
            programs = self._python.parent
            run("no tables", [str(programs / "cinder-manage"), "--config-file", str(self._conf), "db", "sync"], clean())
            with driving("Cinder", self._python, DRIVER) as driving_it:
                driving_it.ask("begin", conf=str(self._conf), types=TYPES, services=services())
                self._stack.callback(self.kill)
                self.start()
                driving_it.ask("report")
                yield driving_it

    def start(self) -> None:
        """Start the scheduler."""
        command = [str(self._python.parent / "cinder-scheduler"), "--config-file", str(self._conf)]
        with (self._folder / "scheduler.log").open("ab") as log:
            self._scheduler = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean() | {"PYTHONPATH": str(SOURCE), "EVENTLET_NO_GREENDNS": "yes"},
            )

    def kill(self) -> None:
        """kill -9."""
        assert self._scheduler is not None
        self.cpu_seconds += self._cpu()
        self._scheduler.kill()
        self._scheduler.wait()

    def cpu(self) -> float:
        """CPU seconds of all its schedulers so far."""
        return self.cpu_seconds + self._cpu()

    def _cpu(self) -> float:
        assert self._scheduler is not None
        try:
            fields = Path(f"/proc/{self._scheduler.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def live(cloud: Cloud, wanted: Sequence[Answer]) -> Life:
    """All requests, one after the other; the scheduler is killed after half of them."""
    answers, spent, times = list[Answer](), 0.0, list[float]()
    with cloud.running() as driver:
        before = cloud.cpu()
        for number, request in enumerate(wanted):
            if number == len(wanted) // 2:
                spent += cloud.cpu() - before
                cloud.kill()
                cloud.start()
                driver.ask("report")
                before = cloud.cpu()
            elif number % REPORT_EVERY == REPORT_EVERY - 1:
                driver.ask("report")
            values = {name: value for name, value in request.items() if name != "do"}
            answer = driver.ask(request["do"], **values)
            seconds = answer.pop("seconds", None)
            if seconds is not None and answer["sent"]:
                times.append(seconds)
            answers.append(answer)
        spent += cloud.cpu() - before
    outcomes = Counter(_outcome(request, answer) for request, answer in zip(wanted, answers, strict=True))
    return Life(
        answers=answers,
        cpu_ms=spent / len(wanted) * 1e3,
        p50_ms=statistics.median(times) * 1e3,
        by_outcome=dict(sorted(outcomes.items())),
    )


def _outcome(request: Answer, answer: Answer) -> str:
    if "sent" in answer:
        return f"{request['do']}: {'sent' if answer['sent'] else answer['status']}"
    return f"{request['do']}: {answer.get('taken', 'shown')}"


@app.default
def command(
    *,
    creates: Count = 1_000,
    seed: int = 1,
    only: Literal["cinder", "hostler"] | None = None,
    venv: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Live through it with both. Exit code 1 if an answer differs, 3 if the cloud does not start.

    Parameters
    ----------
    creates
        Volumes to be created; to each ten of them come eight other requests.
    seed
        Of the requests.
    only
        One of both, with nothing compared.
    venv
        Folder of the environment with Cinder; made if it is not there. ~/.cache/hostler/cinder-life-29.0.0 if left out.
    """
    wanted, lives = list(requests(creates, seed)), dict[str, Life]()
    try:
        if missing():
            raise ServiceUnavailable(f"{', '.join(missing())} are not installed", hint="install rabbitmq-server")
        python = ready(venv or kept("cinder-life-29.0.0"), PACKAGES)
        for kind in SCHEDULERS if only is None else (only,):
            with tempfile.TemporaryDirectory(prefix="hostler-cinder-") as folder:
                os.chmod(folder, 0o755)
                lives[kind] = live(Cloud(Path(folder) / "cloud", python, kind), wanted)
            if not json:
                _show(kind, lives[kind])
    except ServiceUnavailable as error:
        print(f"{error}; {error.hint}" if error.hint else str(error), file=sys.stderr)
        return 3
    if only is not None:
        return 0
    report = _report(creates, wanted, lives["cinder"], lives["hostler"])
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        for request, theirs, ours in report.differences[:20]:
            print(f"differs: {request}: Cinder {theirs}, Hostler {ours}")
        print(
            f"{report.requests} requests, {report.creates} of them for volumes: "
            f"{len(report.differences)} answers differ"
        )
    return 1 if report.differences else 0


def _report(creates: int, wanted: Sequence[Answer], cinder: Life, hostler: Life) -> Report:
    both = zip(wanted, cinder.answers, hostler.answers, strict=True)
    return Report(
        requests=len(wanted),
        creates=creates,
        cinder_cpu_ms=cinder.cpu_ms,
        hostler_cpu_ms=hostler.cpu_ms,
        cinder_p50_ms=cinder.p50_ms,
        hostler_p50_ms=hostler.p50_ms,
        by_outcome=hostler.by_outcome,
        differences=[each for each in both if each[1] != each[2]],
    )


def _show(kind: str, life: Life) -> None:
    print(
        f"{kind}: {life.cpu_ms:.1f} ms of CPU a request, {life.p50_ms:.0f} ms to the volume service (p50)", flush=True
    )
    for name, count in life.by_outcome.items():
        print(f"  {name}: {count}")


if __name__ == "__main__":
    sys.exit(main(program=app))
