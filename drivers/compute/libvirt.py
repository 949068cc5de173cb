"""KVM and QEMU by libvirt: one host is one back end. Needs the extra ``libvirt``.

libvirt's calls block, so each runs in a thread. A call that is cancelled goes on in its thread; the next call on the
same guest waits for it there."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Annotated, Any, Final, TypeVar
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import libvirt
import msgspec
import trio

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

T = TypeVar("T")
NAMESPACE: Final = "urn:hostler:guest:1"
KIB_PER_MIB: Final = 1_024
GIB: Final = 2**30
CLOSE_SECONDS: Final = 30.0
"""How long calls that were cancelled may take to end before the connection is closed."""

ERRORS: Final[Mapping[int, type[DriverError]]] = {
    1: Unknown,  # VIR_ERR_INTERNAL_ERROR: anything; the text says more
    3: Permanent,  # VIR_ERR_NO_SUPPORT
    5: Transient,  # VIR_ERR_NO_CONNECT
    7: Transient,  # VIR_ERR_INVALID_CONN... of a connection that is gone
    8: Permanent,  # VIR_ERR_INVALID_ARG
    9: Conflict,  # VIR_ERR_OPERATION_FAILED: "already exists", "already defined"
    27: Permanent,  # VIR_ERR_XML_ERROR
    29: Denied,  # VIR_ERR_OPERATION_DENIED
    38: Transient,  # VIR_ERR_SYSTEM_ERROR
    39: Unknown,  # VIR_ERR_RPC: the request may have been sent
    42: NotFound,  # VIR_ERR_NO_DOMAIN
    43: NotFound,  # VIR_ERR_NO_NETWORK
    45: Denied,  # VIR_ERR_AUTH_FAILED
    49: NotFound,  # VIR_ERR_NO_STORAGE_POOL
    50: NotFound,  # VIR_ERR_NO_STORAGE_VOL
    55: Conflict,  # VIR_ERR_OPERATION_INVALID: "already running", "not running"
    67: Permanent,  # VIR_ERR_CONFIG_UNSUPPORTED
    68: Unknown,  # VIR_ERR_OPERATION_TIMEOUT
    78: Transient,  # VIR_ERR_OPERATION_ABORTED
    84: Permanent,  # VIR_ERR_OPERATION_UNSUPPORTED
    86: Transient,  # VIR_ERR_AGENT_UNRESPONSIVE
    88: Denied,  # VIR_ERR_ACCESS_DENIED
    90: Conflict,  # VIR_ERR_STORAGE_VOL_EXIST
}
"""libvirt's error codes (virErrorNumber) by class; others are of unknown outcome."""
FULL: Final = re.compile("cannot allocate memory|no space left|insufficient (memory|space)", re.IGNORECASE)
"""Texts of the codes above that mean a lack of room."""

