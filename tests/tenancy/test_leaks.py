"""What a tenant is told is the same for what is not there and for what is another's; and who decides over whom."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.machine import catalog_queries as k
from hostler.core.machine import queries as q
from hostler.core.machine import tenant_queries as t
from hostler.core.machine import volume_queries as vq
from hostler.core.machine.instance_queries import Instances
from hostler.core.machine.machine import ServiceMachine
from hostler.core.machine.orders import Order
from hostler.core.machine.question import Query
from hostler.core.machine.volume_records import KeptVolume
from hostler.core.tenancy import commands as c
from hostler.placement.storage.pools.request import VolumeSpec, VolumeType
from hostler.placement.storage.pools.volumes import Volume
from hostler.placement.types.errors import HostlerError
from hostler.placement.types.request import Flavor, Image
from tests.core.orders import NOW, order, place, uuid_of
from tests.volumes.values import report, reports, wish

from .worlds import asking, do, old, placed, refused, replayed, two_domains


def world() -> ServiceMachine:
    """Guest 1 is ann's in a1; a token of hers; a project a2 below a1; limits of a1; user zoe of domain a."""
    made = two_domains()
    placed(made, "ann", "a1", 1)
    do(
        made,
        c.CreateToken(id="of-ann", user="ann", digest=bytes(32), expires=2e9),
        c.CreateProject(id="a2", parent="a1"),
        c.SetLimits(scope="project:a1", limits={"VCPU": 9}),
        p.AddServerGroup(uuid=uuid_of(61), policy="affinity", project_id="a1"),
    )
    return made


PAIRS: Final[dict[str, tuple[str, str, str, Any]]] = {
    # user, name of another's, name of none, what is asked with a name
    "release": ("bob", uuid_of(1), uuid_of(8), lambda name: p.Release(uuids=(name,))),
    "spawned": ("bob", uuid_of(1), uuid_of(8), lambda name: p.Spawned(uuids=(name,))),
    "resize": ("bob", uuid_of(1), uuid_of(8), lambda name: p.Resize(uuid=name, request=asking("b1"))),
    "begin_move": (
        "bob",
        uuid_of(1),
        uuid_of(8),
        lambda name: p.BeginMove(uuid=name, kind="resize", request=asking("b1")),
    ),
    "confirm_move": ("bob", uuid_of(1), uuid_of(8), lambda name: p.ConfirmMove(uuid=name)),
    "revert_move": ("bob", uuid_of(1), uuid_of(8), lambda name: p.RevertMove(uuid=name)),
    "move": ("bob", uuid_of(1), uuid_of(8), lambda name: p.Move(uuid=name, request=asking("b1"))),
    "instance": ("bob", uuid_of(1), uuid_of(8), lambda name: q.Instance(uuid=name)),
    "same_host": (
        "bob",
        uuid_of(1),
        uuid_of(8),
        lambda name: p.Place(request=asking("b1", scheduler_hints={"same_host": [name]})),
    ),
    "server group": ("bob", uuid_of(61), uuid_of(68), lambda name: p.Place(request=asking("b1", group=name))),
    "remove_server_group": ("bob", uuid_of(61), uuid_of(68), lambda name: p.RemoveServerGroup(uuid=name)),
    "place in a project": ("bob", "a1", "a9", lambda name: p.Place(request=asking(name))),
    "fits in a project": ("bob", "a1", "a9", lambda name: q.Fits(request=asking(name))),
    "fits_many in a project": ("bob", "a1", "a9", lambda name: q.FitsMany(requests=[asking("b1"), asking(name)])),
    "usage": ("bea", "a1", "a9", lambda name: t.ShowUsage(scope=f"project:{name}")),
    "usage of a domain": ("bea", "a", "z", lambda name: t.ShowUsage(scope=f"domain:{name}")),
    "set_limits": ("bea", "a1", "a9", lambda name: c.SetLimits(scope=f"project:{name}", limits={})),
    "delete_project": ("bea", "a2", "a9", lambda name: c.DeleteProject(id=name)),
    "create_project below": ("bea", "a1", "a9", lambda name: c.CreateProject(id="new", parent=name)),
    "create_project in": ("bea", "a", "z", lambda name: c.CreateProject(id="new", domain=name)),
    "create_user in": ("bea", "a", "z", lambda name: c.CreateUser(id="new", domain=name)),
    "delete_user": ("bea", "ann", "zzz", lambda name: c.DeleteUser(id=name)),
    "grant to": ("pat", "ann", "zzz", lambda name: c.Grant(user=name, role="member", scope="project:b1")),
    "revoke from": ("pat", "ann", "zzz", lambda name: c.Revoke(user=name, role="member", scope="project:b1")),
    "grant in": ("pat", "a1", "a9", lambda name: c.Grant(user="bob", role="member", scope=f"project:{name}")),
    "create_token": ("bea", "ann", "zzz", lambda name: c.CreateToken(id="x", user=name, digest=bytes(32), expires=2e9)),
    "revoke_token": ("bea", "of-ann", "of-zzz", lambda name: c.RevokeToken(id=name)),
    "tokens": ("bea", "ann", "zzz", lambda name: t.Tokens(user=name)),
    "users": ("bea", "a", "z", lambda name: t.Users(domain=name)),
    "projects": ("bea", "a", "z", lambda name: t.Projects(domain=name)),
    "instances of a project": ("bob", "a1", "a9", lambda name: Instances(project=name)),
    "flavors of a project": ("bob", "a1", "a9", lambda name: k.Flavors(project=name)),
}


