"""The matrix: each role, each method, one's own project or domain and a foreign one; allowed or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from hostler import Drain, Plan
from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as f
from hostler.core import region_commands as g
from hostler.core import storage_commands as s
from hostler.core.machine import catalog_queries as k
from hostler.core.machine import group_queries as gq
from hostler.core.machine import instance_queries as i
from hostler.core.machine import lifecycle_queries as lq
from hostler.core.machine import plan_queries as m
from hostler.core.machine import provider_queries as v
from hostler.core.machine import queries as q
from hostler.core.machine import ranking as r
from hostler.core.machine import region_queries as rq
from hostler.core.machine import tenant_queries as t
from hostler.core.machine import volume_backend_queries as vb
from hostler.core.machine import volume_queries as vq
from hostler.core.machine import volume_ranking as vr
from hostler.core.machine import what_if as x
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.question import Query
from hostler.core.machine.region_claims import RegionGuest
from hostler.core.machine.report_columns import columns_of
from hostler.core.rpc.methods import METHODS
from hostler.core.tenancy import commands as c
from hostler.core.tenancy.errors import NotAllowed
from hostler.core.tenancy.rights import FOR_OTHERS
from hostler.core.tenancy.volume_rights import STORAGE_FOR_OTHERS
from hostler.placement.storage.pools.request import VolumeType
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.host import Aggregate
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.request import Flavor, Image
from tests.core.orders import asked, hosts, machine, order, place, uuid_of
from tests.volumes.values import place as place_volume
from tests.volumes.values import report, reports, volume_type, wish

USERS: Final = ("nobody", "reader", "member", "project_admin", "domain_admin", "cloud_reader", "cloud_admin")
OWN: Final = {
    "project": "own",
    "domain": "home",
    "guest": uuid_of(1),
    "group": uuid_of(61),
    "user": "colleague",
    "volume": uuid_of(101),
    "snapshot": uuid_of(111),
    "backup": uuid_of(121),
    "volume_group": uuid_of(131),
    "region_guest": uuid_of(141),
}
FOREIGN: Final = {
    "project": "other",
    "domain": "abroad",
    "guest": uuid_of(2),
    "group": uuid_of(62),
    "user": "stranger",
    "volume": uuid_of(102),
    "snapshot": uuid_of(112),
    "backup": uuid_of(122),
    "volume_group": uuid_of(132),
    "region_guest": uuid_of(142),
}

NOWHERE: Final = {
    "project": "naught",
    "domain": "nowhere",
    "guest": uuid_of(3),
    "group": uuid_of(63),
    "user": "nemo",
    "volume": uuid_of(103),
    "snapshot": uuid_of(113),
    "backup": uuid_of(123),
    "volume_group": uuid_of(133),
    "region_guest": uuid_of(143),
}
"""Names of what there is not."""


def world() -> ServiceMachine:
    """Two domains with a project, a guest, volumes and a user each; a user of each role in the first; pools, hosts,
    storage, a token."""
    made = machine()
    setup: list[Any] = [
        reports(report("node-0@lvm", ("a", 900))),
        volume_type("fast"),
        s.SetBackupService(host="node-0"),
    ]
    for where in (OWN, FOREIGN):
        setup += [
            c.CreateDomain(id=where["domain"]),
            c.CreateProject(id=where["project"], domain=where["domain"]),
            c.CreateProject(id=f"{where['project']}-below", parent=where["project"]),
            c.CreateUser(id=where["user"], domain=where["domain"]),
            c.CreateToken(id=f"of-{where['user']}", user=where["user"], digest=bytes(32), expires=2e9),
            place(int(where["guest"][-1]), project=where["project"]),
            p.AddServerGroup(uuid=where["group"], policy="affinity", project_id=where["project"]),
            place_volume(int(where["volume"][-2:], 16), project=where["project"]),
            s.CreateVolumeSnapshot(uuid=where["volume"], snapshot_id=where["snapshot"]),
            s.CreateVolumeBackup(uuid=where["volume"], backup_id=where["backup"]),
            s.PlaceVolumeGroup(
                volumes=(wish(project=where["project"]),), project_id=where["project"], group_id=where["volume_group"]
            ),
        ]
    setup += [c.CreateUser(id=name, domain="home") for name in USERS]
    setup += [
        c.Grant(user="reader", role="reader", scope="project:own"),
        c.Grant(user="member", role="member", scope="project:own"),
        c.Grant(user="project_admin", role="project_admin", scope="project:own"),
        c.Grant(user="domain_admin", role="domain_admin", scope="domain:home"),
        c.Grant(user="cloud_reader", role="reader", scope="cloud"),
        c.Grant(user="cloud_admin", role="cloud_admin", scope="cloud"),
        c.CreatePool(id="pool"),
        c.GrantPool(id="pool", scope="project:other"),
        c.UngrantPool(id="pool", scope="project:other"),
    ]
    for command in setup:
        made.apply(order(command))
    for where in (OWN, FOREIGN):
        claims = made.state.region_claims
        claims.guests[where["region_guest"]] = RegionGuest("eu", where["project"], {})
        claims.index.guest(where["region_guest"], "eu", where["project"])
    return made


MEMBERS = {"member", "project_admin", "domain_admin", "cloud_admin"}
READERS = {"reader", "cloud_reader", *MEMBERS}
PROJECT_ADMINS = {"project_admin", "domain_admin", "cloud_admin"}
DOMAIN_ADMINS = {"domain_admin", "cloud_admin"}
CLOUD = {"cloud_admin"}
CLOUD_READERS = {"cloud_reader", "cloud_admin"}

Make = Callable[[dict[str, str]], Any]

SCOPED: Final[dict[str, tuple[Make, set[str]]]] = {
    "region_guests": (lambda w: rq.RegionGuests(project=w["project"]), READERS),
    "place": (lambda w: place(9, project=w["project"]), MEMBERS),
    "hold": (lambda w: p.Hold(request=asked(9, project=w["project"]), expires_in=9.0), MEMBERS),
    "confirm_hold": (lambda w: p.ConfirmHold(uuids=(w["guest"],)), MEMBERS),
    "place_many": (lambda w: p.PlaceMany(requests=(asked(9, project=w["project"]),)), MEMBERS),
    "release": (lambda w: p.Release(uuids=(w["guest"],)), MEMBERS),
    "spawned": (lambda w: p.Spawned(uuids=(w["guest"],)), MEMBERS),
    "resize": (lambda w: p.Resize(uuid=w["guest"], request=asked(vcpus=2)), MEMBERS),
    "begin_move": (lambda w: p.BeginMove(uuid=w["guest"], kind="resize", request=asked(vcpus=2)), MEMBERS),
    "confirm_move": (lambda w: p.ConfirmMove(uuid=w["guest"]), MEMBERS),
    "revert_move": (lambda w: p.RevertMove(uuid=w["guest"]), MEMBERS),
    "create_guest": (lambda w: f.CreateGuest(request=asked(9, project=w["project"])), MEMBERS),
    "start_guest": (lambda w: f.StartGuest(uuid=w["guest"]), MEMBERS),
    "stop_guest": (lambda w: f.StopGuest(uuid=w["guest"]), MEMBERS),
    "delete_guest": (lambda w: f.DeleteGuest(uuid=w["guest"]), MEMBERS),
    "resize_guest": (
        lambda w: f.ResizeGuest(uuid=w["guest"], request=asked(vcpus=2, project=w["project"])),
        MEMBERS,
    ),
    "snapshot_guest": (lambda w: f.SnapshotGuest(uuid=w["guest"]), MEMBERS),
    "delete_guest_snapshot": (lambda w: f.DeleteGuestSnapshot(uuid=w["guest"], snapshot=uuid_of(90)), MEMBERS),
    "attach_volume": (lambda w: f.AttachVolume(uuid=w["guest"], volume=uuid_of(90)), MEMBERS),
    "detach_volume": (lambda w: f.DetachVolume(uuid=w["guest"], volume=uuid_of(90)), MEMBERS),
    "create_volume": (lambda w: f.CreateVolume(request=wish(project=w["project"])), MEMBERS),
    "volume lives of a project": (lambda w: lq.VolumeLives(project=w["project"]), READERS),
    "guests of a project": (lambda w: lq.Guests(project=w["project"]), READERS),
    "create_project": (lambda w: c.CreateProject(id="new", parent=w["project"]), PROJECT_ADMINS),
    "create_project in a domain": (lambda w: c.CreateProject(id="new", domain=w["domain"]), DOMAIN_ADMINS),
    "add_server_group": (
        lambda w: p.AddServerGroup(uuid=uuid_of(72), policy="affinity", project_id=w["project"]),
        MEMBERS,
    ),
    "remove_server_group": (lambda w: p.RemoveServerGroup(uuid=w["group"]), MEMBERS),
    "instances of a project": (lambda w: i.Instances(project=w["project"]), READERS),
    "server_groups of a project": (lambda w: gq.ServerGroups(project=w["project"]), READERS),
    "flavors": (lambda w: k.Flavors(project=w["project"]), READERS),
    "images": (lambda w: k.Images(project=w["project"]), READERS),
    "delete_project": (lambda w: c.DeleteProject(id=f"{w['project']}-below"), PROJECT_ADMINS),
    "set_limits": (lambda w: c.SetLimits(scope=f"project:{w['project']}", limits={"VCPU": 9}), DOMAIN_ADMINS),
    "set_limits below": (
        lambda w: c.SetLimits(scope=f"project:{w['project']}-below", limits={"VCPU": 9}),
        PROJECT_ADMINS,
    ),
    "grant": (lambda w: c.Grant(user="nobody", role="member", scope=f"project:{w['project']}"), PROJECT_ADMINS),
    "grant domain_admin": (
        lambda w: c.Grant(user="nobody", role="domain_admin", scope=f"domain:{w['domain']}"),
        DOMAIN_ADMINS,
    ),
    "create_user": (lambda w: c.CreateUser(id="new", domain=w["domain"]), DOMAIN_ADMINS),
    "delete_user": (lambda w: c.DeleteUser(id=w["user"]), DOMAIN_ADMINS),
    "create_token": (
        lambda w: c.CreateToken(id="new", user=w["user"], digest=bytes(32), expires=2e9),
        DOMAIN_ADMINS,
    ),
    "revoke_token": (lambda w: c.RevokeToken(id=f"of-{w['user']}"), DOMAIN_ADMINS),
    "place_across": (lambda w: g.PlaceAcross(requests=(asked(9, project=w["project"]),)), MEMBERS),
    "claim_in_region": (
        lambda w: g.ClaimInRegion(id="c", region="r", request=asked(9, project=w["project"])),
        MEMBERS,
    ),
    "region_of": (lambda w: rq.RegionOf(uuid=w["region_guest"]), READERS),
    "instance": (lambda w: q.Instance(uuid=w["guest"]), READERS),
    "fits": (lambda w: q.Fits(request=asked(project=w["project"])), READERS),
    "fits_many": (lambda w: q.FitsMany(requests=[asked(project=w["project"])] * 2), READERS),
    "usage": (lambda w: t.ShowUsage(scope=f"project:{w['project']}"), READERS),
    "usage of a domain": (lambda w: t.ShowUsage(scope=f"domain:{w['domain']}"), {*DOMAIN_ADMINS, "cloud_reader"}),
    "projects": (lambda w: t.Projects(domain=w["domain"]), {*DOMAIN_ADMINS, "cloud_reader"}),
    "users": (lambda w: t.Users(domain=w["domain"]), DOMAIN_ADMINS),
    "tokens": (lambda w: t.Tokens(user=w["user"]), DOMAIN_ADMINS),
    "place_volume": (lambda w: place_volume(9, project=w["project"]), MEMBERS),
    "retry_volume": (lambda w: s.RetryVolume(uuid=w["volume"]), MEMBERS),
    "delete_volumes": (lambda w: s.DeleteVolumes(uuids=(w["volume"],)), MEMBERS),
    "extend_volume": (lambda w: s.ExtendVolume(uuid=w["volume"], new_size_gb=20), MEMBERS),
    "begin_retype": (lambda w: s.BeginRetype(uuid=w["volume"], volume_type="fast"), MEMBERS),
    "confirm_volume_move": (lambda w: s.ConfirmVolumeMove(uuid=w["volume"]), MEMBERS),
    "revert_volume_move": (lambda w: s.RevertVolumeMove(uuid=w["volume"]), MEMBERS),
    "create_volume_snapshot": (lambda w: s.CreateVolumeSnapshot(uuid=w["volume"]), MEMBERS),
    "delete_volume_snapshots": (lambda w: s.DeleteVolumeSnapshots(uuids=(w["snapshot"],)), MEMBERS),
    "create_volume_backup": (lambda w: s.CreateVolumeBackup(uuid=w["volume"]), MEMBERS),
    "delete_volume_backups": (lambda w: s.DeleteVolumeBackups(uuids=(w["backup"],)), MEMBERS),
    "place_volume_group": (
        lambda w: s.PlaceVolumeGroup(volumes=(wish(project=w["project"]),), project_id=w["project"]),
        MEMBERS,
    ),
    "delete_volume_group": (lambda w: s.DeleteVolumeGroup(uuid=w["volume_group"]), MEMBERS),
    "place_together": (
        lambda w: s.PlaceTogether(request=asked(9, project=w["project"]), volumes=(wish(project=w["project"]),)),
        MEMBERS,
    ),
    "volumes of a project": (lambda w: vq.Volumes(project=w["project"]), READERS),
    "volume": (lambda w: vq.ShowVolume(uuid=w["volume"]), READERS),
    "volume_snapshots of a project": (lambda w: vq.VolumeSnapshots(project=w["project"]), READERS),
    "volume_snapshots of a volume": (lambda w: vq.VolumeSnapshots(volume=w["volume"]), READERS),
    "volume_backups of a project": (lambda w: vq.VolumeBackups(project=w["project"]), READERS),
    "volume_groups of a project": (lambda w: vq.VolumeGroups(project=w["project"]), READERS),
    "volume_types": (lambda w: vq.VolumeTypes(project=w["project"]), READERS),
    "fits_volume": (lambda w: vq.FitsVolume(request=wish(project=w["project"])), READERS),
}
"""Method -> what it does to a place, and whose own place it may be. Foreign places are for cloud admins, and questions
about them for cloud readers, unless a role is one of the cloud anyway."""

OF_THE_CLOUD: Final[dict[str, tuple[Any, set[str]]]] = {
    "move": (p.Move(uuid=uuid_of(1), request=asked()), CLOUD),
    "place_candidates": (p.PlaceCandidates(request=asked(9), candidates={}), CLOUD),
    "begin_move of a migration": (p.BeginMove(uuid=uuid_of(1)), CLOUD),
    "report_hosts": (columns_of([HostReport(host=hosts(1)[0], at=1e9)]), CLOUD),
    "moves": (q.ShowMoves(), CLOUD_READERS),
    "rank": (r.Rank(request=asked()), CLOUD_READERS),
    "plan": (m.PlanMoves(goal=Drain(hosts=("node-0",))), CLOUD_READERS),
    "check_plan": (m.CheckPlan(plan=Plan(goal={}, summary="", complete=True)), CLOUD_READERS),
    "drift": (q.ShowDrift(), CLOUD_READERS),
    "providers": (v.Providers(), CLOUD_READERS),
    "provider": (v.ShowProvider(name="node-0"), CLOUD_READERS),
    "aggregates": (v.Aggregates(), CLOUD_READERS),
    "allocations": (v.Allocations(), CLOUD_READERS),
    "allocation": (v.ShowAllocation(consumer=uuid_of(1)), CLOUD_READERS),
    "add_hosts": (p.AddHosts(hosts=hosts(4)[3:]), CLOUD),
    "remove_host": (p.RemoveHost(name="node-2"), CLOUD),
    "set_service": (p.SetService(name="node-0", disabled=True), CLOUD),
    "heartbeats": (p.Heartbeats(names=("node-0",)), CLOUD),
    "report": (p.Report(name="node-0", figures={"num_io_ops": 1}), CLOUD),
    "add_provider": (p.AddProvider(name="new"), CLOUD),
    "set_parent": (p.SetParent(name="node-2"), CLOUD),
    "set_traits": (p.SetTraits(name="node-0", traits=()), CLOUD),
    "set_inventory": (p.SetInventory(name="node-2", inventories={}), CLOUD),
    "set_aggregates": (p.SetAggregates(name="node-0", aggregates=()), CLOUD),
    "update_aggregate": (p.UpdateAggregate(aggregate=Aggregate(uuid=uuid_of(70), name="a")), CLOUD),
    "remove_aggregate": (p.RemoveAggregate(uuid=uuid_of(71)), CLOUD),
    "add_server_group of the cloud": (p.AddServerGroup(uuid=uuid_of(71), policy="affinity"), CLOUD),
    "remove_server_group of the cloud": (p.RemoveServerGroup(uuid=uuid_of(99)), CLOUD),
    "set_policy": (p.SetPolicy(policy={}), CLOUD),
    "create_domain": (c.CreateDomain(id="new"), CLOUD),
    "delete_domain": (c.DeleteDomain(id="none"), CLOUD),
    "set_identity_suffixes": (c.SetIdentitySuffixes(domain="home", suffixes=(".home.org",)), CLOUD),
    "create_user with an identity": (c.CreateUser(id="new", domain="home", identities=("a.home.org",)), CLOUD),
    "adopt": (c.CreateProject(id="new", domain="home", adopt=True), CLOUD),
    "create_flavor": (c.CreateFlavor(flavor=Flavor(name="new", vcpus=1, memory_mb=1)), CLOUD),
    "delete_flavor": (c.DeleteFlavor(name="none"), CLOUD),
    "create_image": (c.CreateImage(name="new", image=Image()), CLOUD),
    "delete_image": (c.DeleteImage(name="none"), CLOUD),
    "settle_region_claim": (g.SettleRegionClaim(id="c"), CLOUD),
    "forget_region_guests": (g.ForgetRegionGuests(uuids=(uuid_of(141),)), CLOUD),
    "instances": (i.Instances(), set(USERS)),
    "server_groups": (gq.ServerGroups(), set(USERS)),
    "guests": (lq.Guests(), set(USERS)),
    "volume_lives": (lq.VolumeLives(), set(USERS)),
    "adopt_guest": (
        f.AdoptGuest(backend="a", key="k", node="node-0", request=asked(9, project="own")),
        CLOUD,
    ),
    "move_guest": (f.MoveGuest(uuid=uuid_of(1)), CLOUD),
    "resize_guest to a node": (f.ResizeGuest(uuid=uuid_of(1), request=asked(vcpus=2), target="node-0"), CLOUD),
    "guest_snapshots": (lq.GuestSnapshots(uuid=uuid_of(99)), CLOUD_READERS),
    "begin_snapshot": (f.BeginSnapshot(uuid=uuid_of(1), snapshot=uuid_of(2), claim=1), CLOUD),
    "report_pools": (f.ReportPools(name="a", kind="model", at=1e9, pools=()), CLOUD),
    "begin_volume": (f.BeginVolume(volume=uuid_of(1), claim=1), CLOUD),
    "guest": (lq.ShowGuest(uuid=uuid_of(99)), CLOUD_READERS),
    "backends": (lq.ListBackends(), CLOUD_READERS),
    "set_backend": (f.SetBackend(name="a", enabled=False), CLOUD),
    "create_guest on a forced host": (
        f.CreateGuest(request=asked(9, project="own", force_hosts=["node-0"])),
        CLOUD,
    ),
    "begin_build": (f.BeginBuild(uuid=uuid_of(1), claim=1), CLOUD),
    "report_backend": (f.ReportBackend(name="a", at=1e9, nodes=()), CLOUD),
    "all flavors": (k.Flavors(), set(USERS)),
    "all images": (k.Images(), set(USERS)),
    "flavor": (k.ShowFlavor(name="none"), set(USERS)),
    "image": (k.ShowImage(name="none"), set(USERS)),
    "delete_user who is more": (c.DeleteUser(id="cloud_admin"), CLOUD),
    "create_pool": (c.CreatePool(id="new"), CLOUD),
    "delete_pool": (c.DeletePool(id="pool"), CLOUD),
    "set_pool_hosts": (c.SetPoolHosts(id="pool", add=("node-0",)), CLOUD),
    "grant_pool": (c.GrantPool(id="pool", scope="project:own"), CLOUD),
    "ungrant_pool": (c.UngrantPool(id="pool", scope="project:own"), CLOUD),
    "grant cloud_admin": (c.Grant(user="nobody", role="cloud_admin", scope="cloud"), CLOUD),
    "revoke": (c.Revoke(user="cloud_reader", role="reader", scope="cloud"), CLOUD),
    "a forced host": (place(9, project="own", force_hosts=["node-0"]), CLOUD),
    "a guest of no project": (place(9), CLOUD),
    "a guest of a project nobody knows": (place(9, project="unheard"), CLOUD),
    "hosts": (q.Hosts(), CLOUD_READERS),
    "host": (q.ShowHost(name="node-0"), CLOUD_READERS),
    "explain": (q.Explain(request=asked()), CLOUD_READERS),
    "what_if": (x.WhatIf(commands=[place(9)]), CLOUD_READERS),
    "capacity": (q.Capacity(), CLOUD_READERS),
    "domains": (t.Domains(), CLOUD_READERS),
    "pools": (t.ListPools(), CLOUD_READERS),
    "policy": (q.ShowPolicy(), CLOUD_READERS),
    "all projects": (t.Projects(), CLOUD_READERS),
    "all users": (t.Users(), CLOUD),
    "begin_volume_migration": (s.BeginVolumeMigration(uuid=uuid_of(101)), CLOUD),
    "manage_volume": (s.ManageVolume(request=wish(project="own"), backend="node-0@lvm#a"), CLOUD),
    "a volume of no project": (place_volume(9), CLOUD),
    "a volume with a type of its own": (place_volume(9, project="own", volume_type={"name": "x"}), CLOUD),
    "a volume on a backend": (place_volume(9, project="own", resource_backend="node-0@lvm"), CLOUD),
    "create_volume on a backend": (
        f.CreateVolume(request=wish(project="own", resource_backend="node-0@lvm")),
        CLOUD,
    ),
    "create_guest with a volume on a backend": (
        f.CreateGuest(
            request=asked(9, project="own"),
            volumes=(f.GuestVolume(request=wish(project="own", resource_backend="node-0@lvm")),),
        ),
        CLOUD,
    ),
    "a volume with alternates": (place_volume(9, project="own", alternates=1), CLOUD),
    "a volume by capabilities": (place_volume(9, project="own", scheduler_hints={"query": "[]"}), CLOUD),
    "a volume beside a foreign one": (
        place_volume(9, project="own", scheduler_hints={"same_host": uuid_of(102)}),
        CLOUD,
    ),
    "a volume near a foreign guest": (
        place_volume(9, project="own", scheduler_hints={"local_to_instance": uuid_of(2)}),
        CLOUD,
    ),
    "a retype to a type of one's own": (s.BeginRetype(uuid=uuid_of(101), volume_type=VolumeType(name="x")), CLOUD),
    "report_volume_backends": (reports(report("new@lvm", ("a", 1))), CLOUD),
    "set_volume_backend": (s.SetVolumeBackend(host="node-0@lvm", disabled=True), CLOUD),
    "remove_volume_backend": (s.RemoveVolumeBackend(host="node-0@lvm"), CLOUD),
    "set_backup_service": (s.SetBackupService(host="x"), CLOUD),
    "remove_backup_service": (s.RemoveBackupService(host="x"), CLOUD),
    "create_volume_type": (volume_type("new"), CLOUD),
    "delete_volume_type": (c.DeleteVolumeType(name="none"), CLOUD),
    "volume_backends": (vb.VolumeBackends(), CLOUD_READERS),
    "backup_services": (vb.BackupServices(), CLOUD_READERS),
    "volume_pools": (vb.VolumePools(), CLOUD_READERS),
    "explain_volume": (vq.ExplainVolume(request=wish()), CLOUD_READERS),
    "rank_volume": (vr.RankVolume(request=wish()), CLOUD_READERS),
    "what_if on volumes": (x.WhatIf(commands=[place_volume(9)]), CLOUD_READERS),
    "volumes": (vq.Volumes(), set(USERS)),
    "volumes of a backend": (vq.Volumes(backend="node-0@lvm"), CLOUD_READERS),
    "volume_snapshots": (vq.VolumeSnapshots(), set(USERS)),
    "volume_backups": (vq.VolumeBackups(), set(USERS)),
    "volume_groups": (vq.VolumeGroups(), set(USERS)),
    "all volume types": (vq.VolumeTypes(), set(USERS)),
    "volume_type": (vq.ShowVolumeType(name="none"), set(USERS)),
    "a volume that is not there": (s.DeleteVolumes(uuids=(uuid_of(99),)), CLOUD),
    "a volume that is not there, asked": (vq.ShowVolume(uuid=uuid_of(99)), CLOUD_READERS),
    "what is not there": (p.Release(uuids=(uuid_of(99),)), CLOUD),
    "what is not there, asked": (q.Instance(uuid=uuid_of(99)), CLOUD_READERS),
}


def allowed(user: str, what: Any) -> bool:
    """True unless the user may not do it; what is wrong with it otherwise does not matter."""
    made = world()
    try:
        if isinstance(what, Query):
            q.answer(made.state, user, what)
        else:
            made.apply(order(what, user=user))
    except NotAllowed:
        return False
    except HostlerError:
        return True
    return True


@pytest.mark.parametrize("method", SCOPED)
def test_a_role_reaches_its_own_place_and_no_other(method: str) -> None:
    make, own = SCOPED[method]
    foreign = {"cloud_admin"} | ({"cloud_reader"} if "cloud_reader" in own else set())
    assert {user for user in USERS if allowed(user, make(OWN))} == own
    assert {user for user in USERS if allowed(user, make(FOREIGN))} == foreign


def refusal(made: ServiceMachine, user: str, what: Any, names: dict[str, str]) -> tuple[Any, ...]:
    """Code, message, field and hint of the error, with what is named replaced by its kind."""
    if isinstance(what, Query):
        ask: Callable[[], Any] = partial(q.answer, made.state, user, what)
    else:
        ask = partial(made.apply, order(what, user=user))
    with pytest.raises(HostlerError) as error:
        ask()
    text = str(error.value.args[0])
    for kind, name in names.items():
        text = re.sub(rf"\b{re.escape(name)}\b", kind, text)
    return error.value.code, text, error.value.field, error.value.hint


@pytest.mark.parametrize("method", SCOPED)
def test_what_is_anothers_is_refused_like_what_is_not_there(method: str) -> None:
    make, _ = SCOPED[method]
    made = world()
    for user in ("nobody", "member", "domain_admin"):
        of_another = refusal(made, user, make(FOREIGN), FOREIGN)
        assert of_another == refusal(made, user, make(NOWHERE), NOWHERE)


@pytest.mark.parametrize("what", OF_THE_CLOUD)
def test_what_is_the_clouds_is_for_the_clouds_roles(what: str) -> None:
    command, expected = OF_THE_CLOUD[what]
    assert {user for user in USERS if allowed(user, command)} == expected


def test_the_guests_of_all_projects_in_regions_are_for_readers_of_the_cloud() -> None:
    assert {user for user in USERS if allowed(user, rq.RegionGuests())} == CLOUD_READERS


def test_the_matrix_has_every_method() -> None:
    tried = {name.split(" ")[0] for name in (*SCOPED, *OF_THE_CLOUD)}
    free = {
        "hello",
        "status",
        "batch",
        "watch",
        "unwatch",
        "snapshot",
        "backup",
        "reconcile_status",
        "shadow_status",
        "check_backend",
        "console",
        "strangers",
        "members",
        "lead",
        "snapshot_files",
        "snapshot_part",
        "regions",
        "region_summary",
    }  # tests/rpc tries these
    assert set(METHODS) - tried == free


def test_what_is_refused_changes_nothing() -> None:
    made = world()
    before = made.state.fleet.version, made.encode_result(made.state.tenants)
    for method, (make, own) in SCOPED.items():
        if "nobody" not in own and method not in (
            "region_of",
            "instance",
            "fits",
            "fits_many",
            "usage",
            "projects",
            "users",
            "tokens",
        ):
            what = make(FOREIGN)
            if not isinstance(what, Query):
                with pytest.raises(NotAllowed):
                    made.apply(order(what, user="nobody"))
    assert (made.state.fleet.version, made.encode_result(made.state.tenants)) == before


def test_commands_that_others_may_give_are_read_for_others_whatever_their_length() -> None:
    commands = {type(make(OWN)) for make, users in SCOPED.values() if users - CLOUD_READERS}
    commands = {kind for kind in commands if issubclass(kind, p.Command)}
    assert commands <= {*FOR_OTHERS, *STORAGE_FOR_OTHERS}
