"""Volumes of a vCenter: pools are its datastores. A volume is the disk of a virtual machine that is never switched on,
which has the uuid and mark of the volume; guests use its file beside that machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from pyVmomi import vim

from ..protocol import Capacity, Conflict, Connection, NotFound, Page, Permanent, Pool, Volume, VolumeSpec
from ..storage.wanted import same_volume
from .vsphere_api import Found
from .vsphere_reading import VOLUME, VsphereReader, datacenter_of, disk_uuid, extra_of, volumes_among
from .vsphere_specs import CONFIGURED, new_disk, printable
from .vsphere_values import DATASTORE, GIB, KIB_A_GIB, LOST, MACHINE, Known, version_of

PROTOCOL: Final = "vmdk"
"""Of connections to these volumes; the address is the path of a disk on its datastore."""
UNITS: Final = (*range(7), *range(8, 16))
"""Of disks on a SCSI controller, which is unit 7 itself."""


class VsphereVolumes(VsphereReader):
    """The datastores and volumes of a vCenter, and the volumes that its guests have."""

    # what there is

    async def _datastores(self) -> dict[str, Found]:
        """The datastores in use, by name. Permanent if two have the same name."""
        found = dict[str, Found]()
        for each in await self._all(vim.Datastore, DATASTORE):
            name = str(each.get("name", ""))
            if self._options.datastore not in (None, name):
                continue
            if name in found:
                raise Permanent(f"there are several datastores {name}", hint="set the option datacenter or datastore")
            found[name] = each
        return found

    async def pools(self) -> AsyncIterator[Page[Pool]]:
        """The datastores, with what is promised on them to all machines."""
        stores, held = await self._datastores(), dict[str, int]()
        async for page in self.volumes():
            for volume in page.items:
                held[volume.pool] = held.get(volume.pool, 0) + volume.size_gb
        yield Page(tuple(_pool_of(name, each, held.get(name, 0)) for name, each in stores.items()))

    async def volumes(self) -> AsyncIterator[Page[Volume]]:
        """The disks of machines that hold a volume. Disks of others are no volumes."""
        async with aclosing(
            self._session.objects(vim.VirtualMachine, MACHINE, self._root, self._options.page)
        ) as pages:
            async for page in pages:
                machines = [each for each in page if not each.get("config.template") and "name" in each.properties]
                known = await self._read_known(machines)
                found = [(each, known[version_of(each)]) for each in machines]
                yield Page(tuple(_volume(each, its) for each, its in found if its.pool))

    async def get_volume(self, uuid: str) -> Volume:
        """Look a volume up by its uuid."""
        return (await self._found_volume(uuid))[0]

    async def _found_volume(self, uuid: str) -> tuple[Volume, Found]:
        machine, known = await self._machine(uuid)
        if not known.pool:
            raise NotFound(f"there is no volume {uuid}")
        return _volume(machine, known), machine

    async def _users(self, uuid: str) -> list[Any]:
        """The machines of guests that have a volume. O(machines)."""
        machines = [each for each in await self._all(vim.VirtualMachine, MACHINE) if "name" in each.properties]
        known = await self._read_known(machines)
        return [each.ref for each in machines if uuid in known[version_of(each)].volumes]

    # changes

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a machine with a thin disk, blank or the copy of a template's."""
        return await self._ongoing.run(want.mark.uuid, lambda: self._create_volume(want))

    async def _create_volume(self, want: VolumeSpec) -> Volume:
        uuid = want.mark.uuid
        try:
            found, machine = await self._found_volume(uuid)
        except NotFound:
            with suppress(Conflict):  # it was made meanwhile
                await self._make_volume(want)
            found, machine = await self._found_volume(uuid)
        if want.image and found.size_gb < want.size_gb and (found.mark, found.pool) == (want.mark, want.pool):
            await self._grow(machine, want.size_gb)  # a copy is as large as its template
            found = await self.get_volume(uuid)
        return same_volume(found, want)

    async def _make_volume(self, want: VolumeSpec) -> None:
        store = (await self._datastores()).get(want.pool)
        if store is None:
            raise NotFound(f"there is no datastore {want.pool}")
        if not store.get("summary.accessible") or want.size_gb * GIB > int(store.get("summary.freeSpace", 0)):
            raise Capacity(f"datastore {want.pool} has no room for {want.size_gb} GiB")
        template = await self._template(want.image) if want.image else None
        host = next((each for each in await self._usable_hosts() if store.ref in each.get("datastore", ())), None)
        if host is None:
            raise Capacity(f"no host that is up reaches datastore {want.pool}")
        extra = {
            CONFIGURED.mark: str(want.mark),
            CONFIGURED.name: printable(want.name),
            CONFIGURED.pool: want.pool,
        }
        spec = vim.vm.ConfigSpec(
            name=f"{VOLUME}{want.mark.uuid}",
            instanceUuid=want.mark.uuid,
            extraConfig=[vim.option.OptionValue(key=key, value=value) for key, value in extra.items()],
        )

        def begin() -> Any:
            folder, pool = datacenter_of(host.ref).vmFolder, host.ref.parent.resourcePool
            if template is not None:
                where = vim.vm.RelocateSpec(pool=pool, host=host.ref, datastore=store.ref)
                copy = vim.vm.CloneSpec(location=where, config=spec, powerOn=False, template=False)
                return template.ref.CloneVM_Task(folder=folder, name=spec.name, spec=copy)
            spec.guestId, spec.numCPUs, spec.memoryMB = self._options.guest_id, 1, 32
            spec.files = vim.vm.FileInfo(vmPathName=f"[{want.pool}]")
            spec.deviceChange = new_disk(want.size_gb * GIB, want.pool)
            return folder.CreateVM_Task(config=spec, pool=pool, host=host.ref)

        await self._session.done(begin)

    async def _usable_hosts(self) -> list[Found]:
        clusters = await self._clusters()
        return [host for cluster in clusters.values() for host in cluster.usable]

    async def _template(self, name: str) -> Found:
        """The template of a name. NotFound if there is none: a machine of a user is no image."""
        for each in await self._all(vim.VirtualMachine, ("name", "config.template")):
            if each.get("name") == name and each.get("config.template"):
                return each
        raise NotFound(f"there is no template {name}")

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove the machine of a volume with its disk. Conflict while a guest has it."""
        await self._ongoing.run(uuid, lambda: self._delete_volume(uuid, claim))

    async def _delete_volume(self, uuid: str, claim: int | None) -> None:
        with suppress(NotFound):
            volume, machine = await self._found_volume(uuid)
            if volume.mark is not None and claim in (None, volume.mark.claim):
                await self._check_unused(uuid)
                await self._session.done(machine.ref.Destroy_Task)

    async def _check_unused(self, uuid: str, *, but: Any = None) -> None:
        if [each for each in await self._users(uuid) if each != but]:
            raise Conflict(f"volume {uuid} is in use")

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let the disk of a volume grow that no guest has."""
        return await self._ongoing.run(uuid, lambda: self._extend(uuid, size_gb))

    async def _extend(self, uuid: str, size_gb: int) -> Volume:
        volume, machine = await self._found_volume(uuid)
        if volume.size_gb > size_gb:
            raise Conflict(f"volume {uuid} has {volume.size_gb} GiB already")
        if volume.size_gb < size_gb:
            await self._check_unused(uuid)
            await self._grow(machine, size_gb)
        return await self.get_volume(uuid)

    async def _grow(self, machine: Found, size_gb: int) -> None:
        devices = await self._session.read(lambda: machine.ref.config.hardware.device)
        disk = next((each for each in devices if isinstance(each, vim.vm.device.VirtualDisk)), None)
        if disk is None:
            raise Permanent("the template has no disk")
        disk.capacityInKB = size_gb * KIB_A_GIB
        change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)
        await self._change_devices(machine, lambda: [change])

    async def connect(self, uuid: str, node: str) -> Connection:
        """The path of the volume's disk, which hosts attach that reach its datastore."""
        _, machine = await self._found_volume(uuid)
        path = str(getattr((await self._disk(machine)).backing, "fileName", ""))
        return Connection(volume=uuid, protocol=PROTOCOL, address=path)

    async def _disk(self, machine: Found) -> Any:
        """The disk of a machine that holds a volume."""
        devices = await self._session.read(lambda: machine.ref.config.hardware.device)
        disk = next((each for each in devices if isinstance(each, vim.vm.device.VirtualDisk)), None)
        if disk is None:
            raise Permanent(f"{machine.get('name')} has no disk")
        return disk

    # volumes of guests

    async def attach(self, uuid: str, volume: Connection) -> None:
        """Give a machine the disk of a volume, running or not. Conflict if another has it."""
        await self._ongoing.run(uuid, lambda: self._attach(uuid, volume))

    async def _attach(self, uuid: str, volume: Connection) -> None:
        check_protocol(volume)
        machine, known = await self._machine(uuid)
        if volume.volume in known.volumes:
            return

        async def add() -> None:
            await self._check_unused(volume.volume, but=machine.ref)
            disk = await self._disk((await self._found_volume(volume.volume))[1])
            note = {f"{CONFIGURED.disk}{volume.volume}": disk_uuid(disk)} if disk_uuid(disk) else {}
            added = partial(disk_added, path=volume.address)
            await self._change_devices(machine, lambda: added(machine.ref.config.hardware.device), note)

        await self._ongoing.run(volume.volume, add)  # no other guest is given it meanwhile, and it is not removed

    async def detach(self, uuid: str, volume: str) -> bool:
        """Take the disk of a volume from a machine, running or not."""
        return await self._ongoing.run(uuid, lambda: self._detach(uuid, volume))

    async def _detach(self, uuid: str, volume: str) -> bool:
        machine, known = await self._machine(uuid)
        await self._remove_disks(machine, [each for each in known.volumes if each == volume])
        return True

    async def _remove_disks(self, machine: Found, volumes: Sequence[str]) -> None:
        """Take the disks of volumes from a machine; their files stay."""
        if not volumes:
            return
        config = await self._session.read(lambda: machine.ref.config)
        extra = extra_of(config)
        found = [each for each in volumes_among(config.hardware.device, extra) if each[1] in volumes]
        changes = [vim.vm.device.VirtualDeviceSpec(operation="remove", device=device) for device, _ in found]
        gone = dict.fromkeys((f"{CONFIGURED.disk}{uuid}" for _, uuid in found), "")  # an empty value removes a key
        await self._change_devices(machine, lambda: changes, {key: gone[key] for key in gone if key in extra})

    async def _change_devices(
        self, machine: Found, changes: Callable[[], list[Any]], extra: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Change the devices of a machine, and its ``extra`` configuration with them. What its configuration says is
        read again, also if its version is the same: simulators count no versions."""
        values = [vim.option.OptionValue(key=key, value=value) for key, value in extra.items()]

        def begin() -> Any:
            return machine.ref.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=changes(), extraConfig=values))

        try:
            await self._session.done(begin)
        finally:
            self._known.pop(version_of(machine), None)

    async def _datastores_of(self, volumes: Sequence[Connection]) -> set[Any]:
        """The datastores that volumes are on."""
        if not volumes:
            return set()
        stores = await self._datastores()
        names = {each.address.partition("]")[0].removeprefix("[") for each in volumes}
        return {stores[name].ref for name in names if name in stores}


def check_protocol(volume: Connection) -> None:
    """Permanent for a volume that is no disk of a vCenter."""
    if volume.protocol != PROTOCOL:
        raise Permanent(f"a vCenter attaches disks of its own datastores, no {volume.protocol}")


def disk_added(devices: Iterable[Any], path: str) -> list[Any]:
    """The change that gives a machine an existing disk, which snapshots of the machine leave out; with a controller
    where none has room."""
    change, present = vim.vm.device.VirtualDeviceSpec, list(devices)
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=path, diskMode="independent_persistent")
    disk = vim.vm.device.VirtualDisk(key=-102, backing=backing)
    controllers = [each for each in present if isinstance(each, vim.vm.device.VirtualSCSIController)]
    for controller in controllers:
        used = {each.unitNumber for each in present if each.controllerKey == controller.key}
        free = [unit for unit in UNITS if unit not in used]
        if len(used) < len(UNITS) and free:
            disk.controllerKey, disk.unitNumber = controller.key, free[0]
            return [change(operation="add", device=disk)]
    buses = set(range(4)) - {each.busNumber for each in controllers}
    if not buses:
        raise Capacity("the machine has no room for another disk")
    new = vim.vm.device.ParaVirtualSCSIController(key=-101, busNumber=min(buses), sharedBus="noSharing")
    disk.controllerKey, disk.unitNumber = -101, 0
    return [change(operation="add", device=new), change(operation="add", device=disk)]


def _pool_of(name: str, store: Found, volumes_gb: int) -> Pool:
    total, free = int(store.get("summary.capacity", 0)), int(store.get("summary.freeSpace", 0))
    promised = store.get("summary.uncommitted")
    used = -(-(total - free) // GIB)
    more = volumes_gb if promised is None else -(-int(promised) // GIB)
    state: Any = "up" if store.get("summary.accessible") else "down"
    return Pool(name, total // GIB, free // GIB, used + more, thin=True, state=state)


def _volume(machine: Found, known: Known) -> Volume:
    lost = machine.get("runtime.connectionState") in LOST
    return Volume(
        key=machine.ref._moId,
        mark=known.mark,
        name=known.name,
        pool=known.pool,
        size_gb=-(-known.disk_kib // KIB_A_GIB),
        state="error" if lost or not known.disk_kib else "available",
    )
