"""A stand-in for the REST API of a Hardware Management Console of IBM Power, in memory: managed systems, partitions
with states that change while jobs run, sessions that end, etags. It refuses documents whose elements are not those of
the schema, in its order, and changes without the etag of what is changed."""

from __future__ import annotations

import itertools
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from .hmc_answers import (
    AMOUNTS,
    BOUNDS,
    MEMORY,
    PROCESSORS,
    SHARED,
    UOM,
    WEB,
    Job,
    Partition,
    System,
    entry,
    etag_of,
    feed,
    shown,
    shown_adapter,
    shown_error,
    shown_job,
    shown_network,
    shown_system,
)

SCHEMA: Final[Mapping[str, tuple[str, ...]]] = {
    "LogonRequest": ("UserID", "Password"),
    "JobRequest": ("RequestedOperation", "JobParameters"),
    "RequestedOperation": ("OperationName", "GroupName"),
    "JobParameters": ("JobParameter",),
    "JobParameter": ("ParameterName", "ParameterValue"),
    "LogicalPartition": (
        "AvailabilityPriority",
        "IsOperationInProgress",
        "PartitionID",
        "PartitionIOConfiguration",
        MEMORY,
        "PartitionName",
        PROCESSORS,
        "PartitionState",
        "PartitionType",
        "PartitionUUID",
        "ResourceMonitoringControlState",
        "AssociatedManagedSystem",
        "ReferenceCode",
        "Description",
        "SimplifiedRemoteRestartCapable",
    ),
    "PartitionIOConfiguration": ("MaximumVirtualIOSlots",),
    MEMORY: ("DesiredMemory", "MaximumMemory", "MinimumMemory", "CurrentMemory", "RuntimeMemory"),
    PROCESSORS: (
        "DedicatedProcessorConfiguration",
        "HasDedicatedProcessors",
        SHARED,
        "SharingMode",
        "CurrentSharedProcessorConfiguration",
    ),
    SHARED: tuple(f"{bound}{what}" for bound in BOUNDS for what in AMOUNTS),
    "CurrentSharedProcessorConfiguration": ("AllocatedVirtualProcessors", "CurrentProcessingUnits"),
    "ClientNetworkAdapter": (
        "LocalPartitionID",
        "UseNextAvailableSlotID",
        "VirtualSlotNumber",
        "MACAddress",
        "PortVLANID",
        "TaggedVLANIDs",
        "TaggedVLANSupported",
        "AssociatedVirtualSwitch",
    ),
    "DedicatedProcessorConfiguration": ("DesiredProcessors", "MaximumProcessors", "MinimumProcessors"),
}
"""Elements within others, in the order of the schema."""
NAME: Final = re.compile(r"[- !#%+,./0-9:;=@A-Z^_a-z{}]{1,31}")
"""Names that partitions may have."""


class Reply(NamedTuple):
    status: int
    body: str = ""
    etag: str = ""


class RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def within(element: ElementTree.Element, path: str) -> str:
    space = element.tag.partition("}")[0] + "}"
    found = element.find("/".join(space + each for each in path.split("/")))
    if found is None:
        raise RefusedError(400, f"{path} is missing")
    return (found.text or "").strip()


