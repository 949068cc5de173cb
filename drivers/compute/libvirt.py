"""KVM and QEMU by libvirt: one host, or several between which guests move. Needs the extra ``libvirt``.

libvirt's calls block, so each runs in a thread. A call that is cancelled goes on in its thread; the next call on the
same guest waits for it there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Final, TypeVar
from xml.etree import ElementTree

import libvirt
import msgspec
import trio

from ..protocol import (
    Can,
    Conflict,
    Connection,
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
from ..threads import Threads
from .libvirt_disks import DISK, make_disk, make_seed
from .libvirt_domain import let_go, present, set_mark, tree_of
from .libvirt_host import KIB_PER_MIB, Host, connected, guarded, used_on
from .libvirt_xml import GIB, check_spec, domain_xml, free_target, mark_of, volume_xml, volumes_of

T = TypeVar("T")
CLOSE_SECONDS: Final = 30.0
"""How long calls that were cancelled may take to end before the connection is closed."""

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
    """Options: the connection ``uri`` and the ``node`` name (default: the host's), or several ``hosts`` (node name ->
    uri) between which guests move, with the ``migration_uris`` of those that others reach under another name than
    libvirt tells; the ``domain_type`` (kvm, qemu, or the connection's own); the ``machine`` type; the libvirt storage
    ``pool`` for root disks, without which guests have none (of several hosts it is one that all of them share);
    ``unsafe_migration``: move guests live although libvirt does not know that caches of their disks are coherent;
    ``shutdown_seconds`` that a guest has to shut down before it is switched off."""

    uri: str = "qemu:///system"
    node: str | None = None
    hosts: dict[str, str] = {}
    migration_uris: dict[str, str] = {}
    unsafe_migration: bool = False
    domain_type: str | None = None
    machine: str | None = None
    pool: str | None = None
    poll: Annotated[float, msgspec.Meta(gt=0)] = 15.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0


class LibvirtDriver:
    """One host or several."""

    def __init__(self, hosts: Sequence[Host], options: Options, installation: str) -> None:
        self._hosts, self._options, self._installation = {each.name: each for each in hosts}, options, installation
        self._threads = Threads(options.concurrency)
        for each in hosts:
            each.alone = len(hosts) == 1
        self._type = hosts[0].type
        version = next((each.version for each in hosts if each.version), "")
        can = Can.COMPUTE | Can.ADOPT if self._type == "test" else Can.COMPUTE | Can.ADOPT | Can.ATTACH
        if len(hosts) > 1:
            can |= Can.MOVE
        self.facts = Facts("libvirt", version, can, options.poll, options.concurrency, timeout=300.0)

    # threads

    async def _run(self, work: Callable[[], T], uuid: str = "") -> T:
        """Do work in a thread, after what was begun before for the same guest."""
        return await self._threads.run(lambda: guarded(work), uuid)

    async def aclose(self) -> None:
        """Close the connections once no thread uses them."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._threads.ended()
            for host in self._hosts.values():
                await trio.to_thread.run_sync(host.close)

    async def check(self) -> None:
        """Ask each host for the library's version. DriverError if none answers."""
        lost: DriverError | None = None
        for host in self._hosts.values():
            try:
                await self._run(lambda host=host: host.connection().getLibVersion())  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                return
            except (Transient, Unknown) as error:
                lost = error
        if lost is not None:
            raise _unnamed(lost)

    # what there is

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The hosts. Of several, one that does not answer is down."""
        lost = list[DriverError]()
        for host in self._hosts.values():
            try:
                host.last_seen = await self._run(lambda host=host: self._node(host))  # type: ignore[misc]  # as above
            except (Transient, Unknown) as error:
                if len(self._hosts) == 1:
                    raise _unnamed(error) from error.__cause__
                lost.append(error)
                if host.last_seen is not None:
                    host.last_seen = host.last_seen._replace(state="down")
            if host.last_seen is not None:
                yield Page((host.last_seen,))
        self._check_not_all(lost)

    def _node(self, host: Host) -> Node:
        connection = host.connection()
        info = connection.getInfo()
        memory_mb = int(info[1])
        with suppress(libvirt.libvirtError):  # the test driver has none
            memory_mb = int(connection.getMemoryStats(-1)["total"]) // KIB_PER_MIB
        total_gb = used_gb = 0
        if self._options.pool is not None:
            _, capacity, _, available = connection.storagePoolLookupByName(self._options.pool).info()
            total_gb = capacity // GIB
            used_gb = total_gb - available // GIB
        used = used_on(connection)
        return Node(host.name, int(info[2]), memory_mb, total_gb, *used, used_gb, hypervisor=host.type.upper())

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """All domains, a page of each host that answers."""
        lost = list[DriverError]()
        for host in self._hosts.values():
            try:
                yield Page(tuple(await self._run(lambda host=host: self._listed(host))))  # type: ignore[misc]  # as above
            except (Transient, Unknown) as error:
                lost.append(error)
        self._check_not_all(lost)

    def _check_not_all(self, lost: Sequence[DriverError]) -> None:
        """An error if no host answered: then the back end does not."""
        if len(lost) == len(self._hosts):
            raise _unnamed(lost[0]) from lost[0].__cause__

    def _listed(self, host: Host) -> list[Guest]:
        found = []
        for domain in host.connection().listAllDomains():
            with suppress(libvirt.libvirtError):  # it went away meanwhile
                found.append(self._seen(host, domain))
        return found

    def _seen(self, host: Host, domain: Any) -> Guest:
        tree = ElementTree.fromstring(domain.XMLDesc())
        uuid = domain.UUIDString()
        return Guest(
            key=uuid,
            mark=mark_of(tree, uuid),
            name=tree.findtext("title") or domain.name(),
            node=host.name,
            state=STATES.get(domain.state()[0], "error"),
            vcpus=int(tree.findtext("vcpu", "0")),
            memory_mb=-(-int(tree.findtext("memory", "0")) // KIB_PER_MIB),
            volumes=tuple(volumes_of(tree)),
        )

    async def get_guest(self, uuid: str) -> Guest:
        """Look a domain up by its uuid, which is the guest's."""
        return await self._run(lambda: self._seen(*self._domain(uuid)), uuid)

    def _domain(self, uuid: str) -> tuple[Host, Any]:
        """The domain of a guest of this installation, and its host. Of several (one was made when the host of another
        was down, or a move was cut off) the one of the newest claim, and of that the one that runs. NotFound if there
        is none."""
        found, lost = self._domains(uuid)
        if found:
            return max(found, key=lambda each: (self._claim(each[1]), each[1].isActive()))
        self._check_answered(uuid, lost)
        raise NotFound(f"there is no guest {uuid}")

    def _domains(self, uuid: str) -> tuple[list[tuple[Host, Any]], dict[str, DriverError]]:
        """All domains of a guest of this installation, and the errors of hosts that did not answer."""
        found: list[tuple[Host, Any]] = []
        lost = dict[str, DriverError]()
        for host in self._hosts.values():
            try:
                with host.asked():
                    domain = host.domain(uuid)
                    if domain is not None and self._claim(domain) >= 0:
                        found.append((host, domain))
            except (Transient, Unknown) as error:
                lost[host.name] = error
        return found, lost

    def _check_answered(self, uuid: str, lost: Mapping[str, DriverError]) -> None:
        """Transient if a guest may be on hosts that do not answer, which are its ``nodes``."""
        if lost:
            text = "; ".join(str(error) for error in lost.values())
            nodes = lost if len(lost) < len(self._hosts) else ()  # if none answers, the back end does not
            raise Transient(f"guest {uuid} may be on a host that does not answer: {text}"[:1_000], nodes=nodes)

    def _claim(self, domain: Any) -> int:
        """The claim for which a domain was made; -1 if it is not of this installation."""
        mark = mark_of(ElementTree.fromstring(domain.XMLDesc()), domain.UUIDString())
        return mark.claim if mark is not None and mark.installation == self._installation else -1

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Define a domain and start it. A domain that was defined before a crash is started."""
        if want.volumes and Can.ATTACH not in self.facts.can:
            raise Permanent("the test driver attaches no volumes")
        if (want.image or want.disk_gb) and self._options.pool is None:
            raise Permanent("guests have no disk: the back end has no storage pool", hint="set the option pool")
        if want.user_data and (self._options.pool is None or self._type == "test"):
            raise Permanent("this back end has no storage pool for the user data of guests", hint="set the option pool")
        check_spec(want)
        if want.node not in self._hosts:
            raise NotFound(f"there is no node {want.node}")
        return await self._run(lambda: self._create(self._hosts[want.node], want), want.mark.uuid)

    def _create(self, host: Host, want: GuestSpec) -> Guest:
        for other, domain in self._domains(want.mark.uuid)[0]:
            found = self._seen(other, domain)
            if (found.mark, found.vcpus, found.memory_mb) != (want.mark, want.vcpus, want.memory_mb):
                raise Conflict(f"domain {want.mark.uuid} exists on {other.name} with another claim or size")
            if other is not host:
                raise Conflict(f"domain {want.mark.uuid} exists on {other.name}")
        with host.asked():
            return self._create_on(host, want)

    def _create_on(self, host: Host, want: GuestSpec) -> Guest:
        domain = host.domain(want.mark.uuid)
        if domain is None:
            kind = self._options.domain_type or ("test" if self._type == "test" else "kvm")
            disk = make_disk(host.connection(), self._options.pool, want)
            seed = make_seed(host.connection(), self._options.pool, want)
            real = self._type != "test"
            xml = domain_xml(want, kind=kind, machine=self._options.machine, disk=disk, seed=seed, real=real)
            domain = host.connection().defineXML(xml)
        elif self._claim(domain) < 0:
            raise Conflict(f"domain {want.mark.uuid} is not of this installation")
        if want.power == "on" and not domain.isActive():
            domain.create()
        return self._seen(host, domain)

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Start a domain; or ask it to shut down, and switch it off if it does not."""
        if want == "on":
            return await self._run(lambda: self._start(uuid), uuid)
        found = await self._run(lambda: self._shut_down(uuid), uuid)
        with trio.move_on_after(self._options.shutdown_seconds):
            while found.state != "off":
                await trio.sleep(0.2)
                found = await self.get_guest(uuid)
        if found.state == "off":
            return found
        return await self._run(lambda: self._switch_off(uuid), uuid)

    def _start(self, uuid: str) -> Guest:
        host, domain = self._domain(uuid)
        with host.asked():
            if not domain.isActive():
                domain.create()
            return self._seen(host, domain)

    def _shut_down(self, uuid: str) -> Guest:
        host, domain = self._domain(uuid)
        with host.asked():
            if domain.isActive():
                with suppress(libvirt.libvirtError):  # it may not listen: it is switched off later
                    domain.shutdown()
            return self._seen(host, domain)

    def _switch_off(self, uuid: str) -> Guest:
        host, domain = self._domain(uuid)
        with host.asked():
            if domain.isActive():
                domain.destroy()
            return self._seen(host, domain)

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Switch a domain off, undefine it, and remove its disk."""
        await self._run(lambda: self._delete_everywhere(uuid, claim), uuid)

    def _delete_everywhere(self, uuid: str, claim: int | None) -> None:
        found, lost = False, dict[str, DriverError]()
        for host in self._hosts.values():
            try:
                with host.asked():
                    found |= self._delete(host, uuid, claim)
            except (Transient, Unknown) as error:
                lost[host.name] = error
        if not found:  # what a host that is down may have besides is an orphan when it is back
            self._check_answered(uuid, lost)

    def _delete(self, host: Host, uuid: str, claim: int | None) -> bool:
        """Returns whether a domain of this installation was there."""
        domain = host.domain(uuid)
        ours = domain is not None and self._claim(domain) >= 0
        if domain is not None and ours and claim in (None, self._claim(domain)):
            if domain.isActive():
                domain.destroy()
            domain.undefineFlags(self._undefine_flags())
        if self._options.pool is not None:
            pool = host.connection().storagePoolLookupByName(self._options.pool)
            if len(self._hosts) > 1:
                pool.refresh(0)  # another host has made or removed disks in it
            for name in pool.listVolumes():
                found = DISK.fullmatch(name)
                if found and (found[1], found[2]) == (self._installation, uuid) and claim in (None, int(found[3])):
                    pool.storageVolLookupByName(name).delete()
        return ours

    async def adopt_guest(self, key: str, mark: Mark) -> Guest:
        """Write a mark into the metadata of a domain, whose uuid is the guest's."""
        if mark.uuid != key:
            raise Permanent(f"the uuid of domain {key} cannot be {mark.uuid}", hint="leave the uuid out")
        return await self._run(lambda: self._adopt(key, mark), mark.uuid)

    def _adopt(self, uuid: str, mark: Mark) -> Guest:
        lost = dict[str, DriverError]()
        for host in self._hosts.values():
            try:
                with host.asked():
                    domain = host.domain(uuid)
                    if domain is None:
                        continue
                    known = mark_of(ElementTree.fromstring(domain.XMLDesc()), uuid)
                    if known not in (None, mark):
                        raise Conflict(f"domain {uuid} has another mark: {known}")
                    if not domain.isPersistent():
                        raise Permanent(f"domain {uuid} is transient: it is gone once it is stopped")
                    set_mark(domain, mark)
                    return self._seen(host, domain)
            except (Transient, Unknown) as error:
                lost[host.name] = error
        self._check_answered(uuid, lost)
        raise NotFound(f"there is no domain {uuid}")

    async def disown_guest(self, uuid: str, claim: int) -> None:
        """Remove the mark of a domain that was adopted."""
        await self._run(lambda: self._disown(uuid, claim), uuid)

    def _disown(self, uuid: str, claim: int) -> None:
        mark = Mark(self._installation, uuid, claim, adopted=True)
        found, lost = self._domains(uuid)
        for host, domain in found:
            with host.asked():
                if mark_of(ElementTree.fromstring(domain.XMLDesc()), uuid) == mark:
                    set_mark(domain, None)
        if not found:
            self._check_answered(uuid, lost)

    def _undefine_flags(self) -> int:
        flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        if self._type != "test":
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        return int(flags)

    # volumes

    async def attach(self, uuid: str, volume: Connection) -> None:
        """Plug a volume into a domain, running or not."""
        await self._run(lambda: self._attach(uuid, volume), uuid)

    def _attach(self, uuid: str, volume: Connection) -> None:
        _, domain = self._domain(uuid)
        trees = {flag: tree_of(domain, flag) for flag in present(domain)}
        target = free_target(*trees.values())
        for flag, tree in trees.items():
            if volume.volume not in volumes_of(tree):
                domain.attachDeviceFlags(volume_xml(volume, target), flag)

    async def detach(self, uuid: str, volume: str) -> bool:
        """Ask for a volume; libvirt is asked again until the guest has let it go."""
        return await self._run(lambda: self._detach(uuid, volume), uuid)

    def _detach(self, uuid: str, volume: str) -> bool:
        """Returns whether the volume is gone."""
        _, domain = self._domain(uuid)
        for flag in present(domain):
            disk = volumes_of(tree_of(domain, flag)).get(volume)
            if disk is not None:
                let_go(domain, ElementTree.tostring(disk, encoding="unicode"), flag)
        return not any(volume in volumes_of(tree_of(domain, flag)) for flag in present(domain))

    # moves

    async def move_guest(self, uuid: str, node: str, *, live: bool) -> Guest:
        """Migrate a domain live; or shut it down, define it on the other host, and start it there if it ran."""
        if node not in self._hosts:
            raise NotFound(f"there is no node {node}")
        target, ran = self._hosts[node], False
        if not live:
            found = await self.get_guest(uuid)
            ran = found.node != node and found.state != "off"
            if ran:
                await self._run(lambda: target.connection().getLibVersion())  # before the guest is stopped for it
                await self.set_power(uuid, "off")
        return await self._run(lambda: self._move(uuid, target, live=live, start=ran), uuid)

    def _move(self, uuid: str, target: Host, *, live: bool, start: bool) -> Guest:
        source, domain = self._domain(uuid)
        if source is not target and live and domain.isActive():
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
            if self._options.unsafe_migration:
                flags |= libvirt.VIR_MIGRATE_UNSAFE
            there = self._options.migration_uris.get(target.name)
            parameters = {} if there is None else {libvirt.VIR_MIGRATE_PARAM_URI: there}
            domain.migrate3(target.connection(), parameters, flags)
        elif source is not target:
            if domain.isActive():
                raise Conflict(f"domain {uuid} runs")
            target.connection().defineXML(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            domain.undefineFlags(self._undefine_flags())
        else:
            self._remove_left(uuid, domain, target)
        moved = target.connection().lookupByUUIDString(uuid)
        if start and not moved.isActive():
            moved.create()
        return self._seen(target, moved)

    def _remove_left(self, uuid: str, domain: Any, there: Host) -> None:
        """Remove what a move that was cut off has left on its source: the same guest, defined and not running."""
        for host, other in self._domains(uuid)[0]:
            if host is not there and self._claim(other) == self._claim(domain) and not other.isActive():
                other.undefineFlags(self._undefine_flags())


def _unnamed(error: DriverError) -> DriverError:
    """An error of the whole back end, since no host answers."""
    error.nodes = frozenset()
    return error


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[LibvirtDriver]:
    """Connections to the hosts. One of them must answer at first; the others are nodes once they do."""
    settings = read_options(options, Options)
    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; they need not be printed as well
    named: Mapping[str | None, str] = settings.hosts or {settings.node: settings.uri}  # type: ignore[assignment]  # names are texts
    hosts = [Host(uri, name) for name, uri in named.items()]
    for host in hosts:
        host.alone = len(hosts) == 1
    failed = await connected(hosts)
    if len(failed) == len(hosts):
        cause = failed[0].__cause__
        raise cause if isinstance(cause, DriverError) else _unnamed(failed[0])
    driver = LibvirtDriver(hosts, settings, context.installation)
    try:
        yield driver
    finally:
        await driver.aclose()
