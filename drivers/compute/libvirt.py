"""KVM and QEMU by libvirt: one host, or several between which guests move. Needs the extra ``libvirt``.

libvirt's calls block, so each runs in a thread. A call that is cancelled goes on in its thread; the next call on the
same guest waits for it there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from xml.etree import ElementTree

import libvirt
import trio

from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Connection,
    ConsoleAddress,
    DriverContext,
    DriverError,
    Guest,
    GuestSpec,
    Mark,
    NotFound,
    Page,
    Permanent,
    Power,
    Snapshot,
    Transient,
    Unknown,
    read_options,
)
from .libvirt_disks import DISK, make_disk, make_seed
from .libvirt_domain import console_of, defined_xml, let_go, present, resized_xml, set_mark, tree_of
from .libvirt_host import Host, as_ours, connected
from .libvirt_reading import LibvirtReader, Options, unnamed
from .libvirt_snapshots import image_of, listed, make_image, remove_image
from .libvirt_xml import check_spec, domain_xml, free_target, mark_of, volume_xml, volumes_of

T = TypeVar("T")


class LibvirtDriver(LibvirtReader):
    """Changes of guests on one host or several."""

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
            screen, machine = self._options.vnc, self._options.machine
            xml = domain_xml(want, kind=kind, machine=machine, disk=disk, seed=seed, real=real, vnc=screen)
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

    async def resize_guest(self, uuid: str, vcpus: int, memory_mb: int) -> Guest:
        """Define a domain with another size; one that runs is shut down for it."""
        found = await self.get_guest(uuid)
        if (found.vcpus, found.memory_mb) == (vcpus, memory_mb):
            return found
        if found.state != "off":
            await self.set_power(uuid, "off")
        return await self._run(lambda: self._resize(uuid, vcpus, memory_mb, start=found.state != "off"), uuid)

    def _resize(self, uuid: str, vcpus: int, memory_mb: int, *, start: bool) -> Guest:
        host, domain = self._domain(uuid)
        with host.asked():
            if domain.isActive():
                raise Conflict(f"domain {uuid} runs")
            before = defined_xml(domain)
            domain = host.connection().defineXML(resized_xml(domain, vcpus, memory_mb))
            if start:
                try:
                    domain.create()
                except libvirt.libvirtError as error:
                    raise _put_back(host, before, error) from error
            return self._seen(host, domain)

    async def console(self, uuid: str) -> ConsoleAddress:
        """The screen of a domain, or its serial line."""
        return await self._run(lambda: self._console(uuid), uuid)

    def _console(self, uuid: str) -> ConsoleAddress:
        host, domain = self._domain(uuid)
        with host.asked():
            if not domain.isActive():
                raise Conflict(f"domain {uuid} does not run")
            return console_of(domain, host.name, host.uri)

    # snapshots

    async def snapshots(self) -> AsyncIterator[Page[Snapshot]]:
        """The images in the storage pool, which all hosts share."""
        yield Page(tuple(await self._run(lambda: self._on_pool(lambda pool: list(listed(pool))))))

    async def get_snapshot(self, uuid: str) -> Snapshot:
        """Look an image up by its name."""
        return await self._run(lambda: self._on_pool(lambda pool: image_of(pool, self._installation, uuid)), uuid)

    async def snapshot_guest(self, guest: str, mark: Mark, name: str) -> Snapshot:
        """Copy the disk of a domain."""
        return await self._run(lambda: self._snapshot(guest, mark), guest)

    def _snapshot(self, guest: str, mark: Mark) -> Snapshot:
        if self._options.pool is None:
            raise Permanent("the back end has no storage pool for snapshots", hint="set the option pool")
        host, domain = self._domain(guest)
        with host.asked():
            pool = host.connection().storagePoolLookupByName(self._options.pool)
            return make_image(host.connection(), pool, domain, mark, real=self._type != "test")

    async def delete_snapshot(self, uuid: str, claim: int | None = None) -> None:
        """Remove an image."""
        await self._run(lambda: self._on_pool(lambda pool: remove_image(pool, self._installation, uuid, claim)), uuid)

    def _on_pool(self, work: Callable[[Any], T]) -> T:
        """Work on the storage pool, by the first host that answers."""
        lost = list[DriverError]()
        for host in self._hosts.values():
            try:
                with host.asked():
                    return work(host.connection().storagePoolLookupByName(self._options.pool or ""))
            except (Transient, Unknown) as error:
                lost.append(error)
        raise unnamed(lost[0]) from lost[0].__cause__

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
            target.connection().defineXML(defined_xml(domain))
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


def _put_back(host: Host, before: str, error: libvirt.libvirtError) -> DriverError:
    """Have a domain that does not start with another size run with that of its definition ``before``. Returns the
    error; where it runs so, one that is final, since it would be stopped again for every further attempt."""
    ours = as_ours(error)
    try:
        host.connection().defineXML(before).create()
    except libvirt.libvirtError:
        return ours  # the guest is off, with one of the two sizes
    return ours if isinstance(ours, Capacity | Permanent) else Permanent(str(error), backend_code=ours.backend_code)


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
        raise cause if isinstance(cause, DriverError) else unnamed(failed[0])
    driver = LibvirtDriver(hosts, settings, context.installation)
    try:
        yield driver
    finally:
        await driver.aclose()


__all__ = ["LibvirtDriver", "Options", "open_driver"]