class Console:
    """``ready``: seconds that jobs take. ``fail``: called with the method and path of each call; a RefusedError that
    it raises is the answer. ``job_fails``: the message with which jobs of an operation fail. ``ended``: the status of
    calls in a session that has ended. ``descriptions``: of partitions may be no part of the schema."""

    def __init__(self, ready: float = 0.0) -> None:
        self.ready, self.ended, self.password = ready, 401, "se<cr>et"
        self.descriptions: Literal["kept", "dropped", "unknown"] = "kept"
        self.fail: Callable[[str, str], None] = lambda method, path: None
        self.job_fails: dict[str, str] = {}
        self.systems = {
            key: System(key, f"Server-{number}") for number, key in enumerate((str(uuid.uuid4()), str(uuid.uuid4())), 1)
        }
        self.partitions: dict[str, Partition] = {}
        self.jobs: dict[str, Job] = {}
        self.sessions: set[str] = set()
        self.log: list[tuple[str, str]] = []
        self._ids, self._lock = itertools.count(1_375_391_227_297), threading.Lock()

    # what tests do without the API

    def system(self, name: str) -> System:
        return next(each for each in self.systems.values() if each.name == name)

    def make(self, name: str, system: str = "Server-1", **more: Any) -> Partition:
        """A partition that was made on the console."""
        key = str(uuid.uuid4()).upper()
        made = Partition(key, name, self.system(system).key, **{"memory": 1_024, "vcpus": 2, "units": 1.0, **more})
        with self._lock:
            self.partitions[key] = made
        return made

    def of_uuid(self, found: str) -> Partition:
        """The partition of a guest, by the mark in its description."""
        return next(each for each in self.partitions.values() if f":{found}:" in each.description)

    # calls

    def answer(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        with self._lock:
            self.log.append((method, path))
            self._end_jobs()
            try:
                self.fail(method, path)
                if path == "/rest/api/web/Logon":
                    return self._session(method, body, headers)
                if headers.get("x-api-session") not in self.sessions:
                    raise RefusedError(self.ended, "The session is not valid.")
                return self._call(method, path, body, headers)
            except RefusedError as error:
                return Reply(error.status, shown_error(error.status, path, str(error)))

    def _session(self, method: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        if method == "DELETE":
            if headers.get("x-api-session") not in self.sessions:
                raise RefusedError(self.ended, "The session is not valid.")
            self.sessions.discard(headers["x-api-session"])
            return Reply(204)
        request = self._document(body, headers, "web", "LogonRequest")
        if (within(request, "UserID"), within(request, "Password")) != ("user", self.password):
            raise RefusedError(401, "The user or password is wrong.")
        token = uuid.uuid4().hex * 4
        self.sessions.add(token)
        text = f'<X-API-Session kb="ROR" kxe="false">{token}</X-API-Session>'
        return Reply(
            200,
            f'<LogonResponse xmlns="{WEB}" schemaVersion="V1_1_0"><Metadata><Atom/></Metadata>{text}</LogonResponse>',
        )

    def _document(self, body: bytes, headers: Mapping[str, str], space: str, kind: str) -> ElementTree.Element:
        """A document that was sent, if it is of the schema."""
        if headers.get("content-type") != f"application/vnd.ibm.powervm.{space}+xml; type={kind}":
            raise RefusedError(415, f"Unsupported Media Type {headers.get('content-type')}")
        root = ElementTree.fromstring(body.decode("utf-8"))
        if root.tag != f"{{{UOM if space == 'uom' else WEB}}}{kind}":
            raise RefusedError(400, f"Failed to unmarshal input payload: {root.tag}")
        self._check(root, kind)
        return root

    def _check(self, element: ElementTree.Element, name: str) -> None:
        """That elements are those of the schema, in its order, after the metadata."""
        order = SCHEMA[name]
        if self.descriptions == "unknown":
            order = tuple(each for each in order if each != "Description")
        names = [child.tag.partition("}")[2] for child in element]
        if names[:1] != ["Metadata"] or element.get("schemaVersion") is None:
            raise RefusedError(400, f"Failed to unmarshal input payload: {name} has no metadata")
        unknown = set(names[1:]) - set(order)
        places = [order.index(each) for each in names[1:]] if not unknown else []
        if unknown or places != sorted(places):
            raise RefusedError(400, f"Failed to unmarshal input payload: {name} of {names[1:]}")
        for child in element:
            kind = child.tag.partition("}")[2]
            if kind in SCHEMA:
                self._check(child, kind)
            elif kind not in ("Metadata", "AssociatedVirtualSwitch") and len(child):
                raise RefusedError(400, f"Failed to unmarshal input payload: {kind}")

    def _call(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        if "application/atom+xml" not in headers.get("accept", "") or "x-hmc-schema-version" in headers:
            raise RefusedError(406, "Not Acceptable")
        url = urlsplit(path)
        parts = tuple(unquote(part) for part in url.path.removeprefix("/rest/api/uom/").split("/"))
        if url.query not in ("", "group=None"):
            raise RefusedError(400, f"unknown query {url.query}")
        if parts[0] == "jobs":
            return self._job(method, *parts[1:])
        if method == "GET":
            return self._get(parts)
        if method == "PUT" and parts[2:] == ("LogicalPartition",) and parts[0] == "ManagedSystem":
            return self._create(self._system(parts[1]), self._document(body, headers, "uom", "LogicalPartition"))
        partition = self._partition(parts[1]) if parts[0] == "LogicalPartition" else None
        if partition is None:
            raise RefusedError(405, "Method Not Allowed")
        if method == "PUT" and parts[2:] == ("ClientNetworkAdapter",):
            return self._plug(partition, self._document(body, headers, "uom", "ClientNetworkAdapter"))
        if method == "PUT" and parts[2:3] == ("do",):
            return self._run(partition, parts[3], self._document(body, headers, "web", "JobRequest"))
        match = headers.get("if-match")
        if match is None:
            raise RefusedError(428, "Precondition Required")
        if match != etag_of(partition):
            raise RefusedError(412, "Precondition Failed: the resource was changed")
        if method == "DELETE":
            return self._delete(partition)
        return self._update(partition, self._document(body, headers, "uom", "LogicalPartition"))

    def _get(self, parts: tuple[str, ...]) -> Reply:
        kind, rest, here = parts[0], parts[1:], self.partitions.values()
        if kind == "ManagementConsole":
            return self._feed([entry(kind, str(uuid.uuid4()), "<ManagementConsoleName>hmc</ManagementConsoleName>")])
        if kind == "ManagedSystem":
            if rest[1:] == ("VirtualNetwork",):
                system = self._system(rest[0])
                return self._feed([shown_network(system, name) for name in system.networks])
            if rest[1:] and rest[1] in ("LogicalPartition", "VirtualIOServer"):
                system = self._system(rest[0])
                if system.state != "operating":
                    raise RefusedError(500, "The managed system is not in the operating state.")
                found = [e for e in self.partitions.values() if (e.system, e.kind) == (system.key, rest[1])]
                return self._feed([self._shown(each) for each in found])
            return self._feed(
                [shown_system(e, here) for e in self.systems.values() if self._matches(rest, "SystemName", e.name)]
            )
        if kind == "LogicalPartition":
            if rest[0] == "search":
                named = [e for e in self.partitions.values() if self._matches(rest, "PartitionName", e.name)]
                return self._feed([self._shown(each) for each in named])
            partition = self._partition(rest[0])
            if rest[1:] == ("ClientNetworkAdapter",):
                return self._feed([shown_adapter(*port) for port in partition.ports])
            return Reply(200, self._shown(partition), etag_of(partition))
        raise RefusedError(404, f"no such resource: {'/'.join(parts)}")

    @staticmethod
    def _matches(rest: tuple[str, ...], key: str, value: str) -> bool:
        if not rest:
            return True
        found = re.fullmatch(r"\((\w+)=='(.*)'\)", rest[1]) if rest[0] == "search" and len(rest) == 2 else None
        if found is None or found[1] != key:
            raise RefusedError(400, f"no such search: {'/'.join(rest)}")
        return found[2] == value

    def _system(self, key: str) -> System:
        if key not in self.systems:
            raise RefusedError(404, f"There is no ManagedSystem {key}.")
        return self.systems[key]

    def _partition(self, key: str) -> Partition:
        if key not in self.partitions:
            raise RefusedError(404, f"There is no LogicalPartition {key}.")
        return self.partitions[key]

    # changes

    def _create(self, system: System, root: ElementTree.Element) -> Reply:
        name, description = (
            within(root, "PartitionName"),
            within(root, "Description"),
        )
        if any(each.name == name and each.system == system.key for each in self.partitions.values()):
            raise RefusedError(500, f"HSCL0A99 A partition named {name} already exists.")
        if not NAME.fullmatch(name):
            raise RefusedError(500, f"HSCL0A98 The name {name} is not valid.")
        if not re.fullmatch(r"[\x20-\x7e]*", description):
            raise RefusedError(500, "HSCLC63B The description has characters that are not printable ASCII.")
        if within(root, "PartitionType") != "AIX/Linux":
            raise RefusedError(400, "Failed to unmarshal input payload: PartitionType")
        made = Partition(str(uuid.uuid4()).upper(), name, system.key, 0, 0, 0.0, description)
        made.slots = int(within(root, "PartitionIOConfiguration/MaximumVirtualIOSlots"))
        self._size(made, root)
        self.partitions[made.key] = made
        return Reply(201, self._shown(made), etag_of(made))

    def _plug(self, partition: Partition, root: ElementTree.Element) -> Reply:
        system, link = self.systems[partition.system], root.find(f"{{{UOM}}}AssociatedVirtualSwitch/{{{UOM}}}link")
        switch = "" if link is None else link.get("href", "").rpartition("/")[2]
        vlan = int(within(root, "PortVLANID"))
        if switch != system.switch or vlan not in system.networks.values():
            raise RefusedError(500, "HSCL0A92 There is no virtual network of this VLAN.")
        if len(partition.ports) + 2 >= partition.slots:
            raise RefusedError(500, "HSCL0A91 The maximum number of virtual slots is used.")
        partition.ports.append((switch, vlan))
        partition.changes += 1
        return Reply(201, shown_adapter(switch, vlan))

    def _size(self, partition: Partition, root: ElementTree.Element) -> None:
        system, shared = self.systems[partition.system], f"{PROCESSORS}/{SHARED}"
        bounds = ("Minimum", "Desired", "Maximum")
        memory = [int(within(root, f"{MEMORY}/{bound}Memory")) for bound in bounds]
        units = [float(within(root, f"{shared}/{bound}ProcessingUnits")) for bound in bounds]
        vcpus = [int(within(root, f"{shared}/{bound}VirtualProcessors")) for bound in bounds]
        if within(root, f"{PROCESSORS}/HasDedicatedProcessors") != "false":
            raise RefusedError(500, "HSCL0A97 The processors are not shared.")
        if any(amounts != sorted(amounts) or amounts[0] <= 0 for amounts in (memory, units, vcpus)):
            raise RefusedError(500, "HSCL0A96 An amount is not between its minimum and its maximum.")
        if any(each % system.block for each in memory):
            raise RefusedError(500, f"HSCL0A95 Memory is not a multiple of {system.block} MB.")
        if any(not 0.05 * each <= unit <= each for unit, each in zip(units, vcpus, strict=True)):
            raise RefusedError(500, "HSCL0A94 The processing units do not suit the virtual processors.")
        partition.memory, partition.units, partition.vcpus = memory[1], units[1], vcpus[1]

    def _update(self, partition: Partition, root: ElementTree.Element) -> Reply:
        if (within(root, "PartitionUUID"), within(root, "PartitionName")) != (partition.key, partition.name):
            raise RefusedError(400, "Failed to unmarshal input payload: another partition")
        if partition.state != "not activated":
            raise RefusedError(
                500, "HSCL05DF The partition is not in a state under which this operation can be performed."
            )
        self._size(partition, root)
        partition.changes += 1
        return Reply(200, self._shown(partition), etag_of(partition))

    def _delete(self, partition: Partition) -> Reply:
        if partition.state != "not activated":
            raise RefusedError(
                500, "HSCL05DF The partition is not in a state under which this operation can be performed."
            )
        del self.partitions[partition.key]
        return Reply(204)

    # jobs

    def _run(self, partition: Partition, operation: str, root: ElementTree.Element) -> Reply:
        given = root.iter(f"{{{WEB}}}JobParameter")
        parameters = {within(each, "ParameterName"): within(each, "ParameterValue") for each in given}
        if within(root, "RequestedOperation/OperationName") != operation:
            raise RefusedError(400, "Failed to unmarshal input payload: OperationName")
        work = {"PowerOn": self._power_on, "PowerOff": self._power_off}.get(operation)
        if work is None:
            raise RefusedError(404, f"no such operation: {operation}")
        job = Job(
            str(next(self._ids)), operation, time.monotonic() + self.ready, lambda: ("", ""), parameters=parameters
        )
        work(partition, job)
        self.jobs[job.key] = job
        if job.ends <= time.monotonic():
            self._end_jobs()
        return Reply(200, shown_job(job))

    def _refused(self, job: Job, text: str) -> None:
        job.ends, job.end = 0.0, lambda: ("COMPLETED_WITH_ERROR", text)

    def _power_on(self, partition: Partition, job: Job) -> None:
        if set(job.parameters) - {"bootmode", "force", "novsi"} or "bootmode" not in job.parameters:
            raise RefusedError(400, f"unknown parameters {set(job.parameters)}")
        if partition.state == "running":
            return self._refused(job, "HSCL3681 The partition is activated already.")
        if partition.state != "not activated":
            return self._refused(job, "HSCL0A93 The partition is busy. Retry the operation.")
        if job.operation in self.job_fails:
            return self._refused(job, self.job_fails[job.operation])
        system = self.systems[partition.system]
        others = [e for e in self.partitions.values() if e.system == system.key and e.state != "not activated"]
        if sum(each.memory for each in others) + partition.memory > system.memory - system.hypervisor:
            return self._refused(job, "HSCL03EC There is not enough memory: Obtained: 0, Required: 1.")
        if sum(each.units for each in others) + partition.units > system.units:
            return self._refused(job, "HSCL03F4 There are not enough processors: Obtained: 0, Required: 1.")
        self._becomes(partition, "starting")

        def end() -> tuple[str, str]:
            self._becomes(partition, "running")
            return "COMPLETED_OK", ""

        job.end = end

    def _power_off(self, partition: Partition, job: Job) -> None:
        if set(job.parameters) != {"operation", "immediate", "restart"}:
            raise RefusedError(400, f"unknown parameters {set(job.parameters)}")
        polite = job.parameters["operation"] == "osshutdown"
        if partition.state == "not activated":
            return self._refused(job, "HSCL1558 The partition is powered off already.")
        if partition.state == "starting" or (partition.state == "shutting down" and not partition.deaf):
            return self._refused(job, "HSCL0A93 The partition is busy. Retry the operation.")
        if polite and not partition.monitored:
            return self._refused(job, "HSCL0DB4 The operating system takes no order to shut down.")
        if job.operation in self.job_fails:
            return self._refused(job, self.job_fails[job.operation])
        self._becomes(partition, "shutting down")
        if polite and partition.deaf:
            job.ends = float("inf")

        def end() -> tuple[str, str]:
            self._becomes(partition, "not activated")
            return "COMPLETED_OK", ""

        job.end = end

    def _becomes(self, partition: Partition, state: str) -> None:
        partition.state = state
        partition.changes += 1

    def _end_jobs(self) -> None:
        now = time.monotonic()
        for job in self.jobs.values():
            if job.status == "RUNNING" and job.ends <= now:
                job.status, job.text = job.end()

    def _job(self, method: str, key: str = "") -> Reply:
        if key not in self.jobs:
            raise RefusedError(404, f"There is no job {key}.")
        job = self.jobs[key]
        if method == "GET":
            return Reply(200, shown_job(job))
        if job.status == "RUNNING":
            raise RefusedError(400, f"Job {key} runs.")
        del self.jobs[key]
        return Reply(204)

    # answers

    def _shown(self, each: Partition) -> str:
        return shown(each, described=self.descriptions == "kept")

    @staticmethod
    def _feed(items: list[str]) -> Reply:
        return Reply(200, feed(items)) if items else Reply(204)

    @contextmanager
    def served(self, certificate: tuple[Path, Path] | None = None) -> Iterator[tuple[str, int]]:
        """Host and port, while the console answers; by HTTPS, if it has a certificate, with its key."""
        console = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536  # answers leave in one piece

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = console.answer(self.command, self.path, body, headers)
                sent = reply.body.encode()
                self.send_response(reply.status)
                if reply.etag:
                    self.send_header("ETag", reply.etag)
                if reply.status != 204:
                    self.send_header("Content-Type", "application/atom+xml")
                    self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_POST = do_PUT = do_DELETE = do_GET

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield "127.0.0.1", int(server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()