STATES: Final[Mapping[int, GuestState]] = {
    0: "error",
    1: "on",
    2: "on",
    3: "paused",
    4: "on",
    5: "off",
    6: "off",
    7: "on",
}
"""virDomainState: none, running, blocked, paused, shutting down, shut off, crashed, suspended by its power
management."""


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: the connection ``uri``; the ``node`` name (default: the host's); the ``domain_type`` (kvm, qemu, or the
    connection's own); the ``machine`` type; the libvirt storage ``pool`` for root disks, without which guests have
    none; ``shutdown_seconds`` that a guest has to shut down before it is switched off."""

    uri: str = "qemu:///system"
    node: str | None = None
    domain_type: str | None = None
    machine: str | None = None
    pool: str | None = None
    poll: Annotated[float, msgspec.Meta(gt=0)] = 15.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0


class LibvirtDriver:
    """A host. ``connection`` is used in threads only."""

    def __init__(self, connection: Any, options: Options, installation: str) -> None:
        self._connection, self._options, self._installation = connection, options, installation
        self._threads = trio.CapacityLimiter(options.concurrency)
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._reopening = threading.Lock()
        self._type = str(connection.getType()).lower()
        self.node = options.node or str(connection.getHostname())
        version = str(connection.getLibVersion())
        self.facts = Facts("libvirt", version, Can.COMPUTE, options.poll, options.concurrency, timeout=300.0)

    # threads

    async def _run(self, work: Callable[[Any], T], uuid: str = "") -> T:
        """Do work on the connection in a thread, after what was begun before for the same guest."""

        def in_thread() -> T:
            with self._locks[uuid] if uuid else nullcontext():
                try:
                    return work(self._connected())
                except libvirt.libvirtError as error:
                    raise _as_ours(error) from error

        return await trio.to_thread.run_sync(in_thread, abandon_on_cancel=True, limiter=self._threads)

    def _connected(self) -> Any:
        """The connection, opened again if it is dead."""
        with self._reopening:
            if not self._connection.isAlive():
                with suppress(libvirt.libvirtError):
                    self._connection.close()
                self._connection = _connect(self._options.uri)
            return self._connection

    async def aclose(self) -> None:
        """Close the connection once no thread uses it."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            for _ in range(self._options.concurrency):
                await self._threads.acquire_on_behalf_of(object())
            with suppress(libvirt.libvirtError):
                await trio.to_thread.run_sync(self._connection.close)

    async def check(self) -> None:
        """Ask for the library's version on the host."""
        await self._run(lambda connection: connection.getLibVersion())

    # what there is

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The host."""
        yield Page((await self._run(self._node),))

    def _node(self, connection: Any) -> Node:
        info = connection.getInfo()
        memory_mb = int(info[1])
        with suppress(libvirt.libvirtError):  # the test driver has none
            memory_mb = int(connection.getMemoryStats(-1)["total"]) // KIB_PER_MIB
        guests = self._listed(connection)
        total_gb = used_gb = 0
        if self._options.pool is not None:
            _, capacity, _, available = connection.storagePoolLookupByName(self._options.pool).info()
            total_gb = capacity // GIB
            used_gb = total_gb - available // GIB
        used = sum(each.vcpus for each in guests), sum(each.memory_mb for each in guests)
        return Node(self.node, int(info[2]), memory_mb, total_gb, *used, used_gb, hypervisor=self._type.upper())

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """All domains, in one page."""
        yield Page(tuple(await self._run(self._listed)))

    def _listed(self, connection: Any) -> list[Guest]:
        found = []
        for domain in connection.listAllDomains():
            with suppress(libvirt.libvirtError):  # it went away meanwhile
                found.append(self._seen(domain))
        return found

    def _seen(self, domain: Any) -> Guest:
        tree = ElementTree.fromstring(domain.XMLDesc())
        marked = tree.find(f"metadata/{{{NAMESPACE}}}guest")
        mark = None if marked is None else Mark.parse(marked.get("mark", ""))
        memory = tree.findtext("memory", "0")
        uuid = domain.UUIDString()
        return Guest(
            key=uuid,
            mark=mark if mark is not None and mark.uuid == uuid else None,
            name=tree.findtext("title") or domain.name(),
            node=self.node,
            state=STATES.get(domain.state()[0], "error"),
            vcpus=int(tree.findtext("vcpu", "0")),
            memory_mb=-(-int(memory) // KIB_PER_MIB),
        )

    async def get_guest(self, uuid: str) -> Guest:
        """Look a domain up by its uuid, which is the guest's."""
        return await self._run(lambda connection: self._seen(self._domain(connection, uuid)), uuid)

    def _domain(self, connection: Any, uuid: str) -> Any:
        """The domain of a guest of this installation. NotFound if there is none."""
        domain = connection.lookupByUUIDString(uuid)
        mark = self._seen(domain).mark
        if mark is None or mark.installation != self._installation:
            raise NotFound(f"domain {uuid} is not of this installation")
        return domain

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Define a domain and start it. A domain that was defined before a crash is started."""
        if want.volumes:
            raise Permanent("this driver attaches no volumes")
        if (want.image or want.disk_gb) and self._options.pool is None:
            raise Permanent("guests have no disk: the back end has no storage pool", hint="set the option pool")
        if want.node != self.node:
            raise NotFound(f"there is no node {want.node}")
        return await self._run(lambda connection: self._create(connection, want), want.mark.uuid)

    def _create(self, connection: Any, want: GuestSpec) -> Guest:
        domain = None
        try:
            domain = connection.lookupByUUIDString(want.mark.uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
        if domain is None:
            disk = self._make_disk(connection, want)
            domain = connection.defineXML(self._xml(want, disk))
        else:
            found = self._seen(domain)
            if (found.mark, found.vcpus, found.memory_mb) != (want.mark, want.vcpus, want.memory_mb):
                raise Conflict(f"domain {want.mark.uuid} exists with another claim or size")
        if want.power == "on" and not domain.isActive():
            domain.create()
        return self._seen(domain)

    def _make_disk(self, connection: Any, want: GuestSpec) -> str | None:
        """The path of the root disk, made where it is missing; None for a guest without one."""
        if self._options.pool is None or not (want.image or want.disk_gb):
            return None
        pool, name = connection.storagePoolLookupByName(self._options.pool), _disk_name(want.mark)
        try:
            return str(pool.storageVolLookupByName(name).path())
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_STORAGE_VOL:
                raise
        backing, size = "", want.disk_gb * GIB
        if want.image:
            image = pool.storageVolLookupByName(want.image)
            size = max(size, int(image.info()[1]))
            form = ElementTree.fromstring(image.XMLDesc()).find("target/format")
            kind = "raw" if form is None else form.get("type", "raw")
            backing = (
                f"<backingStore><path>{escape(image.path())}</path><format type={quoteattr(kind)}/></backingStore>"
            )
        xml = (
            f"<volume><name>{name}</name><capacity unit='bytes'>{size}</capacity><allocation>0</allocation>"
            f"<target><format type='qcow2'/></target>{backing}</volume>"
        )
        return str(pool.createXML(xml).path())

    def _xml(self, want: GuestSpec, disk: str | None) -> str:
        kind = self._options.domain_type or ("test" if self._type == "test" else "kvm")
        machine = f" machine={quoteattr(self._options.machine)}" if self._options.machine else ""
        title = re.sub(r"[^ -\ud7ff\ue000-\ufffd]", "?", want.name)
        devices = [
            f"<interface type='network'><source network={quoteattr(name)}/></interface>" for name in want.networks
        ]
        if disk is not None:
            devices.append(
                f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file={quoteattr(disk)}/>"
                "<target dev='vda' bus='virtio'/></disk>"
            )
        if self._type != "test":
            devices.append("<serial type='pty'/><console type='pty'/>")
        return (
            f"<domain type={quoteattr(kind)}><name>hostler-{want.mark.uuid}</name><uuid>{want.mark.uuid}</uuid>"
            f"<title>{escape(title)}</title>"
            f"<metadata><h:guest xmlns:h='{NAMESPACE}' mark={quoteattr(str(want.mark))}/></metadata>"
            f"<memory unit='MiB'>{want.memory_mb}</memory><vcpu>{want.vcpus}</vcpu>"
            f"<os><type{machine}>hvm</type></os><devices>{''.join(devices)}</devices></domain>"
        )

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Start a domain; or ask it to shut down, and switch it off if it does not."""
        if want == "on":
            return await self._run(lambda connection: self._start(connection, uuid), uuid)
        found = await self._run(lambda connection: self._shut_down(connection, uuid), uuid)
        with trio.move_on_after(self._options.shutdown_seconds):
            while found.state != "off":
                await trio.sleep(0.2)
                found = await self.get_guest(uuid)
        if found.state == "off":
            return found
        return await self._run(lambda connection: self._switch_off(connection, uuid), uuid)

    def _start(self, connection: Any, uuid: str) -> Guest:
        domain = self._domain(connection, uuid)
        if not domain.isActive():
            domain.create()
        return self._seen(domain)

    def _shut_down(self, connection: Any, uuid: str) -> Guest:
        domain = self._domain(connection, uuid)
        if domain.isActive():
            with suppress(libvirt.libvirtError):  # it may not listen: it is switched off later
                domain.shutdown()
        return self._seen(domain)

    def _switch_off(self, connection: Any, uuid: str) -> Guest:
        domain = self._domain(connection, uuid)
        if domain.isActive():
            domain.destroy()
        return self._seen(domain)

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Switch a domain off, undefine it, and remove its disk."""
        await self._run(lambda connection: self._delete(connection, uuid, claim), uuid)

    def _delete(self, connection: Any, uuid: str, claim: int | None) -> None:
        with suppress(NotFound):
            domain = _found(lambda: self._domain(connection, uuid))
            mark = self._seen(domain).mark
            if mark is not None and claim in (None, mark.claim):
                if domain.isActive():
                    domain.destroy()
                domain.undefineFlags(self._undefine_flags())
        if self._options.pool is not None:
            pool = connection.storagePoolLookupByName(self._options.pool)
            for name in pool.listVolumes():
                found = _DISK.fullmatch(name)
                if found and (found[1], found[2]) == (self._installation, uuid) and claim in (None, int(found[3])):
                    pool.storageVolLookupByName(name).delete()

    def _undefine_flags(self) -> int:
        flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        if self._type != "test":
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        return int(flags)


_DISK: Final = re.compile(r"hostler_([0-9a-z-]+)_([0-9a-f-]{36})_(\d+)\.qcow2")


def _disk_name(mark: Mark) -> str:
    return f"hostler_{mark.installation}_{mark.uuid}_{mark.claim}.qcow2"


def _found(work: Callable[[], T]) -> T:
    try:
        return work()
    except libvirt.libvirtError as error:
        raise _as_ours(error) from error


def _as_ours(error: libvirt.libvirtError) -> DriverError:
    code, text = error.get_error_code(), str(error)
    kind = Capacity if FULL.search(text) else ERRORS.get(code, Unknown)
    return kind(text, backend_code=str(code))


_loop = threading.Lock()
_looping = False


def _run_event_loop() -> None:
    """Have libvirt's event loop run, without which connections notice no dead peer. It has to be registered before the
    first connection of the process."""
    global _looping
    with _loop:
        if _looping:
            return
        libvirt.virEventRegisterDefaultImpl()
        _looping = True

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()


def _connect(uri: str) -> Any:
    _run_event_loop()
    connection = _found(lambda: libvirt.open(uri))
    with suppress(libvirt.libvirtError):  # local connections need none
        connection.setKeepAlive(5, 3)
    return connection


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[LibvirtDriver]:
    """A connection to one host."""
    settings = read_options(options, Options)
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; they need not be printed as well
    connection = await trio.to_thread.run_sync(_connect, settings.uri)
    driver = await trio.to_thread.run_sync(
        lambda: _found(lambda: LibvirtDriver(connection, settings, context.installation))
    )
    try:
        yield driver
    finally:
        await driver.aclose()
