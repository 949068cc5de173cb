"""A small real OpenStack whose nova-scheduler and Placement are a service of Hostler, or for comparison Nova's own:
nova-api, nova-conductor and nova-compute with Nova's fake driver in one or several cells, RabbitMQ and PostgreSQL.
Glance and Neutron are stubs (any image exists, there are no networks), and a token is USER:PROJECT."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import httpx

from .environments import ServiceUnavailable, clean, ready, run
from .free_ports import free_ports
from .placement_database import database
from .placement_services import cpu_seconds
from .rabbit_broker import Broker, missing

PACKAGES: Final = ("nova==34.0.0", "openstack-placement==16.0.0", "waitress", "psycopg2-binary", "setuptools<81")
TOKEN: Final = "admin:admin"
WAIT_SECONDS: Final = 300.0
MANY: Final = 20
"""Hosts up to which each nova-compute is a process of its own. Of more, so many share one, which takes 160 MiB."""
HOSTLER: Final = str(Path(sys.executable).with_name("hostler"))
_COMPUTES: Final = Path(__file__).resolve().with_name("openstack_computes.py")
_PACE: Final = "report_interval = 2\nservice_down_time = 12\n"
_PACE_OF_MANY: Final = "update_resources_interval = 600\nrpc_response_timeout = 300\n"
"""Nova's own seconds between heartbeats, and a tenth of its reports without a cause: those of many hosts would take
more of the machine than what is tried."""
_IMAGE: Final = {
    **{"name": "image", "status": "active", "size": 1, "min_disk": 0, "min_ram": 0, "disk_format": "raw"},
    **{"container_format": "bare", "visibility": "public", "protected": False, "checksum": "x", "owner": "admin"},
    **{"tags": [], "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"},
}
_TOKEN_FILTER: Final = """
def factory(_global, **_local):
    def wrap(app):
        def call(env, start):
            user, _, project = env.get("HTTP_X_AUTH_TOKEN", "").partition(":")
            env.update(
                HTTP_X_IDENTITY_STATUS="Confirmed", HTTP_X_USER_ID=user, HTTP_X_USER_NAME=user,
                HTTP_X_PROJECT_ID=project, HTTP_X_PROJECT_NAME=project, HTTP_X_USER_DOMAIN_ID="default",
                HTTP_X_PROJECT_DOMAIN_ID="default", HTTP_X_ROLES="admin,manager,member,reader,service",
                HTTP_X_SERVICE_CATALOG="[]",
            )
            return app(env, start)
        return call
    return wrap
