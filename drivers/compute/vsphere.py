"""Virtual machines of a vCenter. Nodes are its clusters, and hosts outside of clusters. Needs the extra ``vsphere``.

A guest is a virtual machine with the name ``hostler-UUID``, of which a folder has one, its uuid as the instance's, and
its mark in the extra configuration, all set by the call that makes it. A copy that others make has another uuid, and so
no mark."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import trio
from pyVmomi import vim

from ...placement.types.errors import InvalidValue
from ..ongoing import Ongoing, look_until, open_ongoing
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    DriverContext,
    DriverError,
    Facts,
    Guest,
    GuestSpec,
    Mark,
    Node,
    NotFound,
    Page,
    Permanent,
    Power,
    Quota,
    Snapshot,
    Transient,
    read_options,
)
from . import vsphere_snapshots
from .vsphere_api import LOOK_SECONDS, Found, Session, open_session
from .vsphere_reading import Options, datacenter_of
from .vsphere_specs import disk_grown, new_machine, resized
from .vsphere_values import (
    GIB,
    MACHINE,
    Cluster,
    Version,
    as_node,
    guest_of,
    node_of,
    version_of,
)
from .vsphere_volumes import VsphereVolumes, check_protocol

TIMEOUT: Final = 1_800.0
"""Seconds for one change; copies of large templates take long."""


class VsphereDriver(VsphereVolumes):
    """A vCenter, or one datacenter of it."""

    def __init__(self, session: Session, root: Any, options: Options, installation: str, ongoing: Ongoing) -> None:
        super().__init__(session, root, options, installation, ongoing)
        about = session.content.about
        can = Can.COMPUTE | Can.STORAGE | Can.ATTACH | Can.CHOOSES_HOST | Can.MOVE | Can.RESIZE | Can.SNAPSHOT
        self.facts = Facts("vsphere", f"{about.version}-{about.build}", can, options.poll, options.concurrency, TIMEOUT)

    async def check(self) -> None:
        """Ask for the time."""
        session = self._session
        await session.read(session.time)

    # what there is

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The clusters, with what the hosts that are up have, and what all virtual machines in them take."""
        clusters, used = await self._clusters(), dict[str, tuple[int, int]]()
        async for page in self.guests():
            for guest in page.items:
                vcpus, memory_mb = used.get(guest.node, (0, 0))
                used[guest.node] = vcpus + guest.vcpus, memory_mb + guest.memory_mb
        yield Page(tuple(as_node(name, cluster, used.get(name, (0, 0))) for name, cluster in clusters.items()))

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """All virtual machines but templates, by the pages of the property collector."""
        of_host = {host.ref: name for name, each in (await self._clusters()).items() for host in each.hosts}
        before, seen = set(self._known), set[Version]()
        async with aclosing(
            self._session.objects(vim.VirtualMachine, MACHINE, self._root, self._options.page)
        ) as pages:
            async for page in pages:
                machines = [each for each in page if not each.get("config.template") and "name" in each.properties]
                known = await self._read_known(machines)
                seen.update(known)
                guests = [each for each in machines if not known[version_of(each)].pool]
                here = [each for each in guests if each.get("runtime.host") in of_host]
                yield Page(
                    tuple(guest_of(each, of_host[each.get("runtime.host")], known[version_of(each)]) for each in here)
                )
        for version in before - seen:
            self._known.pop(version, None)

    async def get_guest(self, uuid: str) -> Guest:
        """Look a virtual machine up by its uuid."""
        return (await self._found(uuid))[0]

    async def _found(self, uuid: str) -> tuple[Guest, Found, str]:
        """The guest, its machine, and the size that was wanted. NotFound if this installation has none of that uuid."""
        machine, known = await self._machine(uuid)
        if machine.get("config.template") or known.pool:
            raise NotFound(f"there is no virtual machine of guest {uuid}")
        node = await self._session.read(partial(node_of, machine.get("runtime.host")))
        return guest_of(machine, node, known), machine, known.size

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Make a virtual machine, blank or as a copy of a template, and switch it on."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: GuestSpec) -> Guest:
        uuid, size = want.mark.uuid, f"{want.vcpus}x{want.memory_mb}"
        for volume in want.volumes:
            check_protocol(volume)
        try:
            guest, machine, made_for = await self._found(uuid)
        except NotFound:
            await self._make(want)
            guest, machine, made_for = await self._found(uuid)
        if (guest.mark, guest.node, made_for) != (want.mark, want.node, size):
            raise Conflict(f"guest {uuid} exists with another claim, cluster or size")
        if guest.state == "off" and not guest.volumes:
            await self._fit(want, guest, machine)
        for volume in want.volumes:
            await self._attach(uuid, volume)
        if guest.state == "off":
            if want.power == "on":
                await self._session.done(machine.ref.PowerOnVM_Task)
        elif want.power == "off" and guest.state == "on":
            await self._session.done(machine.ref.PowerOffVM_Task)
        return await self.get_guest(uuid)

    async def _make(self, want: GuestSpec) -> None:
        """Begin with what can be refused, then make the machine. One that was made meanwhile is no error."""
        cluster = (await self._clusters()).get(want.node)
        if cluster is None:
            raise NotFound(f"there is no cluster {want.node}")
        place = cluster.host_and_store(await self._datastores_of(want.volumes))
        if place is None:
            beside = " and those of its volumes" if want.volumes else ""
            raise Capacity(f"cluster {want.node} has no host that is up and reaches a datastore{beside}")
        host, store = place
        if want.disk_gb * GIB > int(store.get("summary.freeSpace", 0)):
            raise Capacity(f"datastore {store.get('name')} has no room for {want.disk_gb} GiB")
        template = await self._template(want.image) if want.image else None
        guest_id, pool = self._options.guest_id, cluster.found.get("resourcePool")

        def begin() -> Any:
            folder = datacenter_of(cluster.found.ref).vmFolder
            spec = new_machine(want, store.get("name"), guest_id, cluster.found.get("network", ()), template is None)
            if template is None:
                return folder.CreateVM_Task(config=spec, pool=pool, host=host.ref)
            where = vim.vm.RelocateSpec(pool=pool, host=host.ref, datastore=store.ref)
            copy = vim.vm.CloneSpec(location=where, config=spec, powerOn=False, template=False)
            return template.ref.CloneVM_Task(folder=folder, name=spec.name, spec=copy)

        with suppress(Conflict):
            await self._session.done(begin)

    async def _fit(self, want: GuestSpec, guest: Guest, machine: Found) -> None:
        """Give a copy of a template the size that is wanted, and its disk at least that."""
        change = vim.vm.ConfigSpec()
        if (guest.vcpus, guest.memory_mb) != (want.vcpus, want.memory_mb):
            change.numCPUs, change.memoryMB = want.vcpus, want.memory_mb
        if want.disk_gb:
            devices = await self._session.read(lambda: machine.ref.config.hardware.device)
            change.deviceChange = disk_grown(devices, want.disk_gb * GIB)
        if change.numCPUs or change.deviceChange:
            await self._session.done(lambda: machine.ref.ReconfigVM_Task(change))

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Switch a guest on; or ask it to shut down, and switch it off if it does not."""
        return await self._ongoing.run(uuid, lambda: self._set_power(uuid, want))

    async def _set_power(self, uuid: str, want: Power) -> Guest:
        guest, machine, _ = await self._found(uuid)
        if want == "on" and guest.state != "on":
            await self._session.done(machine.ref.PowerOnVM_Task)
        elif want == "off" and guest.state != "off":
            await self._switch_off(guest, machine)
        return await self.get_guest(uuid)

    async def _switch_off(self, guest: Guest, machine: Found) -> None:
        uuid, seconds = guest.mark.uuid if guest.mark is not None else "", self._options.shutdown_seconds
        if seconds and guest.state == "on":
            with suppress(Conflict, Permanent), trio.move_on_after(seconds):  # VMware's tools may not be there
                await self._session.change(machine.ref.ShutdownGuest)
                await look_until(lambda: self.get_guest(uuid), lambda now: now.state == "off", seconds=LOOK_SECONDS)
                return
        await self._session.done(machine.ref.PowerOffVM_Task)

    async def resize_guest(self, uuid: str, vcpus: int, memory_mb: int) -> Guest:
        """Change the size of a virtual machine; one that is on is switched off for it."""
        return await self._ongoing.run(uuid, lambda: self._resize(uuid, vcpus, memory_mb))

    async def _resize(self, uuid: str, vcpus: int, memory_mb: int) -> Guest:
        guest, machine, _ = await self._found(uuid)
        if (guest.vcpus, guest.memory_mb) != (vcpus, memory_mb):
            if guest.state != "off":
                await self._switch_off(guest, machine)
            try:
                await self._session.done(lambda: machine.ref.ReconfigVM_Task(resized(vcpus, memory_mb)))
            finally:
                if guest.state == "on":
                    await self._switch_on_resized(machine, guest)
        return await self.get_guest(uuid)

    async def _switch_on_resized(self, machine: Found, before: Guest) -> None:
        """Switch a guest on that was stopped for another size: with the one ``before``, if it cannot run with it."""
        try:
            await self._switch_on_again(machine)
        except (Capacity, Permanent, Quota):
            back = resized(before.vcpus, before.memory_mb)
            with suppress(DriverError):  # else it is off, with one of the two sizes
                await self._session.done(lambda: machine.ref.ReconfigVM_Task(back))
                await self._switch_on_again(machine)
            raise

    async def move_guest(self, uuid: str, node: str, *, live: bool) -> Guest:
        """Relocate a virtual machine to another cluster, its disks too where that reaches them no more."""
        return await self._ongoing.run(uuid, lambda: self._move(uuid, node, live))

    async def _move(self, uuid: str, node: str, live: bool) -> Guest:
        guest, machine, _ = await self._found(uuid)
        cluster = (await self._clusters()).get(node)
        if cluster is None:
            raise NotFound(f"there is no cluster {node}")
        if guest.node != node:
            where = await self._destination(guest, machine, cluster)
            was_on = guest.state == "on"
            if was_on and not live:
                await self._switch_off(guest, machine)
            try:
                await self._session.done(lambda: machine.ref.RelocateVM_Task(where))
            finally:
                if was_on and not live:
                    await self._switch_on_again(machine)
        return await self.get_guest(uuid)

    async def _destination(self, guest: Guest, machine: Found, cluster: Cluster) -> Any:
        """The host of a cluster that a guest moves to; and a datastore, if none reaches those that it is on."""
        uuid, name = machine.get("config.instanceUuid"), cluster.found.get("name")
        stores = set(await self._session.read(lambda: list(machine.ref.datastore)))
        where = vim.vm.RelocateSpec(pool=cluster.found.get("resourcePool"))
        host = cluster.host(stores)
        if host is not None:
            where.host = host.ref
            return where
        if guest.volumes and not stores <= set(cluster.found.get("datastore", ())):
            raise Permanent(f"cluster {name} does not reach all volumes of guest {uuid}")
        if guest.volumes and cluster.usable:
            raise Permanent(f"no host of cluster {name} that is up reaches all volumes of guest {uuid}")
        place = None if guest.volumes else cluster.host_and_store(())
        if place is None:
            raise Capacity(f"cluster {name} has no host that is up and reaches a datastore")
        where.host, where.datastore = place[0].ref, place[1].ref
        return where

    async def _switch_on_again(self, machine: Found) -> None:
        """Switch a guest on that was stopped for a move, once the move has ended, however it did."""
        while True:
            try:
                await self._session.done(machine.ref.PowerOnVM_Task)
            except Transient:  # the machine is still being moved
                await trio.sleep(LOOK_SECONDS)
            except Conflict:
                return  # it is on
            else:
                return

    # snapshots

    async def snapshots(self) -> AsyncIterator[Page[Snapshot]]:
        """The templates that were made of guests."""
        templates = [each for each in await self._all(vim.VirtualMachine, MACHINE) if each.get("config.template")]
        known = (await self._read_known(templates)).values()
        yield Page(tuple(vsphere_snapshots.seen(each.mark, each.name) for each in known if each.mark is not None))

    async def get_snapshot(self, uuid: str) -> Snapshot:
        """Look a template up by its uuid."""
        return (await self._found_template(uuid))[0]

    async def _found_template(self, uuid: str) -> tuple[Snapshot, Found]:
        machine, known = await self._machine(uuid)
        if known.mark is None or not machine.get("config.template"):
            raise NotFound(f"there is no snapshot {uuid}")
        return vsphere_snapshots.seen(known.mark, known.name), machine

    async def snapshot_guest(self, guest: str, mark: Mark, name: str) -> Snapshot:
        """Copy a virtual machine to a template, running or not."""
        return await self._ongoing.run(mark.uuid, lambda: self._snapshot(guest, mark, name))

    async def _snapshot(self, guest: str, mark: Mark, name: str) -> Snapshot:
        with suppress(NotFound):
            made = await self.get_snapshot(mark.uuid)
            if made.mark != mark:
                raise Conflict(f"snapshot {mark.uuid} exists with another claim")
            return made

        async def begin() -> Any:
            ref = (await self._found(guest))[1].ref
            await vsphere_snapshots.check_disk(self._session.read(lambda: ref.config), guest)
            folder = partial(_folder_of, ref)
            return await self._session.change(lambda: vsphere_snapshots.begin(ref, folder, mark, name))

        with suppress(Conflict):  # it was made meanwhile
            # Until the copy has begun, the guest is given no volume, which would be copied too.
            await self._session.ended(await self._ongoing.run(guest, begin))
        return await self.get_snapshot(mark.uuid)

    async def delete_snapshot(self, uuid: str, claim: int | None = None) -> None:
        """Remove a template with its disks."""
        await self._ongoing.run(uuid, lambda: self._delete_snapshot(uuid, claim))

    async def _delete_snapshot(self, uuid: str, claim: int | None) -> None:
        with suppress(NotFound):
            made, template = await self._found_template(uuid)
            if made.mark is not None and claim in (None, made.mark.claim):
                await self._session.done(template.ref.Destroy_Task)

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Switch a virtual machine off, and remove it with its disks."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        with suppress(NotFound):
            guest, machine, _ = await self._found(uuid)
            if guest.mark is not None and claim in (None, guest.mark.claim):
                if guest.state not in ("off", "error"):
                    with suppress(Conflict):
                        await self._session.done(machine.ref.PowerOffVM_Task)
                await self._remove_disks(machine, guest.volumes)  # or they would be removed with it
                await self._session.done(machine.ref.Destroy_Task)


def _folder_of(ref: Any) -> Any:
    """The folder of virtual machines of the datacenter that a machine is in."""
    return datacenter_of(ref).vmFolder


def _tls(options: Options) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca_file)
    if options.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _root(session: Session, name: str | None) -> Callable[[], Any]:
    def find() -> Any:
        if name is None:
            return None
        view = session.content.viewManager.CreateContainerView(session.content.rootFolder, [vim.Datacenter], True)
        try:
            return next((each for each in view.view if each.name == name), False)
        finally:
            view.Destroy()

    return find


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[VsphereDriver]:
    """A session on a vCenter."""
    settings = read_options(options, Options)
    try:
        verify = _tls(settings)
    except OSError as error:
        raise InvalidValue(f"{settings.ca_file} cannot be read: {error}", field="options.ca_file") from error
    async with (
        open_session(
            settings.endpoint,
            settings.username,
            settings.password,
            verify=verify,
            concurrency=settings.concurrency,
        ) as session,
        open_ongoing(TIMEOUT) as ongoing,
    ):
        root = await session.read(_root(session, settings.datacenter))
        if root is False:
            raise NotFound(f"there is no datacenter {settings.datacenter}")
        yield VsphereDriver(session, root, settings, context.installation, ongoing)
