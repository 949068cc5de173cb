"""Commands to a service's state machine, with names that never occur again; what each change makes, it removes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as f
from hostler.core import region_commands as g
from hostler.core import storage_commands as s
from hostler.core.machine.event_log import History
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import AnyCommand, Order, PlacementWrite
from hostler.core.tenancy import commands as c
from hostler.placement.api import commands as api
from hostler.placement.fleet.inventories import Inventory
from hostler.placement.storage.pools.request import VolumeType
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Aggregate, Host
from hostler.placement.types.request import Flavor, Image

from .growth_changes import NOW, OWN, SIZE, name_of, pools, uuid_of


class Commands:
    """The state machine of a service with four hosts, two pools of storage and a backup service, and the log of its
    events, as the writer has them."""

    def __init__(self) -> None:
        self.machine = ServiceMachine()
        self.events = History(self.machine, kept=1_000)
        self.now, self.sequence = NOW, 0
        self.give(
            p.AddHosts(hosts=tuple(Host(host=f"n{number}", **SIZE) for number in range(4))),
            s.ReportVolumeBackends(reports=(s.VolumeBackendReport(host="n0@lvm", capabilities=pools("a", "b")),)),
            s.SetBackupService(host="n0"),
        )

    def give(self, *commands: AnyCommand) -> Any:
        """Carry out commands; what the last one answers. HostlerError if one is refused."""
        answer = None
        for command in commands:
            answer = self.try_out(command)
            if isinstance(answer, HostlerError):
                raise answer
        return answer

    def try_out(self, command: AnyCommand) -> Any:
        """Carry out a command as the writer does: from its bytes, and with its event. A refusal is an answer."""
        order = self.machine.decode(self.machine.encode(Order(self.now, "@local", command)))
        try:
            answer = self.machine.apply(order)
        except HostlerError as error:
            answer = error
        self.sequence += 1
        self.events.add(self.sequence, order, answer)
        return answer


def asked(number: int, which: int = 0, **spec: Any) -> p.Asked:
    """A request of a flavor, a project and a user that nothing else has."""
    name = name_of(number)
    flavor = {"name": f"f-{name}", "vcpus": 1, "memory_mb": 512 + number % 5_000}
    raw = msgspec.Raw(msgspec.msgpack.encode({"flavor": flavor, **spec}))
    uuids = (uuid_of(number, which),)
    return p.Asked(spec=raw, instance_uuids=uuids, project_id=f"p-{name}", user_id=f"u-{name}")


def volume(number: int, which: int = 0, **spec: Any) -> s.AskedVolume:
    """A volume likewise."""
    name = name_of(number)
    raw = msgspec.Raw(msgspec.msgpack.encode({"size_gb": 1 + number % 50, "metadata": {"name": name}, **spec}))
    return s.AskedVolume(spec=raw, volume_id=uuid_of(number, which), project_id=f"p-{name}", user_id=f"u-{name}")


def placed(it: Commands, number: int) -> None:
    """A guest, and two of a batch, come and go."""
    it.give(p.Place(request=asked(number)), p.PlaceMany(requests=(asked(number, 1), asked(number, 2))))
    it.give(p.PlaceCandidates(request=asked(number, 3), candidates={}))
    it.give(p.Release(uuids=tuple(uuid_of(number, which) for which in range(3))))


def held(it: Commands, number: int) -> None:
    """A guest is held, and goes: by itself, or confirmed first."""
    it.give(p.Hold(request=asked(number), expires_in=5.0))
    if number % 2:
        it.give(p.ConfirmHold(uuids=(uuid_of(number),)), p.Release(uuids=(uuid_of(number),)))
    it.now += 10.0
    it.give(p.Heartbeats(names=()))


def moved(it: Commands, number: int) -> None:
    """A guest is resized and moved, both to the end or back, and goes."""
    uuid, larger = uuid_of(number), asked(number, is_bfv=True)
    it.give(p.Place(request=asked(number)), p.Resize(uuid=uuid, request=larger), p.BeginMove(uuid=uuid))
    it.give((p.ConfirmMove if number % 2 else p.RevertMove)(uuid=uuid), p.Release(uuids=(uuid,)))


def stored(it: Commands, number: int) -> None:
    """A volume with a snapshot and a backup comes, moves, and goes."""
    uuid, copies = uuid_of(number), (uuid_of(number, 1), uuid_of(number, 2))
    it.give(
        s.PlaceVolume(request=volume(number)),
        s.BeginVolumeMigration(uuid=uuid),
        (s.ConfirmVolumeMove if number % 2 else s.RevertVolumeMove)(uuid=uuid),
        s.CreateVolumeSnapshot(uuid=uuid, snapshot_id=copies[0]),
        s.CreateVolumeBackup(uuid=uuid, backup_id=copies[1]),
        s.DeleteVolumeBackups(uuids=copies[1:]),
        s.DeleteVolumes(uuids=(uuid,), cascade=True),
    )


def together(it: Commands, number: int) -> None:
    """A group of volumes, and a guest with a volume, come and go."""
    uuid = uuid_of(number)
    it.give(
        s.PlaceTogether(request=asked(number), volumes=(volume(number, 1),)),
        p.Release(uuids=(uuid,)),
        s.DeleteVolumes(uuids=(uuid_of(number, 1),)),
        s.PlaceVolumeGroup(
            volumes=(volume(number, 2),), group_id=uuid_of(number, 3), project_id=f"p-{name_of(number)}"
        ),
        s.DeleteVolumes(uuids=(uuid_of(number, 2),)),
        s.DeleteVolumeGroup(uuid=uuid_of(number, 3)),
    )


def backed(it: Commands, number: int) -> None:
    """A backend and a backup service come and go."""
    host = f"h-{name_of(number)}"
    report = s.VolumeBackendReport(host=f"{host}@lvm", capabilities=pools(host))
    it.give(s.ReportVolumeBackends(reports=(report,)), s.RemoveVolumeBackend(host=f"{host}@lvm"))
    it.give(s.SetBackupService(host=host), s.RemoveBackupService(host=host))


def tenanted(it: Commands, number: int) -> None:
    """A domain with a project, a user with a role and a token, limits and a pool come and go."""
    name = name_of(number)
    scope = f"project:{name}"
    it.give(
        c.CreateDomain(id=name, identity_suffixes=(f".{name}.org",)),
        c.CreateProject(id=name, domain=name),
        c.CreateUser(id=name, domain=name, identities=(f"a.{name}.org",)),
        c.Grant(user=name, role="member", scope=scope),
        c.CreateToken(id=name, user=name, digest=name.encode() * 2, expires=it.now + 100),
        c.SetLimits(scope=scope, limits={"instances": 5}),
        c.CreatePool(id=name, hosts=("n0",)),
        c.GrantPool(id=name, scope=scope),
        p.Place(request=msgspec.structs.replace(asked(number), project_id=name)),
        p.Release(uuids=(uuid_of(number),)),
        c.DeletePool(id=name),
        c.DeleteUser(id=name),
        c.DeleteProject(id=name),
        c.DeleteDomain(id=name),
    )


def catalogued(it: Commands, number: int) -> None:
    """A flavor, an image and a volume type are stored, used, and deleted."""
    name = name_of(number)
    spec = msgspec.Raw(msgspec.msgpack.encode({"flavor": name, "image": name}))
    it.give(
        c.CreateFlavor(flavor=Flavor(name=name, vcpus=1, memory_mb=512)),
        c.CreateImage(name=name, image=Image(properties={"os_distro": name})),
        c.CreateVolumeType(volume_type=VolumeType(name=name, extra_specs={})),
        p.Place(request=msgspec.structs.replace(asked(number), spec=spec)),
        s.PlaceVolume(request=volume(number, 1, volume_type=name)),
        p.Release(uuids=(uuid_of(number),)),
        s.DeleteVolumes(uuids=(uuid_of(number, 1),)),
        c.DeleteFlavor(name=name),
        c.DeleteImage(name=name),
        c.DeleteVolumeType(name=name),
    )


def grouped(it: Commands, number: int) -> None:
    """A server group is kept for a project, gets a member, and goes."""
    group, request = uuid_of(number, 1), asked(number)
    it.give(
        p.AddServerGroup(uuid=group, policy="affinity", project_id=request.project_id),
        p.Place(request=msgspec.structs.replace(request, server_group=group)),
        p.Release(uuids=request.instance_uuids),
        p.RemoveServerGroup(uuid=group),
    )


def hosted(it: Commands, number: int) -> None:
    """A host with a card, an aggregate and a reason to be disabled comes and goes."""
    name, rack = f"h-{name_of(number)}", Aggregate(uuid=uuid_of(number), name=name_of(number))
    it.give(
        p.AddHosts(hosts=(Host(host=name, **SIZE),)),
        p.AddProvider(name=f"{name}-card", parent=name, traits=(f"CUSTOM_{name_of(number).upper()}",)),
        p.SetAggregates(name=name, aggregates=(rack,)),
        p.SetService(name=name, disabled=True, disabled_reason=name),
        p.RemoveHost(name=f"{name}-card"),
        p.RemoveHost(name=name),
        p.RemoveAggregate(uuid=rack.uuid),
    )


def claimed(it: Commands, number: int) -> None:
    """A resource class, a provider with it and a consumer come and go by the Placement API."""
    name, provider, consumer = f"CUSTOM_{name_of(number).upper()}", uuid_of(number), uuid_of(number, 1)
    allocations = api.ConsumerAllocations(
        allocations={provider: {name: 1}},
        project_id=f"p-{name_of(number)}",
        user_id=f"u-{name_of(number)}",
        generation=None,
        consumer_type=name_of(number)[:8].upper(),
    )
    writes: tuple[api.PlacementCommand, ...] = (
        api.CreateResourceClass(now=it.now, name=name),
        api.CreateProvider(now=it.now, uuid=provider, name=name),
        api.AddInventory(now=it.now, provider=provider, resource_class=name, inventory=Inventory(total=4)),
        api.SetAllocations(now=it.now, consumers={consumer: allocations}),
        api.DeleteAllocations(now=it.now, consumer=consumer),
        api.DeleteProvider(now=it.now, uuid=provider),
        api.DeleteResourceClass(now=it.now, name=name),
    )
    it.give(*(PlacementWrite(command=write) for write in writes))


def lived(it: Commands, number: int) -> None:
    """A back end with a node builds a guest, which is deleted; then it is empty and disabled."""
    name, uuid = "backend", uuid_of(number)
    node = f.NodeReport(name=f"{name}/node", vcpus=64, memory_mb=10**6, disk_gb=10**4)
    it.now += 1.0
    it.give(f.ReportBackend(name=name, at=it.now, nodes=(node,)))
    request = asked(number, force_hosts=[f"{name}/node"])
    it.give(f.CreateGuest(request=request, name=name_of(number), image=name_of(number)))
    claim = it.machine.state.lives.guests[uuid].claim
    it.give(
        f.BeginBuild(uuid=uuid, claim=claim),
        f.ConfirmGuest(uuid=uuid, claim=claim, power="on", key=name_of(number)),
        f.DeleteGuest(uuid=uuid),
        f.ClearClaim(uuid=uuid, claim=claim),
    )


def claimed_in_a_region(it: Commands, number: int) -> None:
    """A request is about to be placed in a region that then refuses it."""
    request = asked(number)
    it.give(
        g.ClaimInRegion(id=name_of(number), region="r", request=request),
        g.SettleRegionClaim(id=name_of(number), project=request.project_id),
    )


def refused(it: Commands, number: int) -> None:
    """Commands about what there is not, and a guest that fits nowhere."""
    name, uuid = name_of(number), uuid_of(number)
    it.try_out(p.Release(uuids=(uuid,)))
    it.try_out(p.Resize(uuid=uuid, request=asked(number)))
    it.try_out(p.SetService(name=name, disabled=True))
    it.try_out(p.Place(request=asked(number, availability_zone=name)))
    it.try_out(p.Place(request=asked(number, force_hosts=[name])))
    it.try_out(p.SetTraits(name="n0", traits=(name,)))
    it.try_out(p.SetInventory(name="n0", inventories={**OWN, name: Inventory(total=1)}))
    it.try_out(c.Grant(user=name, role="member", scope=f"project:{name}"))
    it.try_out(c.SetLimits(scope="cloud", limits={name: 1}))
    it.try_out(s.DeleteVolumes(uuids=(uuid,)))
    it.try_out(s.PlaceVolume(request=volume(number, availability_zone=name)))


CHANGES: Final[Mapping[str, Callable[[Commands, int], None]]] = {
    each.__name__: each
    for each in (
        placed,
        held,
        moved,
        stored,
        together,
        backed,
        tenanted,
        catalogued,
        grouped,
        hosted,
        claimed,
        lived,
        claimed_in_a_region,
        refused,
    )
}
