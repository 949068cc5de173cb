"""What is read of a vCenter again and again: its clusters, its machines, and what their configurations say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec
from pyVmomi import vim

from ..ongoing import Ongoing
from ..protocol import Mark, NotFound, Permanent
from .vsphere_api import Found, Session
from .vsphere_specs import CONFIGURED
from .vsphere_values import CLUSTER, DATASTORE, HOST, MACHINE, Cluster, Known, Version, version_of

VOLUME: Final = "hostler-volume-"
"""What the names of machines begin with that hold a volume each, and their files on a datastore; its uuid follows."""
_VOLUME_FILE: Final = re.compile(rf"\[[^\]]*\] (?:.*/)?{VOLUME}([0-9a-f-]{{36}})(?:_\d+)?(?:/|(?:-\d{{6}})?\.vmdk$)")
"""A file in the folder of such a machine, or with its name: vSAN and virtual volumes name folders by ids of objects."""


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: the ``endpoint`` (https://HOST:PORT) of the vCenter, ``username`` and ``password``; ``ca_file`` with
    certificates, or ``insecure`` to check none. ``datacenter``, to use no other; ``clusters``, with hosts outside of
    clusters by their names (default: all). ``datastore``, where disks of guests are made (default: of those that the
    cluster has, the one with the most room). ``guest_id``: the operating system that VMware expects in guests without a
    template. ``shutdown_seconds`` that a guest has to shut down before it is switched off."""

    endpoint: str
    username: str
    password: str
    ca_file: str | None = None
    insecure: bool = False
    datacenter: str | None = None
    clusters: list[str] | None = None
    datastore: str | None = None
    guest_id: str = "otherGuest64"
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=32)] = 8
    page: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500


class VsphereReader:
    """A vCenter, or one datacenter of it, as it is now."""

    def __init__(self, session: Session, root: Any, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._session, self._root, self._options = session, root, options
        self._installation, self._ongoing = installation, ongoing
        self._known: dict[Version, Known] = {}
        """What configurations say, so that each is read once."""

    async def _all(self, kind: Any, paths: tuple[str, ...]) -> list[Found]:
        found = list[Found]()
        async with aclosing(self._session.objects(kind, paths, self._root, self._options.page)) as pages:
            async for page in pages:
                found += page
        return found

    async def _clusters(self) -> dict[str, Cluster]:
        """The clusters in use, by name. Permanent if two have the same name."""
        stores = {each.ref: each for each in await self._all(vim.Datastore, DATASTORE)}
        hosts: dict[Any, list[Found]] = {}
        for host in await self._all(vim.HostSystem, HOST):
            hosts.setdefault(host.get("parent"), []).append(host)
        clusters, wanted = dict[str, Cluster](), self._options.clusters
        for each in await self._all(vim.ComputeResource, CLUSTER):
            name = str(each.get("name", ""))
            if wanted is not None and name not in wanted:
                continue
            if name in clusters:
                raise Permanent(f"there are several clusters {name}", hint="set the option datacenter or clusters")
            reached = [stores[ref] for ref in each.get("datastore", ()) if ref in stores]
            reached = [store for store in reached if self._options.datastore in (None, store.get("name"))]
            clusters[name] = Cluster(each, hosts.get(each.ref, []), reached)
        return clusters

    async def _read_known(self, machines: list[Found]) -> dict[Version, Known]:
        """What the configurations of machines say. Those that are new or were changed are read."""
        found = {version_of(each): self._known.get(version_of(each)) for each in machines}
        new = {each.ref: version_of(each) for each in machines if found[version_of(each)] is None}
        for each in await self._session.properties(
            vim.VirtualMachine, list(new), ("config.extraConfig", "config.hardware.device")
        ):
            values = {option.key: str(option.value) for option in each.get("config.extraConfig", ())}
            mark = Mark.parse(values.get(CONFIGURED.mark, ""))
            if mark is not None and mark.uuid != new[each.ref].uuid:
                mark = None  # a copy, made by others
            disks = [
                disk for disk in each.get("config.hardware.device", ()) if isinstance(disk, vim.vm.device.VirtualDisk)
            ]
            volumes = tuple(sorted(uuid for _, uuid in volumes_among(disks, values)))
            known = Known(mark, values.get(CONFIGURED.name, ""), values.get(CONFIGURED.size, ""), volumes)
            if CONFIGURED.pool in values:
                kib = disks[0].capacityInKB if disks else 0
                known = known._replace(pool=values[CONFIGURED.pool], disk_kib=kib, volumes=())
            found[new[each.ref]] = self._known[new[each.ref]] = known
        return {version: known or Known() for version, known in found.items()}

    async def _machine(self, uuid: str) -> tuple[Found, Known]:
        """The machine or template of a uuid. NotFound if this installation has none."""
        session = self._session
        ref = await session.read(lambda: session.content.searchIndex.FindByUuid(self._root, uuid, True, True))
        for machine in await session.properties(vim.VirtualMachine, [ref] if ref is not None else [], MACHINE):
            (known,) = (await self._read_known([machine])).values()
            if known.mark is not None and known.mark[:2] == (self._installation, uuid):
                return machine, known
        raise NotFound(f"there is no virtual machine of guest {uuid}")


def volumes_among(devices: Iterable[Any], extra: Mapping[str, str]) -> list[tuple[Any, str]]:
    """The disks of a machine that are volumes, with the uuids of these. An added disk keeps its file's name, until a
    vCenter moves it to another datastore, and its uuid, which the machine's ``extra`` configuration notes."""
    notes = [
        (key.removeprefix(CONFIGURED.disk), disk) for key, disk in extra.items() if key.startswith(CONFIGURED.disk)
    ]
    noted = {disk: uuid for uuid, disk in notes if disk}
    found = list[tuple[Any, str]]()
    for device in devices:
        if isinstance(device, vim.vm.device.VirtualDisk):
            named = _VOLUME_FILE.match(str(getattr(device.backing, "fileName", "")))
            uuid = noted.get(disk_uuid(device)) if named is None else named[1]
            if uuid is not None:
                found.append((device, uuid))
    return found


def disk_uuid(device: Any) -> str:
    """The uuid of a disk, which its file keeps wherever it is; "" where its kind has none."""
    return str(getattr(device.backing, "uuid", None) or "")


def extra_of(config: Any) -> dict[str, str]:
    """What a configuration says besides, by its keys."""
    return {option.key: str(option.value) for option in config.extraConfig}


def datacenter_of(ref: Any) -> Any:
    """The datacenter that an object is in; it is read from the server."""
    while not isinstance(ref, vim.Datacenter):
        ref = ref.parent
    return ref
