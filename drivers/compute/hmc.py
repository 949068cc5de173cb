"""IBM Power by its Hardware Management Console: nodes are managed systems, guests are logical partitions. Needs the
extra ``hmc``. Experimental: it has never been run on a console.

The name of a partition has no room for a uuid as it is written, so that it is shortened in it, and the whole mark is in
the description, which is made with the partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any, Final, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
import trio

from ...placement.types.errors import InvalidValue
from ..http import open_http
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
    Node,
    NotFound,
    Page,
    Permanent,
    Power,
    Quota,
    Transient,
    Unknown,
    read_options,
)
from ..tls import tls_of
from .hmc_api import MEDIA, HmcApi, open_session
from .hmc_values import (
    PASSING,
    SILENT,
    Network,
    Partition,
    System,
    adapter_document,
    content_of,
    entries,
    guest_of,
    name_of,
    network_of,
    node_of,
    partition_document,
    partition_of,
    port_of,
    resized_document,
    system_of,
)

TIMEOUT: Final = 900.0
"""Seconds for one change; jobs that activate partitions take minutes."""
READ_SECONDS: Final = 300.0
"""Seconds to wait for an answer: a console makes partitions, and asks its managed systems, before it answers."""
PARTITION: Final = MEDIA.format("uom", "LogicalPartition")
ADAPTER: Final = MEDIA.format("uom", "ClientNetworkAdapter")
WHOLE: Final = "group=None"
"""Query of all calls on a partition: its etag is that of what is read with the same query."""
BootMode = Literal["norm", "sms", "dd", "ds", "of"]
BOOT_MODES: Final = ("norm", "sms", "dd", "ds", "of")
"""How a partition is activated: normally, to the menus of its system management services, in diagnosis by the default
or the stored boot list, or to the prompt of Open Firmware."""
REFUSED: Final = (Capacity, Permanent, Quota)
"""Errors of an activation after which nothing may stay of a new partition."""


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: the ``endpoint`` of the console's REST API, ``username`` and ``password``; ``ca_file`` with
    certificates, or ``insecure`` to check none. ``systems``: names of the managed systems to use (default: all).
    ``units_per_vcpu``: processing units that a partition is entitled to for each of its virtual processors. ``boot``:
    how new partitions are activated the first time, which an image names otherwise. ``slots``: of virtual adapters of
    new partitions. ``shutdown_seconds`` that an operating system has to shut down before its partition is switched
    off."""

    endpoint: str
    username: str
    password: str
    ca_file: str | None = None
    insecure: bool = False
    systems: list[str] | None = None
    units_per_vcpu: Annotated[float, msgspec.Meta(ge=0.05, le=1)] = 1.0
    boot: BootMode = "norm"
    slots: Annotated[int, msgspec.Meta(ge=2, le=65_535)] = 64
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 120.0
    look_seconds: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    poll: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4