@pytest.mark.parametrize("what", PAIRS)
def test_another_tenants_is_told_as_what_is_not_there(what: str) -> None:
    user, another, none, make = PAIRS[what]
    told = [answered(user, make(name), name) for name in (another, none)]
    assert told[0] == told[1]


def answered(user: str, what: Any, name: str) -> tuple[Any, ...]:
    """Code, message, field and hint of what is refused, without the name that was asked with."""
    made = world()
    ask = partial(q.answer, made.state, user) if isinstance(what, Query) else partial(do, made, user=user)
    with pytest.raises(HostlerError) as error:
        ask(what)
    found = error.value
    return found.code, re.sub(rf"\b{re.escape(name)}\b", "NAME", str(found.args[0])), found.field, found.hint


def test_suggestions_are_of_what_one_may_see() -> None:
    made = world()
    _, told = refused(made, c.Grant(user="bab", role="member", scope="project:b1"), "pat")
    assert "bob" in told
    assert "ann" not in told
    assert "ann" in refused(made, c.Grant(user="anm", role="member", scope="project:b1"), "root")[1]


def test_who_else_may_use_a_flavor_image_or_volume_type_is_not_told() -> None:
    made = world()
    do(made, c.Grant(user="bob", role="reader", scope="project:a2"))
    for number, projects in enumerate((("a1", "b1"), ("a1",), ())):
        do(
            made,
            c.CreateFlavor(flavor=Flavor(name=f"f{number}", vcpus=1, memory_mb=1), projects=projects),
            c.CreateImage(name=f"f{number}", image=Image(), projects=projects),
            c.CreateVolumeType(volume_type=VolumeType(name=f"f{number}"), projects=projects),
        )
    expected = {"root": [["a1", "b1"], ["a1"], []], "ann": [["a1"], ["a1"], []], "bob": [["a2", "b1"], ["a2"], []]}
    for user, shown in expected.items():
        for all_of, one in (
            (k.Flavors(), k.ShowFlavor),
            (k.Images(), k.ShowImage),
            (vq.VolumeTypes(), vq.ShowVolumeType),
        ):
            assert [each.projects for each in q.answer(made.state, user, all_of)] == shown
            lines = [q.answer(made.state, user, one(name=f"f{number}")) for number in range(3)]
            assert [each.projects for each in lines] == shown


def test_users_see_of_a_volume_type_what_cinder_shows_them() -> None:
    made = world()
    public = {"multiattach": "<is> True", "replication_enabled": None, "RESKEY:availability_zones": "nova"}
    extra_specs = {**public, "volume_backend_name": "array-7", "tier": "gold"}
    gold = VolumeType(name="gold", extra_specs=extra_specs)
    do(made, c.CreateVolumeType(volume_type=gold, qos_specs={"total_iops_sec": "500"}))
    made.state.volumes.volumes[uuid_of(9)] = KeptVolume(
        project_id="a1", spec=VolumeSpec(size_gb=1, volume_type=gold, qos_specs={"total_iops_sec": "500"})
    )
    made.state.storage.pools.add_volumes([Volume(volume_id=uuid_of(9), host="node-0@lvm#a", size_gb=1)])
    qos: dict[str, str] | None
    for user, shown, qos in (
        ("root", extra_specs, {"total_iops_sec": "500"}),
        ("ann", public, None),
        ("ada", public, None),
    ):
        lines = [*q.answer(made.state, user, vq.VolumeTypes()), q.answer(made.state, user, vq.ShowVolumeType("gold"))]
        assert [(dict(line.volume_type.extra_specs), line.qos_specs) for line in lines] == [(shown, qos)] * 2
        spec = q.answer(made.state, user, vq.ShowVolume(uuid_of(9))).spec
        assert (dict(spec.volume_type.extra_specs), spec.qos_specs) == (shown, qos)


