"""Bare metal of Ironic, OpenStack's service for it, alone or behind Keystone: a guest is a whole node, deployed with an
image. Nodes are known by their names, and by their uuids where they have none. Needs the extra ``ironic``.

A guest is an allocation of its uuid, with its mark in ``extra``, both set by the call that makes it: Ironic refuses a
second one. An allocation whose node was not deployed yet is a reservation: it is listed, and no guest."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any, Final

import msgspec
import trio

from ...placement.types.errors import InvalidValue
from ..ongoing import Ongoing, look_until, open_ongoing
from ..openstack_api import MARK_KEY, NAME_KEY, SIZE_KEY, Account, Service, Texts, is_id, open_account, path_of
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    DriverContext,
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
    read_options,
)
from .ironic_values import (
    FREE,
    LEAVING,
    POWER,
    STATES,
    STEADY,
    Allocation,
    Machine,
    allocation_of,
    amount,
    fits,
    guest_on,
    pointer_part,
    size_of,
    stranger_on,
)

MICROVERSION: Final = "1.61"
"""Of Ironic 14.0 (Ussuri): the oldest with allocations, configuration drives by their parts, and nodes that retire."""
TIMEOUT: Final = 1_800.0
"""Seconds for one change: what a node is doing must end before it does another thing."""

TARGETS: Final[Mapping[Power, str]] = {"on": "power on", "off": "power off"}
TEXTS: Final[Texts] = (
    (re.compile(r"is locked by host"), Transient),
    (re.compile(r"already exists|already (allocated|associated)|is associated with"), Conflict),
    (re.compile(r"is protected|while it is in state|Cannot remove allocation"), Conflict),
    (re.compile(r"in maintenance"), Capacity),
    (re.compile(r"could not be found|cannot be found"), NotFound),
)
"""What messages say, where the status says less: a locked node is answered as a conflict (409)."""
FIELDS: Final = (
    "uuid,name,resource_class,traits,properties,instance_uuid,provision_state,power_state,target_power_state,"
    "maintenance,fault,retired,last_error"
)


class Options(Account, kw_only=True, forbid_unknown_fields=True):
    """Options: the ``endpoint`` of Ironic (default: that of Keystone's catalog), which may be without Keystone, and ask
    for ``username`` and ``password`` itself. ``resource_classes`` whose nodes are used (default: all), and ``traits``
    that nodes must have. ``instance_info``: by the name of an image, what nodes are given for it; other images are
    uuids, which Glance knows. ``vcpus``, ``memory_mb`` and ``disk_gb`` of nodes whose properties do not tell.
    ``shutdown_seconds`` that a guest has to shut down before it is switched off. ``wait_seconds`` for a deployment or
    cleaning that is soon over; longer ones go on by themselves."""

    endpoint: str | None = None
    resource_classes: list[str] | None = None
    traits: tuple[str, ...] = ()
    instance_info: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    vcpus: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    disk_gb: Annotated[int, msgspec.Meta(ge=0)] = 0
    shutdown_seconds: Annotated[float, msgspec.Meta(ge=0)] = 120.0
    wait_seconds: Annotated[float, msgspec.Meta(ge=0)] = 20.0
    look_seconds: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class IronicDriver:
    """The nodes of an Ironic."""

    def __init__(self, service: Service, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._service, self._options, self._installation, self._ongoing = service, options, installation, ongoing
        can = Can.COMPUTE | Can.NATIVE_KEY
        self.facts = Facts("ironic", MICROVERSION, can, options.poll, options.concurrency, TIMEOUT)

    async def check(self) -> None:
        """Ask for one node."""
        await self._service.get("nodes", params={"fields": "uuid", "limit": 1})

    # what there is

    async def _machines(self) -> dict[str, Machine]:
        """The nodes in use, by uuid. Permanent if two have the same name."""
        found, names, page = dict[str, Machine](), set[str](), self._options.page
        async with aclosing(
            self._service.pages("nodes", "nodes", page, params={"fields": FIELDS}, key="uuid")
        ) as pages:
            async for items in pages:
                for machine in filter(self._is_used, map(self._machine, items)):
                    if machine.name in names and machine.key not in found:
                        raise Permanent(f"there are several nodes {machine.name}")
                    names.add(machine.name)
                    found[machine.key] = machine
        return found

    def _is_used(self, machine: Machine) -> bool:
        """Of a class and with the traits that are configured. One without a class cannot be allocated."""
        classes = self._options.resource_classes
        wanted = bool(machine.resource_class) if classes is None else machine.resource_class in classes
        return wanted and machine.traits.issuperset(self._options.traits)

    def _machine(self, item: Mapping[str, Any]) -> Machine:
        options, properties = self._options, item.get("properties") or {}
        power = POWER.get(str(item.get("power_state")))
        if power is None and item.get("target_power_state") is not None:
            power = "off"  # it is being switched for the first time
        return Machine(
            key=str(item.get("uuid")),
            name=str(item.get("name") or item.get("uuid")),
            resource_class=str(item.get("resource_class") or ""),
            traits=frozenset(item.get("traits") or ()),
            vcpus=amount(properties.get("cpus"), options.vcpus),
            memory_mb=amount(properties.get("memory_mb"), options.memory_mb),
            disk_gb=amount(properties.get("local_gb"), options.disk_gb),
            instance=item.get("instance_uuid"),
            provision=str(item.get("provision_state")),
            power=None if item.get("fault") == "power failure" else power,
            usable=not item.get("maintenance") and not item.get("retired"),
            last_error=str(item.get("last_error") or ""),
        )

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The nodes. One with a guest is used as a whole."""
        nodes = []
        for each in (await self._machines()).values():
            size = each.vcpus, each.memory_mb, each.disk_gb
            nodes.append(
                Node(each.name, *size, *(size if each.busy else (0, 0, 0)), state=each.state, hypervisor="ironic")
            )
        yield Page(tuple(nodes))

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """Allocations of all installations of Hostler, then nodes that others use. Guests whose node's power is not
        known are left out: that node is down."""
        machines, used = await self._machines(), set[str]()
        async with aclosing(self._service.pages("allocations", "allocations", self._options.page, key="uuid")) as pages:
            async for items in pages:
                guests = []
                for allocation in filter(None, map(allocation_of, items)):
                    machine = machines.get(allocation.node or allocation.candidate)
                    if machine is not None:
                        used.add(machine.key if allocation.node is not None else "")
                        if machine.power is not None:
                            guests.append(guest_on(allocation, machine))
                yield Page(tuple(guests))
        others = [each for each in machines.values() if each.busy and each.key not in used and each.power is not None]
        yield Page(tuple(map(stranger_on, others)))

    async def get_guest(self, uuid: str) -> Guest:
        """Look an allocation up, and its node. NotFound too if it is only a reservation."""
        allocation = await self._allocation(uuid)
        if allocation.node is not None:
            machine = await self._by_key(allocation.node)
            if machine.provision != FREE:
                return self._known(allocation, machine)
        raise NotFound(f"there is no node with guest {uuid}")

    @staticmethod
    def _known(allocation: Allocation, machine: Machine) -> Guest:
        if machine.power is None and STATES.get(machine.provision) == "on":
            raise Transient(f"the power of node {machine.name} is not known", nodes=[machine.name])
        return guest_on(allocation, machine)

    async def _allocation(self, uuid: str) -> Allocation:
        """The allocation of a guest of this installation. NotFound if there is none."""
        found = allocation_of(await self._service.get(path_of("allocations", uuid)))
        if found is None or found.mark[:2] != (self._installation, uuid):
            raise NotFound(f"there is no allocation of guest {uuid}")
        return found

    async def _by_name(self, name: str) -> Machine:
        """The node of a name or uuid. NotFound if there is none, or it is not one of those that are used."""
        machine = self._machine(await self._service.get(path_of("nodes", name), params={"fields": FIELDS}))
        if not self._is_used(machine):
            raise NotFound(f"node {name} has another resource class or other traits")
        return machine

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Allocate a node, and deploy it."""
        if want.volumes or want.networks:
            raise Permanent("nodes get their volumes and networks from Ironic's own configuration")
        if want.image and want.image not in self._options.instance_info and not is_id(want.image):
            # A URL would have Ironic read for a user what only Ironic can reach.
            raise NotFound(f"there is no image {want.image}", hint="describe it in the option instance_info")
        return await self._ongoing.run(want.mark.uuid, lambda: self._create(want))

    async def _create(self, want: GuestSpec) -> Guest:
        machine, uuid = await self._by_name(want.node), want.mark.uuid
        try:
            allocation = await self._allocation(uuid)
        except NotFound:
            machine = await self._free(want, machine)
            await self._allocate(want, machine)
            allocation = await self._allocation(uuid)
        if (allocation.mark, allocation.size, allocation.candidate) != (want.mark, size_of(want), machine.key):
            raise Conflict(f"guest {uuid} exists with another claim, node or size")
        allocation = await self._look(lambda: self._allocation(uuid), lambda found: found.state != "allocating")
        if allocation.node is None:
            await self._service.call("DELETE", path_of("allocations", uuid))
            raise Capacity(allocation.last_error or f"node {want.node} cannot be allocated")
        machine = await self._by_key(machine.key)
        if machine.provision == FREE:
            await self._deploy(want, machine)
        machine = await self._soon(machine, lambda now: STATES.get(now.provision) not in ("building", "deleting"))
        if STATES.get(machine.provision) == "on" and machine.power != want.power:
            machine = await self._switch(machine, want.power)
        return self._known(allocation, machine)

    async def _free(self, want: GuestSpec, machine: Machine) -> Machine:
        """The node, once it can be allocated: one that its last guest is leaving may take a moment."""
        if (machine.vcpus, machine.memory_mb) < (1, 1) or not fits(want, machine):
            size = f"{machine.vcpus} CPUs, {machine.memory_mb} MiB and {machine.disk_gb} GiB"
            raise Permanent(f"node {machine.name} has {size}")
        if machine.provision in LEAVING:
            machine = await self._soon(machine, lambda now: now.provision not in LEAVING)
        if machine.busy or machine.state != "up":
            raise Capacity(f"node {machine.name} is {machine.provision}, and not free")
        return machine

    async def _allocate(self, want: GuestSpec, machine: Machine) -> None:
        body = {
            "uuid": want.mark.uuid,
            "resource_class": machine.resource_class,
            "traits": list(self._options.traits),
            "candidate_nodes": [machine.key],
            "extra": {MARK_KEY: str(want.mark), NAME_KEY: want.name, SIZE_KEY: size_of(want)},
        }
        try:
            await self._service.call("POST", "allocations", body)
        except Conflict as error:
            try:
                await self._allocation(want.mark.uuid)  # of a call whose answer was lost
            except NotFound:
                raise error from None

    async def _deploy(self, want: GuestSpec, machine: Machine) -> None:
        """Tell a node what it is to be, and begin. What is refused leaves no allocation behind."""
        info = dict(self._options.instance_info.get(want.image, {"image_source": want.image} if want.image else {}))
        info["display_name"] = want.name
        if want.disk_gb:
            info.setdefault("root_gb", want.disk_gb)
        patch = [
            {"op": "add", "path": f"/instance_info/{pointer_part(name)}", "value": value}
            for name, value in info.items()
        ]
        target: dict[str, Any] = {"target": "active"}
        if want.user_data:
            about = {"uuid": want.mark.uuid, "name": want.name}
            target["configdrive"] = {"meta_data": about, "user_data": want.user_data}
        try:
            await self._change(machine, "PATCH", path_of("nodes", machine.key), patch)
            await self._change(
                machine, "PUT", path_of("nodes", machine.key, "states", "provision"), target, want.user_data
            )
        except (Permanent, Capacity, Quota):
            with suppress(NotFound):
                await self._change(machine, "DELETE", path_of("allocations", want.mark.uuid))
            raise

    async def _change(self, machine: Machine, method: str, path: str, body: Any = None, secret: str = "") -> None:
        """A change of a node, or of its allocation. That it is locked says nothing of others."""
        try:
            await self._service.call(method, path, body, secrets=[secret] if secret else [])
        except Transient as error:
            if error.backend_code != "409":
                raise
            raise Transient(str(error), after=error.after, backend_code="409", nodes=[machine.name]) from error

    async def _look(self, look: Callable[[], Any], right: Callable[[Any], bool]) -> Any:
        return await look_until(look, right, seconds=self._options.look_seconds)

    async def _soon(self, machine: Machine, right: Callable[[Machine], bool]) -> Machine:
        """The node once it is right, or after ``wait_seconds``."""
        with trio.move_on_after(self._options.wait_seconds):
            await self._look(lambda: self._by_key(machine.key), right)
        return await self._by_key(machine.key)

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Switch a node on; or ask its guest to shut down, and switch it off if it does not."""
        return await self._ongoing.run(uuid, lambda: self._set_power(uuid, want))

    async def _set_power(self, uuid: str, want: Power) -> Guest:
        guest, allocation = await self.get_guest(uuid), await self._allocation(uuid)
        machine = await self._by_key(str(allocation.node))
        if guest.state in ("on", "off") and guest.state != want:
            machine = await self._switch(machine, want)
        return self._known(allocation, machine)

    async def _switch(self, machine: Machine, want: Power) -> Machine:
        path, seconds = path_of("nodes", machine.key, "states", "power"), self._options.shutdown_seconds
        if want == "off" and seconds:
            # Some hardware takes no such request; some guests do not follow it.
            with suppress(Permanent, Conflict), trio.move_on_after(seconds):
                await self._change(machine, "PUT", path, {"target": "soft power off", "timeout": max(1, int(seconds))})
                return await self._switched(machine, want)
        await self._change(machine, "PUT", path, {"target": TARGETS[want]})
        return await self._switched(machine, want)

    async def _switched(self, machine: Machine, want: Power) -> Machine:
        found: Machine = await self._look(lambda: self._by_key(machine.key), lambda now: now.power == want)
        return found

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Undeploy a node, and give it back: Ironic cleans it, and removes its allocation."""
        await self._ongoing.run(uuid, lambda: self._delete(uuid, claim))

    async def _delete(self, uuid: str, claim: int | None) -> None:
        try:
            allocation = await self._look(lambda: self._allocation(uuid), lambda found: found.state != "allocating")
        except NotFound:
            return
        if claim not in (None, allocation.mark.claim):
            return
        with suppress(NotFound):
            if allocation.node is None:
                await self._service.call("DELETE", path_of("allocations", uuid))
                return
            machine = await self._by_key(allocation.node)
            if machine.provision not in STEADY and machine.provision in STATES:
                machine = await self._look(lambda: self._by_key(machine.key), lambda now: now.provision in STEADY)
            if machine.instance != uuid:
                return
            if machine.provision == FREE or machine.provision not in STATES:
                await self._change(machine, "DELETE", path_of("allocations", uuid))
                return
            path = path_of("nodes", machine.key, "states", "provision")
            await self._change(machine, "PUT", path, {"target": "deleted"})
            await self._look(lambda: self._left(uuid, machine), lambda left: left)
            await self._soon(machine, lambda now: now.provision not in LEAVING)

    async def _by_key(self, key: str) -> Machine:
        """The node of a uuid, of whatever class it is by now."""
        return self._machine(await self._service.get(path_of("nodes", key), params={"fields": FIELDS}))

    async def _left(self, uuid: str, machine: Machine) -> bool:
        """True once a node has no guest of this uuid. Transient if Ironic could not undeploy it."""
        now = await self._by_key(machine.key)
        if now.instance == uuid and now.provision == "error":
            raise Transient(f"node {now.name} is in error: {now.last_error}", nodes=[now.name])
        return now.instance != uuid


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[IronicDriver]:
    """An Ironic."""
    settings = read_options(options, Options)
    if settings.endpoint is None and settings.auth_url is None:
        raise InvalidValue("either endpoint or auth_url is needed", field="options.endpoint")
    headers = {"X-OpenStack-Ironic-API-Version": MICROVERSION}
    async with open_account(settings) as (http, identity), open_ongoing(TIMEOUT) as ongoing:
        service = Service(http, identity, settings.endpoint, ("baremetal",), version="v1", headers=headers, texts=TEXTS)
        driver = IronicDriver(service, settings, context.installation, ongoing)
        await driver.check()
        yield driver