class HmcDriver:
    """The managed systems of one console."""

    def __init__(self, api: HmcApi, version: str, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._api, self._options, self._installation, self._ongoing = api, options, installation, ongoing
        self._per_vcpu = hundredths_of(options.units_per_vcpu)
        self._names: dict[str, str] = {}
        """Names of managed systems by their ids, as of the last look at them."""
        can = Can.COMPUTE | Can.RESIZE
        self.facts = Facts("hmc", version, can, options.poll, options.concurrency, TIMEOUT)

    async def check(self) -> None:
        """Ask for the console itself."""
        await version_of(self._api)

    # what there is

    def _used(self, name: str) -> bool:
        return self._options.systems is None or name in self._options.systems

    async def _systems(self) -> list[System]:
        systems = await self._api.listed("/ManagedSystem", system_of)
        self._names = {each.key: each.name for each in systems}
        return [each for each in systems if self._used(each.name)]

    async def _system(self, name: str) -> System:
        """A managed system. NotFound if there is none of that name, or it is not used."""
        found = await self._api.found("ManagedSystem", "SystemName", name, system_of) if self._used(name) else []
        if not found:
            raise NotFound(f"there is no node {name}")
        return found[0]

    async def _name(self, key: str) -> str:
        """The name of a managed system by its id; nothing if there is none."""
        if key not in self._names:
            await self._systems()
        return self._names.get(key, "")

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The managed systems, with what all their partitions are entitled to."""
        for system in await self._systems():
            yield Page((node_of(system, await self._in(system) if system.up else [], self._per_vcpu),))

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """The partitions, those that serve input and output included, a page for each managed system that is up."""
        for system in await self._systems():
            if system.up:
                yield Page(tuple(guest_of(each, system.name) for each in await self._in(system)))

    async def _in(self, system: System) -> list[Partition]:
        found = list[Partition]()
        for kind in ("LogicalPartition", "VirtualIOServer"):
            found += await self._api.listed(f"/ManagedSystem/{system.key}/{kind}", partition_of)
        return found

    async def get_guest(self, uuid: str) -> Guest:
        """Look a partition up by its name."""
        return await self._guest(await self._found(uuid))

    async def _guest(self, partition: Partition) -> Guest:
        return guest_of(partition, await self._name(partition.system))

    async def _by_name(self, uuid: str) -> Partition | None:
        """The partition with the name of a guest's: this installation's, else one of others."""
        named = await self._api.found("LogicalPartition", "PartitionName", name_of(uuid), partition_of)
        used = [each for each in named if self._used(await self._name(each.system))]
        return next((each for each in used if self._owns(each, uuid)), used[0] if used else None)

    def _owns(self, partition: Partition, uuid: str) -> bool:
        return partition.mark is not None and partition.mark[:2] == (self._installation, uuid)

    async def _found(self, uuid: str) -> Partition:
        """The partition of a guest of this installation. NotFound if there is none; Transient if it may be on a managed
        system that does not answer."""
        found = await self._by_name(uuid)
        if found is not None and self._owns(found, uuid):
            if found.state != SILENT:
                return found
            name = await self._name(found.system)
            raise Transient(f"guest {uuid} is on {name}, which does not answer for it", nodes=[name] if name else [])
        down = [each.name for each in await self._systems() if not each.up]
        if down:
            raise Transient(f"guest {uuid} may be on {', '.join(down)}, which does not answer", nodes=down)
        raise NotFound(f"there is no partition of guest {uuid}")

    async def _look(self, key: str) -> Partition:
        """A partition by its id."""
        answer = await self._api.call("GET", f"/LogicalPartition/{key}?{WHOLE}")
        found = await self._api.read(answer, lambda root: [partition_of(each, _etag(answer)) for each in entries(root)])
        if not found:
            raise NotFound(f"there is no partition {key}")
        return found[0]

    async def _again(self, partition: Partition) -> Partition:
        """A partition as it is now. Conflict if it has another mark, since others took it for theirs meanwhile."""
        found = await self._look(partition.key)
        if found.mark != partition.mark:
            raise Conflict(f"partition {partition.name} was taken by others meanwhile: it is {found.name} now")
        return found

    @asynccontextmanager
    async def _confirmed(self, uuid: str) -> AsyncIterator[None]:
        """Within it, what a console answers as not there is looked up by the name of the guest's partition: NotFound
        stays so only if there is none, else it is Transient."""
        try:
            yield
        except NotFound as error:
            await self._found(uuid)
            raise Transient(f"guest {uuid} is there: {error}", backend_code=error.backend_code) from error

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Make a partition, and activate it."""
        if want.volumes or want.user_data or want.disk_gb:
            raise Permanent("partitions get their disks and volumes on the console, and no user data")
        if want.image and want.image not in BOOT_MODES:
            raise Permanent(f"image {want.image} is no boot mode", hint=f"use one of {', '.join(BOOT_MODES)}")
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: GuestSpec) -> Guest:
        system, new = await self._system(want.node), False
        if not system.up:
            raise Transient(f"node {system.name} is {system.state}", nodes=[system.name])
        memory_mb, networks = system.rounded(want.memory_mb), await self._networks(system, want.networks)
        partition = await self._by_name(want.mark.uuid)
        if partition is None:
            partition, new = await self._make(want, system, memory_mb), True
        wanted = (want.mark, system.key, want.vcpus, memory_mb)
        if (partition.mark, partition.system, partition.vcpus, partition.memory_mb) != wanted:
            raise Conflict(f"guest {want.mark.uuid} exists with another claim, node or size")
        async with self._confirmed(want.mark.uuid):
            try:
                if networks and partition.off:
                    await self._connect(partition, networks)
                if want.power == "on":
                    await self._start(partition, want.image or self._options.boot)
            except REFUSED:
                if new:
                    with suppress(DriverError):  # else the next deletion removes it
                        await self._remove(await self._again(partition))
                raise
            return await self._guest(await self._again(partition))

    async def _make(self, want: GuestSpec, system: System, memory_mb: int) -> Partition:
        content = partition_document(want, memory_mb, self._per_vcpu * want.vcpus, self._options.slots)
        path = f"/ManagedSystem/{system.key}/LogicalPartition?{WHOLE}"
        answer = await self._api.call("PUT", path, content=content, kind=PARTITION)
        made = await self._api.read(answer, lambda root: [partition_of(entry) for entry in entries(root)])
        if [each.name for each in made] != [name_of(want.mark.uuid)]:
            raise Unknown(f"the answer is not the partition {name_of(want.mark.uuid)}")
        partition = await self._look(made[0].key)
        if partition.name != made[0].name:
            raise Conflict(f"partition {made[0].name} was taken by others meanwhile: it is {partition.name} now")
        if partition.mark != want.mark:
            await self._remove(partition)
            raise Permanent(f"the console keeps no description of partition {partition.name}, in which its mark is")
        return partition

    async def _networks(self, system: System, names: Sequence[str]) -> list[Network]:
        """Virtual networks by their names. NotFound if a managed system lacks one."""
        if not names:
            return []
        found = await self._api.listed(f"/ManagedSystem/{system.key}/VirtualNetwork", network_of)
        by_name = {each.name: each for each in found}
        for name in names:
            if name not in by_name:
                raise NotFound(f"node {system.name} has no virtual network {name}")
        return [by_name[name] for name in names]

    async def _connect(self, partition: Partition, networks: Sequence[Network]) -> None:
        """Give a partition an adapter on each virtual network on which it has none."""
        path = f"/LogicalPartition/{partition.key}/ClientNetworkAdapter"
        ports = set(await self._api.listed(path, port_of))
        for network in networks:
            if network.port not in ports:
                content = adapter_document(network)
                await self._api.call("PUT", f"{path}?{WHOLE}", content=content, kind=ADAPTER)
                ports.add(network.port)

    async def _settled(self, partition: Partition, seconds: float) -> Partition:
        """A partition once it is in no state that ends by itself, or the time is over."""
        with trio.move_on_after(seconds):
            look, wait = partial(self._again, partition), self._options.look_seconds
            return await look_until(look, lambda found: found.state not in PASSING, seconds=wait)
        return await self._again(partition)

    async def _start(self, partition: Partition, mode: str) -> None:
        if partition.state in PASSING:
            partition = await self._settled(partition, TIMEOUT)
        if partition.off:
            await self._api.run(partition.key, "PowerOn", {"bootmode": mode, "force": "false", "novsi": "true"})

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Activate a partition; or have its operating system shut down, and switch it off if that does not."""
        return await self._ongoing.run(uuid, lambda: self._set_power(uuid, want))

    async def _set_power(self, uuid: str, want: Power) -> Guest:
        partition = await self._found(uuid)
        async with self._confirmed(uuid):
            if want == "on":
                await self._start(partition, "norm")
            else:
                await self._stop(partition)
            return await self._guest(await self._again(partition))

    async def _stop(self, partition: Partition) -> None:
        seconds = self._options.shutdown_seconds
        if partition.state in PASSING:
            partition = await self._settled(partition, seconds)
        if not partition.off and partition.monitored and seconds:
            with trio.move_on_after(seconds), suppress(Conflict, Permanent):  # it may take no such order
                await self._shut_down(partition)
            partition = await self._again(partition)
        await self._switch_off(partition)

    async def _shut_down(self, partition: Partition) -> None:
        """Have the operating system of a partition shut down, and wait for it."""
        order = {"operation": "osshutdown", "immediate": "true", "restart": "false"}
        await self._api.run(partition.key, "PowerOff", order)
        look, wait = partial(self._again, partition), self._options.look_seconds
        await look_until(look, lambda found: found.off, seconds=wait)

    async def _switch_off(self, partition: Partition) -> None:
        if not partition.off:
            order = {"operation": "shutdown", "immediate": "true", "restart": "false"}
            await self._api.run(partition.key, "PowerOff", order)

    async def resize_guest(self, uuid: str, vcpus: int, memory_mb: int) -> Guest:
        """Change the size of a partition; one that is active is stopped for it."""
        return await self._ongoing.run(uuid, lambda: self._resize(uuid, vcpus, memory_mb))

    async def _resize(self, uuid: str, vcpus: int, memory_mb: int) -> Guest:
        partition = await self._found(uuid)
        system = await self._system(await self._name(partition.system))
        new, old = (vcpus, system.rounded(memory_mb)), (partition.vcpus, partition.memory_mb)
        async with self._confirmed(uuid):
            if new != old:
                self._resized(partition, *new)  # before it is stopped for nothing
                was_on = not partition.off
                await self._stop(partition)
                try:
                    await self._give(partition, *new)
                finally:
                    if was_on:
                        await self._start_again(partition, old)
            return await self._guest(await self._again(partition))

    def _resized(self, partition: Partition, vcpus: int, memory_mb: int) -> bytes:
        """The document of a partition with another size. Permanent if it has no size that can be given."""
        try:
            return resized_document(partition, vcpus, memory_mb, self._per_vcpu * vcpus)
        except ValueError as error:
            raise Permanent(f"the partition {partition.name} is not resized: {error}") from error

    async def _give(self, partition: Partition, vcpus: int, memory_mb: int) -> None:
        """Give a partition that is off a size, unless it is changed by others meanwhile."""
        partition = await self._again(partition)
        content = self._resized(partition, vcpus, memory_mb)
        path = f"/LogicalPartition/{partition.key}?{WHOLE}"
        await self._api.call("POST", path, content=content, kind=PARTITION, etag=_etag_of(partition))

    async def _start_again(self, partition: Partition, old: tuple[int, int]) -> None:
        """Activate a partition that was stopped for another size: with its ``old`` one, if it cannot be with it."""
        try:
            await self._start(await self._again(partition), "norm")
        except REFUSED:
            with suppress(DriverError):  # else it is off, with one of the two sizes
                await self._give(partition, *old)
                await self._start(await self._again(partition), "norm")
            raise

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Switch a partition off, and remove it."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        with suppress(NotFound):
            partition = await self._found(uuid)
            if partition.mark is not None and claim in (None, partition.mark.claim):
                async with self._confirmed(uuid):
                    if partition.state in PASSING:
                        partition = await self._settled(partition, self._options.shutdown_seconds)
                    await self._remove(partition)

    async def _remove(self, partition: Partition) -> None:
        """Remove a partition, unless it is changed by others meanwhile."""
        if not partition.off:
            await self._switch_off(partition)
            partition = await self._again(partition)
        await self._api.call("DELETE", f"/LogicalPartition/{partition.key}?{WHOLE}", etag=_etag_of(partition))


def hundredths_of(units: float) -> int:
    """Processing units in hundredths. InvalidValue if they have more than two decimals."""
    found = round(units * 100)
    if abs(found - units * 100) > 1e-6:
        raise InvalidValue("units_per_vcpu has at most two decimals", field="options.units_per_vcpu")
    return found


def _etag(answer: Any) -> str:
    return str(answer.headers.get("ETag", ""))


def _etag_of(partition: Partition) -> str:
    """The etag with which a change of a partition is refused if others changed it. Unknown if it was answered without
    one, so that a change of others would not be noticed."""
    if not partition.etag:
        raise Unknown(f"partition {partition.name} was answered without an etag")
    return partition.etag


async def version_of(api: HmcApi) -> str:
    """The version of the schema that a console answers in."""
    found = await api.listed("/ManagementConsole", lambda entry: content_of(entry).get("schemaVersion", ""))
    return found[0] if found else ""


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[HmcDriver]:
    """A session on a console."""
    settings = read_options(options, Options)
    if urlsplit(settings.endpoint).scheme not in ("http", "https"):
        raise InvalidValue(f"{settings.endpoint} is no URL", field="options.endpoint")
    hundredths_of(settings.units_per_vcpu)
    endpoint, concurrency = urljoin(settings.endpoint, "/"), settings.concurrency
    verify = tls_of(settings.ca_file, settings.insecure)
    async with (
        open_http(endpoint, concurrency=concurrency, verify=verify, read_seconds=READ_SECONDS) as http,
        open_session(http, settings.username, settings.password, settings.look_seconds) as api,
        open_ongoing(TIMEOUT) as ongoing,
    ):
        yield HmcDriver(api, await version_of(api), settings, context.installation, ongoing)
