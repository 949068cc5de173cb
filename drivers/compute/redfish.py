"""Bare metal by Redfish: a guest is a whole machine, powered on from a boot device. What runs on it is up to what it
boots. Redfish has no field that every machine lets us write, so whose a machine is stands in a folder of mark files.
Needs the extra ``redfish``."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urljoin

import httpx
import msgspec
import trio

from ...placement.types.errors import InvalidValue
from ..http import LONGEST_TEXT, Http, failure_of, object_of, open_http, retry_after
from ..ongoing import Ongoing, look_until, open_ongoing
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    Facts,
    Guest,
    GuestSpec,
    GuestState,
    Mark,
    Node,
    NotFound,
    Page,
    Permanent,
    Power,
    Transient,
    Unknown,
    read_options,
)
from ..tls import tls_of

T = TypeVar("T")
TIMEOUT: Final = 900.0
"""Machines take minutes to switch on."""
MIB_PER_GIB: Final = 1_024
SYSTEMS: Final = "/redfish/v1/Systems"
RESET: Final = "Actions/ComputerSystem.Reset"
PAGE: Final = 50
"""Machines that are asked before a page of a listing is given out."""

STATES: Final[Mapping[str, GuestState]] = {
    "On": "on",
    "Off": "off",
    "PoweringOn": "building",
    "PoweringOff": "on",
    "Paused": "paused",
}
"""Redfish PowerState."""
BOOT_TARGETS: Final = ("None", "Pxe", "Hdd", "Cd", "Usb", "UefiHttp", "UefiTarget", "BiosSetup", "Diags")
"""Redfish BootSourceOverrideTarget that may be named as the image of a guest."""
MESSAGES: Final[Mapping[str, type[DriverError]]] = {
    "AccessDenied": Denied,
    "ActionNotSupported": Permanent,
    "InsufficientPrivilege": Denied,
    "InternalError": Unknown,
    "NoValidSession": Denied,
    "OperationTimeout": Unknown,
    "ResourceAtUriUnauthorized": Denied,
    "ResourceInStandby": Transient,
    "ResourceInUse": Transient,
    "ResourceMissingAtURI": NotFound,
    "ResourceNotFound": NotFound,
    "ServiceInUnknownState": Transient,
    "ServiceShuttingDown": Transient,
    "ServiceTemporarilyUnavailable": Transient,
    "SessionLimitExceeded": Transient,
}
"""Names of messages of Redfish's base registry by class; an answer with none of them is classed by its status."""


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: ``endpoint``, a service all of whose systems are nodes by their names; or ``systems``, the URL of each
    system by the name of its node. ``username`` and ``password``; ``ca_file`` with certificates, or ``insecure`` to
    check none. ``marks``: a folder (absolute) that says whose each machine is; installations that share machines share
    it. ``boot``: the device that machines boot from once when they are made. ``vcpus``, ``memory_mb`` and ``disk_gb``
    of machines that do not report them. ``shutdown_seconds`` that a machine has to shut down before it is switched
    off."""

    marks: str
    endpoint: str = ""
    systems: dict[str, str] = {}
    username: str | None = None
    password: str = ""
    ca_file: str | None = None
    insecure: bool = False
    boot: str = "Pxe"
    vcpus: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    disk_gb: Annotated[int, msgspec.Meta(ge=0)] = 0
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 120.0
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=256)] = 20


class Machine(NamedTuple):
    """A system as its service reports it; ``state`` is None if it does not answer."""

    node: str
    url: str
    vcpus: int
    memory_mb: int
    state: GuestState | None
    etag: str = ""


class Claimed(NamedTuple):
    """What the mark file of a node says."""

    node: str
    mark: Mark
    name: str


class Marks:
    """A folder with one file for each machine that is in use. Files are made whole, and only where none is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = trio.CapacityLimiter(4)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads)
        except OSError as error:
            raise Transient(f"the marks cannot be read or written: {error}", backend_code=str(error.errno)) from error

    def _file(self, node: str) -> Path:
        return self._folder / f"{quote(node, safe='')}.mark"

    async def all(self) -> dict[str, Claimed]:
        """By node."""
        return await self._run(self._all)

    def _all(self) -> dict[str, Claimed]:
        found = {}
        for path in self._folder.glob("*.mark"):
            with suppress(FileNotFoundError):  # removed meanwhile
                first, _, name = path.read_text(encoding="utf-8").partition("\n")
                mark, node = Mark.parse(first), unquote(path.stem)
                if mark is None:
                    raise Permanent(f"{path} is no mark file", hint="remove it if the machine is free")
                found[node] = Claimed(node, mark, name)
        return found

    async def claim(self, new: Claimed) -> Claimed:
        """Whose the machine is now: the new one's, unless it was another's."""
        return await self._run(lambda: self._claim(new))

    def _claim(self, new: Claimed) -> Claimed:
        path, part = self._file(new.node), self._folder / f".{secrets.token_hex(8)}.part"
        try:
            with part.open("x", encoding="utf-8") as file:
                file.write(f"{new.mark}\n{new.name}")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(part, path)
        finally:
            part.unlink(missing_ok=True)
        self._sync()
        return self._all().get(new.node, new)

    async def release(self, node: str) -> None:
        """The machine is free."""

        def release() -> None:
            self._file(node).unlink(missing_ok=True)
            self._sync()

        await self._run(release)

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class RedfishDriver:
    """Machines behind one service, or one service each."""

    def __init__(self, http: Http, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._http, self._options, self._installation, self._ongoing = http, options, installation, ongoing
        self._marks = Marks(Path(options.marks))
        self._known: dict[str, str] = {}
        """Where each node was seen; it is checked before it is relied on."""
        self.facts = Facts("redfish", "1", Can.COMPUTE, options.poll, options.concurrency, TIMEOUT)

    async def _call(self, method: str, url: str, body: Any = None, *, etag: str = "") -> httpx.Response:
        headers = {"If-Match": etag} if etag else {}
        answer = await self._http.send(method, url, json=body, headers=headers)
        if not answer.is_success:
            raise error_of(answer)
        return answer

    async def check(self) -> None:
        """Ask the service, or the first machine that has one of its own."""
        systems = self._options.systems
        await self._call("GET", next(iter(systems.values())) if systems else SYSTEMS)

    # what there is

    async def _urls(self) -> list[tuple[str | None, str]]:
        """The systems by node name, which is None where the system has to be asked for it."""
        if self._options.systems:
            return [(name, url) for name, url in sorted(self._options.systems.items())]
        found, url = list[tuple[str | None, str]](), SYSTEMS
        while url:
            page = object_of(await self._call("GET", url))
            try:
                found += [(None, str(each["@odata.id"])) for each in page["Members"]]
            except (LookupError, TypeError) as error:  # which must not pass for an empty listing
                raise Transient(f"the answer has no list of systems: {str(page)[:LONGEST_TEXT]}") from error
            url = page.get("Members@odata.nextLink", "")
        return found

    async def _machines(self) -> list[Machine]:
        """All machines; those with a service of their own may be silent."""
        urls, machines = await self._urls(), list[Machine]()
        for first in range(0, len(urls), PAGE):
            part = urls[first : first + PAGE]
            found: dict[str, Machine | DriverError | None] = {}
            async with trio.open_nursery() as nursery:
                for name, url in part:
                    nursery.start_soon(self._ask, name, url, found)
            for _, url in part:
                each = found[url]
                if isinstance(each, DriverError):
                    raise each
                if each is not None:
                    machines.append(each)
        self._known.update((each.node, each.url) for each in machines)
        return machines

    async def _ask(self, name: str | None, url: str, found: dict[str, Machine | DriverError | None]) -> None:
        """Note what a system is, why it could not be asked, or None for one that went away meanwhile."""
        try:
            found[url] = await self._machine(name, url)
        except DriverError as error:
            silent = name is not None and isinstance(error, Transient | Unknown)
            gone = name is None and isinstance(error, NotFound)
            found[url] = None if gone else error
            if silent:
                found[url] = Machine(str(name), url, 0, 0, None)

    async def _machine(self, name: str | None, url: str) -> Machine:
        answer = await self._call("GET", url)
        body, options = object_of(answer), self._options
        vcpus = (body.get("ProcessorSummary") or {}).get("LogicalProcessorCount")
        vcpus = vcpus or (body.get("ProcessorSummary") or {}).get("Count") or options.vcpus
        gib = (body.get("MemorySummary") or {}).get("TotalSystemMemoryGiB")
        memory_mb = int(gib * MIB_PER_GIB) if gib else options.memory_mb
        state = STATES.get(str(body.get("PowerState")), "error")
        node = name if name is not None else str(body.get("Name") or body.get("Id"))
        etag = answer.headers.get("ETag", "")
        return Machine(node, str(answer.request.url), int(vcpus), memory_mb, state, etag)

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The machines. One that is claimed, or on, is used as a whole."""
        claimed, disk_gb = await self._marks.all(), self._options.disk_gb
        nodes = []
        for each in await self._machines():
            busy = each.node in claimed or each.state not in ("off", None)
            used = (each.vcpus, each.memory_mb, disk_gb) if busy else (0, 0, 0)
            state: Any = "down" if each.state is None else "up"
            nodes.append(Node(each.node, each.vcpus, each.memory_mb, disk_gb, *used, state, "bare metal"))
        yield Page(tuple(nodes))

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """The machines that are claimed, and those that are on and not claimed."""
        claimed = await self._marks.all()
        busy = [
            self._guest(each, claimed.get(each.node))
            for each in await self._machines()
            if each.node in claimed or each.state not in ("off", None)
        ]
        yield Page(tuple(busy))

    def _guest(self, machine: Machine, claimed: Claimed | None) -> Guest:
        mark, name = (None, machine.node) if claimed is None else (claimed.mark, claimed.name)
        state = machine.state or "error"
        return Guest(machine.node, mark, name, machine.node, state, machine.vcpus, machine.memory_mb)

    async def get_guest(self, uuid: str) -> Guest:
        """Look a machine up by its mark."""
        claimed = await self._claimed(uuid)
        return self._guest(await self._by_name(claimed.node), claimed)

    async def _claimed(self, uuid: str) -> Claimed:
        for each in (await self._marks.all()).values():
            if (each.mark.installation, each.mark.uuid) == (self._installation, uuid):
                return each
        raise NotFound(f"there is no machine of guest {uuid}")

    async def _by_name(self, node: str) -> Machine:
        """The machine of a node. NotFound if there is none."""
        if self._options.systems:
            if node not in self._options.systems:
                raise NotFound(f"there is no node {node}")
            return await self._machine(node, self._options.systems[node])
        if node in self._known:
            with suppress(NotFound):
                machine = await self._machine(None, self._known[node])
                if machine.node == node:
                    return machine
        for machine in await self._machines():
            if machine.node == node:
                return machine
        raise NotFound(f"there is no node {node}")

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Claim a machine, and switch it on from its boot device."""
        if want.volumes or want.networks or want.user_data:
            raise Permanent("machines get their volumes, networks and user data from what they boot")
        if (want.image or self._options.boot) not in BOOT_TARGETS:
            raise Permanent(f"image {want.image} is no boot device", hint=f"use one of {', '.join(BOOT_TARGETS)}")
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: GuestSpec) -> Guest:
        machine, uuid = await self._by_name(want.node), want.mark.uuid
        claimed = next((each for each in (await self._marks.all()).values() if each.mark.uuid == uuid), None)
        fits = machine.vcpus >= want.vcpus and machine.memory_mb >= want.memory_mb
        if claimed is None:
            if not fits:
                raise Permanent(f"node {want.node} has {machine.vcpus} CPUs and {machine.memory_mb} MiB")
            if machine.state != "off" and want.node not in await self._marks.all():
                raise Capacity(f"node {want.node} is on, and not by Hostler")
            claimed = await self._marks.claim(Claimed(want.node, want.mark, want.name))
            if claimed.mark.uuid != uuid:
                raise Capacity(f"node {want.node} is taken by another guest")
        if (claimed.mark, claimed.node) != (want.mark, want.node) or not fits:
            raise Conflict(f"guest {uuid} exists with another claim, node or size")
        if want.power == "on" and machine.state != "on":
            await self._boot_from(machine, want.image or self._options.boot)
            await self._reset(machine, "On")
            machine = await self._until(machine, "on")
        return self._guest(machine, claimed)

    async def _boot_from(self, machine: Machine, target: str) -> None:
        if target != "None":
            boot = {"BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": "Once"}
            await self._call("PATCH", machine.url, {"Boot": boot}, etag=machine.etag)

    async def _reset(self, machine: Machine, kind: str) -> None:
        await self._call("POST", f"{machine.url}/{RESET}", {"ResetType": kind})

    async def _until(self, machine: Machine, state: GuestState) -> Machine:
        return await look_until(lambda: self._machine(machine.node, machine.url), lambda found: found.state == state)

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Switch a machine on; or ask it to shut down, and switch it off if it does not."""
        return await self._ongoing.run(uuid, lambda: self._set_power(uuid, want))

    async def _set_power(self, uuid: str, want: Power) -> Guest:
        claimed = await self._claimed(uuid)
        machine = await self._by_name(claimed.node)
        if machine.state != want:
            if want == "on":
                await self._reset(machine, "On")
            else:
                await self._reset(machine, "GracefulShutdown")
                with trio.move_on_after(self._options.shutdown_seconds):
                    return self._guest(await self._until(machine, "off"), claimed)
                await self._reset(machine, "ForceOff")
            machine = await self._until(machine, want)
        return self._guest(machine, claimed)

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Switch a machine off, and give it back."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        try:
            claimed = await self._claimed(uuid)
        except NotFound:
            return
        if claim not in (None, claimed.mark.claim):
            return
        with suppress(NotFound):  # the machine itself is gone
            machine = await self._by_name(claimed.node)
            if machine.state != "off":
                await self._reset(machine, "ForceOff")
                await self._until(machine, "off")
        await self._marks.release(claimed.node)


def error_of(answer: httpx.Response) -> DriverError:
    """The error for an answer of a Redfish service: by its message, else by its status."""
    text, kind = "", None
    with suppress(DriverError):
        error = object_of(answer).get("error")
        if isinstance(error, dict):
            text = str(error.get("message", ""))
            more = error.get("@Message.ExtendedInfo")
            for each in [error, *(more if isinstance(more, list) else [])]:
                name = str(each.get("MessageId") or each.get("code") or "").rpartition(".")[2]
                kind = kind or MESSAGES.get(name)
                text = str(each.get("Message") or text)
    reads = answer.request.method == "GET"
    if kind is Unknown and reads:
        kind = Transient
    code = str(answer.status_code)
    if kind is Transient:
        return Transient(text, after=retry_after(answer), backend_code=code)
    return failure_of(answer, text) if kind is None else kind(text, backend_code=code)


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[RedfishDriver]:
    """Machines whose service answers."""
    settings = read_options(options, Options)
    if bool(settings.endpoint) == bool(settings.systems):
        raise InvalidValue("either endpoint or systems is needed", field="options.endpoint")
    if not await trio.to_thread.run_sync(Path(settings.marks).is_dir):
        raise InvalidValue(f"{settings.marks} is no folder", field="options.marks")
    verify = tls_of(settings.ca_file, settings.insecure)
    auth = None if settings.username is None else (settings.username, settings.password)
    endpoint = urljoin(settings.endpoint, "/") if settings.endpoint else ""
    async with (
        open_http(endpoint, concurrency=settings.concurrency, auth=auth, verify=verify) as http,
        open_ongoing(TIMEOUT) as ongoing,
    ):
        driver = RedfishDriver(http, settings, context.installation, ongoing)
        await driver.check()
        yield driver