"""
_API: Final = """
import sys
sys.argv = ["nova-api"]
from nova.wsgi.osapi_compute import application
from waitress import serve
serve(application, host="127.0.0.1", port={port}, threads=8)
"""
_PLACEMENT: Final = """
import sys
sys.argv = ["placement"]
from placement.wsgi.api import application
from waitress import serve
serve(application, host="127.0.0.1", port={port}, threads=8)
"""


class _Stub(BaseHTTPRequestHandler):
    """Glance and Neutron."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        base = f"http://{self.headers['Host']}"
        body: dict[str, Any] = {}
        if self.command == "POST" and path == "/image/v2/images":  # the snapshot of a server that is shelved
            body = {**_IMAGE, "id": str(uuid.uuid4()), "status": "queued"}
        elif path.startswith("/image/v2/images/"):
            body = {"id": path.rpartition("/")[2], **_IMAGE}
        elif path.startswith("/image/v2/schemas/"):
            kinds = {"type": ["string", "null", "integer", "boolean", "array"]}
            names = ("id", "self", "file", "schema", "locations", "direct_url", "virtual_size", "os_hidden", *_IMAGE)
            body = {"name": "image", "properties": dict.fromkeys(names, kinds)}
        elif path.startswith("/network/v2.0/"):
            body = {path.split("/")[3].removesuffix(".json").replace("-", "_"): []}
        else:
            kind, version = ("image", "v2.9") if path.startswith("/image") else ("network", "v2.0")
            link = f"{base}/{kind}/{version.partition('.')[0] if kind == 'image' else version}/"
            body = {"versions": [{"id": version, "status": "CURRENT", "links": [{"rel": "self", "href": link}]}]}
        raw = json.dumps(body).encode()
        self.send_response(201 if self.command == "POST" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # names that http.server calls


class OpenStack:
    """The cloud, started and ended by the context. ``nova`` and ``placement``: clients of their APIs."""

    def __init__(
        self,
        folder: Path,
        venv: Path,
        *,
        computes: int,
        cells: int = 1,
        stock: bool = False,
        packages: Sequence[str] = PACKAGES,
    ) -> None:
        """``folder``: for all of its files; ``venv``: environment with Nova, made of ``packages`` if it is not there;
        ``computes``: of all cells; ``stock``: with nova-scheduler and Placement of its own."""
        self.folder, self.computes = folder, [f"compute-{number}" for number in range(1, computes + 1)]
        self._cells, self.stock = range(1, cells + 1), stock
        self._venv, self._packages, self._stack = venv, packages, ExitStack()
        self._pace = _PACE if computes <= MANY else _PACE_OF_MANY
        self._groups = {names[0]: names for names in self._grouped()}
        """Hosts by the name of the process that they are in, which is that of the first."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._api_port, self._placement_port, self._stub_port = free_ports(3)
        self.address = f"unix:{folder}/h.sock"
        headers = {"x-auth-token": TOKEN, "openstack-api-version": "compute 2.95"}
        self.nova = httpx.Client(base_url=f"http://127.0.0.1:{self._api_port}/v2.1/", headers=headers, timeout=90)
        headers = {"x-auth-token": TOKEN, "openstack-api-version": "placement 1.39"}
        self.placement = httpx.Client(base_url=f"http://127.0.0.1:{self._placement_port}", headers=headers, timeout=90)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        if missing():
            raise ServiceUnavailable(f"{', '.join(missing())} are not installed", hint="install rabbitmq-server")
        self._python = ready(self._venv, self._packages)
        (self.folder / "rabbit").mkdir(parents=True)
        broker = Broker(self.folder / "rabbit")
        self._stack.callback(broker.end)
        broker.start()
        self._transport, self._broker = broker.url, broker
        for cell in self._cells[1:]:
            broker.ctl("add_vhost", f"cell{cell}")
            broker.ctl("set_permissions", "-p", f"cell{cell}", "guest", ".*", ".*", ".*")
        self._cluster = self._stack.enter_context(database("postgresql", self.folder))
        self._database = self._cluster.url
        stub = ThreadingHTTPServer(("127.0.0.1", self._stub_port), _Stub)
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        self._stack.callback(stub.shutdown)
        self._stack.callback(self._kill_all)
        self._configure()
        self._make_databases()
        self._start_schedulers()
        self._start_nova()

    def _start_nova(self) -> None:
        """Start what asks the scheduler: the API, conductors and computes."""
        environment = {"PYTHONPATH": str(self.folder), "OS_NOVA_DISABLE_EVENTLET_PATCHING": "1"}
        environment["OS_NOVA_CONFIG_DIR"] = str(self.folder)
        self.begin_process("api", str(self._python), "-c", _API.format(port=self._api_port), **environment)
        for name in ("conductor", *(f"conductor-{cell}" for cell in self._cells[1:]), *self._groups):
            self.start_nova(name)
        wanted, seconds = sorted(self.computes), max(WAIT_SECONDS, 6.0 * len(self.computes))
        self.until(lambda: sorted(self.up()) == wanted, "the computes", seconds)
        self._manage("cell_v2", "discover_hosts")

    def url(self, name: str) -> str:
        """The URL of a database: placement, nova_api, nova_cell0, nova_cell1 and so on."""
        return self._database.replace("/postgres?", f"/{name}?")

    def cell(self, compute: str) -> int:
        """The cell of a host: they take turns."""
        return self._cells[self.computes.index(compute) % len(self._cells)]

    def _grouped(self) -> Iterator[list[str]]:
        """The hosts by processes. The last host, which may be killed, has one of its own."""
        *others, last = self.computes
        size = 1 if len(self.computes) <= MANY else MANY
        for number in range(len(self._cells)):
            mine = others[number :: len(self._cells)]
            yield from (mine[start : start + size] for start in range(0, len(mine), size))
        yield [last]

    def _bus(self, cell: int) -> str:
        return self._transport if cell == 1 else f"{self._transport}cell{cell}"

    def _configure(self) -> None:
        (self.folder / "lock").mkdir()
        for name in ("nova", *(f"conductor-{cell}" for cell in self._cells[1:]), *self._groups):
            (self.folder / f"{name}.conf").write_text(self._conf(name))
            (self.folder / name).mkdir()
        (self.folder / "placement.conf").write_text(
            f"[DEFAULT]\n[api]\nauth_strategy = noauth2\n[placement_database]\nconnection = {self.url('placement')}\n"
        )
        (self.folder / "plain_token.py").write_text(_TOKEN_FILTER)
        paste = (self._venv / "etc" / "nova" / "api-paste.ini").read_text()
        before, mark, after = paste.partition("[filter:authtoken]")
        after = after.partition("\n[")[2]
        own = f"{mark}\npaste.filter_factory = plain_token:factory\n\n["
        (self.folder / "api-paste.ini").write_text(f"{before}{own}{after}" if after else f"{before}{own[:-1]}")
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        (self.folder / "hostler.toml").write_text(
            f'policy = "{self.folder}/nova.conf"\n[data]\nfolder = "{self.folder}/data"\n'
            f'[placement]\nlisten = "127.0.0.1:{self._placement_port}"\nauth = "static"\n'
            f'[[placement.tokens]]\nsha256 = "{digest}"\nuser = "admin"\nproject = "admin"\n'
            'roles = ["service", "admin"]\n'
            f'[nova]\ntransport_url = "{self._transport}"\ndatabase = "{self.url("nova_api")}"\n'
            'services_database = "cell0"\nreport_seconds = 2\nhost = "control"\n'
        )

    def _conf(self, host: str) -> str:
        connections, cell = "", 1
        if host == "nova":
            connections = f"[api_database]\nconnection = {self.url('nova_api')}\n"
            connections += f"[database]\nconnection = {self.url('nova_cell1')}\n"
        elif host in self.computes:
            cell = self.cell(host)
        else:
            cell = int(host.rpartition("-")[2])
            connections = f"[database]\nconnection = {self.url(f'nova_cell{cell}')}\n"
        stubs = "".join(
            f"[{name}]\nauth_type = admin_token\ntoken = {TOKEN}\nendpoint = {url}\nendpoint_override = {url}\n"
            for name, url in (
                ("placement", f"http://127.0.0.1:{self._placement_port}"),
                ("glance", f"http://127.0.0.1:{self._stub_port}/image"),
                ("neutron", f"http://127.0.0.1:{self._stub_port}/network"),
            )
        )
        return (
            f"[DEFAULT]\nhost = {'control' if host == 'nova' else host}\nmy_ip = 127.0.0.1\n"
            f"transport_url = {self._bus(cell)}\ncompute_driver = fake.MediumFakeDriver\n"
            "initial_cpu_allocation_ratio = 16\n"
            f"state_path = {self.folder}/{host}\n{self._pace}"
            f"[api]\nauth_strategy = keystone\n{connections}{stubs}"
            # Hosts of a cell cannot ask Nova's API database for the members of a server group.
            f"[workarounds]\ndisable_group_policy_check_upcall = {len(self._cells) > 1}\n"
            "[conductor]\nworkers = 1\n[quota]\ninstances = -1\ncores = -1\nram = -1\nserver_groups = -1\n"
            "server_group_members = -1\n[oslo_messaging_notifications]\ndriver = noop\n"
            f"[oslo_concurrency]\nlock_path = {self.folder}/lock\n"
            f"[wsgi]\napi_paste_config = {self.folder}/api-paste.ini\n"
        )

    def _make_databases(self) -> None:
        make = (
            "import psycopg2, sys; c = psycopg2.connect(sys.argv[1]); c.autocommit = True\n"
            "for name in sys.argv[2:]: c.cursor().execute(f'create database {name}')"
        )
        url = self._database.replace("+psycopg2", "")
        names = ("nova_api", "nova_cell0", *(f"nova_cell{cell}" for cell in self._cells), "placement")
        run("no databases", [str(self._python), "-c", make, url, *names], clean())
        self._manage("api_db", "sync")
        self._manage("cell_v2", "map_cell0", "--database_connection", self.url("nova_cell0"))
        self._manage("db", "sync")
        self._manage("cell_v2", "create_cell", "--name", "cell1")
        for cell in self._cells[1:]:
            self._manage("db", "sync", "--local_cell", conf=f"conductor-{cell}")
            where = ("--transport-url", self._bus(cell), "--database_connection", self.url(f"nova_cell{cell}"))
            self._manage("cell_v2", "create_cell", "--name", f"cell{cell}", *where)
        if self.stock:
            self._make_placement()

    def _make_placement(self) -> None:
        """The tables of Placement's database."""
        program = str(self._venv / "bin" / "placement-manage")
        command = [program, "--config-file", str(self.folder / "placement.conf"), "db", "sync"]
        run("placement-manage db sync failed", command, clean())

    def _manage(self, *words: str, conf: str = "nova") -> None:
        command = [str(self._venv / "bin" / "nova-manage"), "--config-file", str(self.folder / f"{conf}.conf"), *words]
        run(f"nova-manage {' '.join(words[:2])} failed", command, clean())

    def manage(self, *words: str) -> tuple[int, str]:
        """The exit code of nova-manage, and what it prints."""
        command = [str(self._venv / "bin" / "nova-manage"), "--config-file", str(self.folder / "nova.conf"), *words]
        done = subprocess.run(command, env=clean(), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    # processes

    def begin_process(self, name: str, *command: str, **environment: str) -> None:
        """Start a process, whose output is in a file of its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean() | environment,
                start_new_session=True,
            )

    def start_nova(self, name: str) -> None:
        """Start a nova-conductor, nova-scheduler, or the nova-compute of a host, with those of its process."""
        program = f"nova-{name.partition('-')[0]}"
        conf = "nova" if name in ("conductor", "scheduler") else name
        if len(hosts := self._groups.get(name, ())) > 1:
            options = ("--config-file", str(self.folder / f"{name}.conf"))
            # -P: beside the program are modules with the names of others
            self.begin_process(name, str(self._python), "-P", str(_COMPUTES), ",".join(hosts[1:]), *options)
            return
        self.begin_process(name, str(self._venv / "bin" / program), "--config-file", str(self.folder / f"{conf}.conf"))

    def import_data(self) -> None:
        """Make the service's data from the databases of Placement and Nova."""
        where = ("--placement", self.url("placement"), "--nova-api", self.url("nova_api"))
        command = [HOSTLER, "import", "openstack", *where, "--data", str(self.folder / "data")]
        run("hostler import openstack failed", command)

    def start_hostler(self) -> None:
        """Start the service, and wait until it is ready."""
        self.begin_process(
            "hostler", HOSTLER, "serve", "--rpc", self.address, "--config", str(self.folder / "hostler.toml")
        )
        self.until(lambda: self.placement.get("/").status_code == 200, "hostler")

    def _start_schedulers(self) -> None:
        if not self.stock:
            self.start_hostler()
            return
        self.start_placement()
        self.start_nova("scheduler")

    def start_placement(self) -> None:
        """Start Placement of its own, and wait until it answers."""
        program = _PLACEMENT.format(port=self._placement_port)
        # -P: the folder that this runs in may have a placement of its own
        self.begin_process(
            "placement", str(self._python), "-P", "-c", program, OS_PLACEMENT_CONFIG_DIR=str(self.folder)
        )
        self.until(lambda: self.placement.get("/").status_code == 200, "placement")

    def scheduler_cpu(self) -> float:
        """CPU seconds so far of what chooses hosts and keeps allocations, with all their processes but without the
        database: the service, or nova-scheduler and Placement."""
        names = ("scheduler", "placement") if self.stock else ("hostler",)
        return sum(cpu_seconds(self._processes[name].pid) for name in names)

    def database_cpu(self) -> float:
        """CPU seconds so far of the database, which all of the cloud has in common."""
        assert self._cluster.pid is not None
        return cpu_seconds(self._cluster.pid)

    def kill(self, name: str) -> None:
        """kill -9, with the workers that it has started: ``hostler``, ``conductor``, ``api`` or a compute."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """SIGTERM, and wait for its end."""
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServiceUnavailable(f"{name} does not end") from None
        finally:
            with suppress(ProcessLookupError):  # what it has left behind
                os.killpg(process.pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    def until(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until something holds; ServiceUnavailable after ``seconds``, or if a process has ended."""
        end = time.monotonic() + seconds
        while True:
            begun = time.monotonic()
            try:
                if holds():
                    return
            except httpx.HTTPError:
                pass
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended:
                text = (self.folder / f"{ended[0]}.log").read_text(errors="replace").strip()
                raise ServiceUnavailable(f"{ended[0]} has ended: {text[-400:]}")
            if time.monotonic() > end:
                raise ServiceUnavailable(f"{what}: not there after {seconds:.0f} s")
            time.sleep(max(0.3, 2 * (time.monotonic() - begun)))  # asking is not to be most of the load

    # Nova's API

    def call(self, method: str, path: str, body: object = None) -> Any:
        """What Nova's API answers, None without a body. ServiceUnavailable for an error."""
        answer = self.nova.request(method, path, json=body)
        if answer.status_code >= 400:
            raise ServiceUnavailable(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    def up(self, binary: str = "nova-compute") -> list[str]:
        """Hosts whose service of a kind is up."""
        found = self.call("GET", f"os-services?binary={binary}")["services"]
        return [each["host"] for each in found if each["state"] == "up"]

    def servers(self) -> dict[str, dict[str, Any]]:
        """All servers by uuid."""
        found: dict[str, dict[str, Any]] = {}
        marker = ""
        while True:
            path = f"servers/detail?all_tenants=1&limit=500{f'&marker={marker}' if marker else ''}"
            page = self.call("GET", path)["servers"]
            found |= {each["id"]: cast("dict[str, Any]", each) for each in page}
            if len(page) < 500:
                return found
            marker = page[-1]["id"]


__all__ = ["HOSTLER", "OpenStack"]