def test_a_limit_above_a_project_does_not_say_what_others_use() -> None:
    made = world()
    do(made, place(2, project="b1", vcpus=3), c.SetLimits(scope="domain:b", limits={"VCPU": 5}))
    do(made, c.CreateProject(id="b2", domain="b"), c.Grant(user="bob", role="member", scope="project:b2"))
    code, text = refused(made, p.Place(request=asking("b2", flavor={"vcpus": 4})), "bob")
    assert code == "quota_exceeded"
    assert re.findall(r"\d+", text.replace("b2", "")) == ["4"]
    assert "domain" not in text


def test_an_identity_that_is_taken_does_not_say_by_whom() -> None:
    made = world()
    do(made, c.CreateUser(id="nova", domain="a", identities=("nova.example.org",)))
    do(made, c.SetIdentitySuffixes(domain="b", suffixes=(".example.org",)))
    told = refused(made, c.CreateUser(id="new", domain="b", identities=("nova.example.org",)), "bea")
    assert told == ("duplicate_name", "another user has such an identity")


def of_backends(told: Any) -> set[str]:
    """The backends and hosts that an answer names, whatever it is."""
    return set(re.findall(r"node-\d+(?:@lvm)?", repr(msgspec.to_builtins(told, enc_hook=repr))))


def test_tenants_learn_where_their_volumes_are_and_of_no_other_pool() -> None:
    made = two_domains()
    do(
        made,
        reports(*(report(f"node-{number}@lvm", ("a", 900 - number), ("b", 800 - number)) for number in range(3))),
        s.SetBackupService(host="node-0"),
    )
    group = s.PlaceVolumeGroup(volumes=(wish(1, project="a1"), wish(2, project="a1")), project_id="a1")
    told = do(made, msgspec.structs.replace(group, group_id=uuid_of(3)), user="ann")
    assert {name for name, _ in told.decision.order} == {"node-0@lvm#a", "node-0@lvm#b"}
    do(made, s.CreateVolumeSnapshot(uuid=uuid_of(1), snapshot_id=uuid_of(4)), user="ann")
    questions = (vq.Volumes(), vq.ShowVolume(uuid=uuid_of(1)), vq.VolumeSnapshots(), vq.VolumeGroups())
    answers = [told, *(q.answer(made.state, "ann", each) for each in questions)]
    assert [of_backends(each) for each in answers] == [{"node-0@lvm"}] * len(answers)
    answers = [
        do(made, s.ExtendVolume(uuid=uuid_of(1), new_size_gb=10_000), user="ann"),
        do(made, s.PlaceVolume(request=wish(5, 10_000, project="a1")), user="ann"),
        do(made, s.PlaceVolumeGroup(volumes=(wish(6, 10_000, project="a1"),), project_id="a1"), user="ann"),
        q.answer(made.state, "ann", vq.FitsVolume(request=wish(project="a1"), limit=9)),
    ]
    assert set().union(*map(of_backends, answers)) <= {"node-0@lvm"}
    placed(made, "ann", "a1", 1)
    for lacking in (
        {"vcpus": 20},
        {"vcpus": 64, "memory_mb": 1 << 22},
    ):  # one thing, or two: then the hint names a host
        too_large = asking("a1", flavor=lacking)
        for command in (
            s.PlaceTogether(request=too_large, volumes=(wish(9, project="a1"),)),
            p.Place(request=too_large),
            p.Hold(request=too_large, expires_in=9),
            p.Resize(uuid=uuid_of(1), request=too_large),
        ):
            assert of_backends(do(made, command, user="ann")) == set()
            assert of_backends(do(made, command)) != set()
        (batched,) = made.apply_batch([order(p.Place(request=too_large), user="ann")])
        assert of_backends(batched) == set()
    told = do(made, s.PlaceVolumeGroup(volumes=(wish(project="a1"),), project_id="a1"))
    assert of_backends(told.decision.order) == {f"node-{number}@lvm" for number in range(3)}


