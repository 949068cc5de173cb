"""What a driver of libvirt reads: hosts, domains, and which of them are guests of this installation. Changes are in
``libvirt``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, TypeVar
from xml.etree import ElementTree

import libvirt
import msgspec
import trio

from ..protocol import (
    Can,
    DriverError,
    Facts,
    Guest,
    GuestState,
    Node,
    NotFound,
    Page,
    Transient,
    Unknown,
)
from ..threads import Threads
from .libvirt_host import KIB_PER_MIB, Host, leased, used_on
from .libvirt_xml import GIB, mark_of, volumes_of

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
    ``vnc``: the address on which new guests have a screen (none: a serial console only); ``shutdown_seconds`` that a
    guest has to shut down before it is switched off."""

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
    vnc: str | None = None
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0


class LibvirtReader:
    """One host or several, as they are."""

    def __init__(self, hosts: Sequence[Host], options: Options, installation: str) -> None:
        self._hosts, self._options, self._installation = {each.name: each for each in hosts}, options, installation
        self._threads = Threads(options.concurrency)
        for each in hosts:
            each.alone = len(hosts) == 1
        self._type = hosts[0].type
        version = next((each.version for each in hosts if each.version), "")
        can = Can.COMPUTE | Can.ADOPT if self._type == "test" else Can.COMPUTE | Can.ADOPT | Can.ATTACH
        can |= Can.RESIZE | Can.CONSOLE | (Can.SNAPSHOT if options.pool is not None else Can(0))
        if len(hosts) > 1:
            can |= Can.MOVE
        self.facts = Facts("libvirt", version, can, options.poll, options.concurrency, timeout=300.0)

    # threads

    async def _run(self, work: Callable[[], T], uuid: str = "") -> T:
        """Do work in a thread, after what was begun before for the same guest."""
        return await self._threads.run(lambda: leased(work), uuid)

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
            raise unnamed(lost)

    # what there is

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The hosts. Of several, one that does not answer is down."""
        lost = list[DriverError]()
        for host in self._hosts.values():
            try:
                host.last_seen = await self._run(lambda host=host: self._node(host))  # type: ignore[misc]  # as above
            except (Transient, Unknown) as error:
                if len(self._hosts) == 1:
                    raise unnamed(error) from error.__cause__
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
            raise unnamed(lost[0]) from lost[0].__cause__

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


def unnamed(error: DriverError) -> DriverError:
    """An error of the whole back end, since no host answers."""
    error.nodes = frozenset()
    return error