def test_readers_of_the_cloud_and_old_orders_have_all_pools_of_a_groups_order() -> None:
    made = two_domains()
    do(made, reports(*(report(f"node-{number}@lvm", ("a", 900)) for number in range(3))))
    do(made, c.Grant(user="ann", role="reader", scope="cloud"))
    group = s.PlaceVolumeGroup(volumes=(wish(project="a1"),), project_id="a1")
    told = do(made, group, user="ann")
    assert len(told.decision.order) == 3
    do(made, c.Revoke(user="ann", role="reader", scope="cloud"))
    told = do(made, group, user="ann")
    assert len(told.decision.order) == 1
    old_answer = made.apply(Order(NOW, "ann", group, rules=8))
    assert len(old_answer.decision.order) == 3


def test_a_reader_learns_how_many_fit_but_not_where() -> None:
    made = world()
    assert q.answer(made.state, "root", q.Fits(request=asking("b1"))).by_host
    found = q.answer(made.state, "bob", q.Fits(request=asking("b1")))
    (shared,) = q.answer(made.state, "bob", q.FitsMany(requests=[asking("b1")]))
    assert (shared.alone, shared.shared) == (found, found)
    assert (found.count > 0, found.by_host) == (True, {})


def test_fits_does_not_count_hosts_of_exclusive_pools() -> None:
    made = world()
    before = q.answer(made.state, "bob", q.Fits(request=asking("b1"))).count
    do(made, c.CreatePool(id="gold", hosts=("node-0", "node-1", "node-2"), exclusive=True))
    assert q.answer(made.state, "bob", q.Fits(request=asking("b1"))).count < before


# who decides over whom


def test_a_domain_admin_cannot_delete_a_user_of_the_domain_who_may_more() -> None:
    made = world()
    assert refused(made, c.DeleteUser(id="root"), "ada")[0] == "not_allowed"  # root lives in a
    do(made, c.DeleteUser(id="ann"), user="ada")
    do(made, c.DeleteUser(id="root"))


def test_a_domain_admin_cannot_see_or_make_tokens_of_a_user_who_may_more() -> None:
    made = world()
    assert refused(made, c.CreateToken(id="x", user="root", digest=bytes(32), expires=2e9), "ada")[0] == "not_allowed"
    with pytest.raises(HostlerError, match="for others to decide on"):
        q.answer(made.state, "ada", t.Tokens(user="root"))
    assert q.answer(made.state, "ada", t.Tokens(user="ann"))


@pytest.mark.parametrize(
    ("identity", "allowed"),
    [
        ("web.b.example.org", True),
        ("x.y.b.example.org", True),
        ("ops@b.example.org", True),
        ("b.example.org", False),
        (".b.example.org", False),
        ("nova-api.cloud.example", False),
        ("evilb.example.org", False),
        ("spiffe://cloud/nova/.b.example.org", False),
        ("nova api.b.example.org", False),
        ("a@b@b.example.org", False),
    ],
)
def test_a_domain_admin_gives_names_within_a_suffix_of_the_domain(identity: str, allowed: bool) -> None:
    made = world()
    command = c.CreateUser(id="new", domain="b", identities=(identity,))
    assert refused(made, command, "bea")[0] == "not_allowed"  # without any suffix
    do(made, c.SetIdentitySuffixes(domain="b", suffixes=(".b.example.org", "@b.example.org")), user="root")
    if allowed:
        do(made, command, user="bea")
    else:
        assert refused(made, command, "bea")[0] == "not_allowed"
        do(made, command, user="root")


def test_roles_are_given_to_users_of_the_domain_and_by_those_who_may_see_both_to_others() -> None:
    made = world()
    grant = c.Grant(user="ann", role="member", scope="project:b1")
    assert refused(made, grant, "bea")[0] == "unknown_name"
    do(made, c.Grant(user="bea", role="domain_admin", scope="domain:a"))
    do(made, grant, user="bea")
    do(made, c.Revoke(user="ann", role="member", scope="project:b1"), user="pat")


def test_old_orders_are_judged_as_they_were_then() -> None:
    made = world()
    outcomes = replayed(
        made,
        old(c.Grant(user="ann", role="member", scope="project:b1"), "pat"),
        old(c.CreateUser(id="new", domain="b", identities=("nova.example",)), "bea"),
        old(c.DeleteUser(id="root"), "ada"),
    )
    assert outcomes == [None, None, None]
