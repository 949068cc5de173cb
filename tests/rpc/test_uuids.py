"""A uuid is the same in every form in which it may be written."""

from __future__ import annotations

import msgspec
import pytest

from hostler import (
    Aggregate,
    BackendReport,
    DuplicateName,
    Engine,
    Flavor,
    Fleet,
    Host,
    HostReport,
    InvalidValue,
    Policy,
    Request,
    RequestSpec,
    ServerGroup,
    VolumeEngine,
    VolumeRequest,
    VolumeSpec,
    add_hosts,
    report_hosts,
)
from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.machine.call_uuids import canonical, with_canonical_uuids
from hostler.core.machine.instance_queries import Instances
from hostler.core.machine.queries import Explain, Instance, answer
from hostler.core.machine.region_queries import RegionOf
from hostler.core.machine.volume_queries import FitsVolume, ShowVolume, Volumes
from hostler.core.machine.what_if import WhatIf
from hostler.core.region_commands import PlaceAcross
from hostler.core.tenancy import commands as c
from tests.core.orders import LOCAL, asked, machine, order
from tests.volumes.values import wish

PLAIN = "abcdefab-0000-4000-8000-00000000000f"
FORMS = (PLAIN, PLAIN.upper(), PLAIN.replace("-", ""), PLAIN.replace("-", "").upper())


@pytest.mark.parametrize("form", FORMS)
def test_commands_and_questions_get_the_form_in_which_the_state_holds_uuids(form: str) -> None:
    def of(uuid: str) -> list[msgspec.Struct]:
        guest = msgspec.structs.replace(asked(), instance_uuids=(uuid, uuid))
        volume = msgspec.structs.replace(wish(source=uuid, group=uuid), volume_id=uuid)
        return [
            p.Place(request=guest),
            p.PlaceMany(requests=(asked(), guest)),
            p.Release(uuids=(uuid,)),
            p.BeginMove(uuid=uuid, migration=uuid, request=guest),
            s.PlaceVolume(request=volume),
            s.PlaceVolumeGroup(volumes=(volume,), group_id=uuid),
            s.PlaceTogether(request=guest, volumes=(volume,)),
            s.CreateVolumeSnapshot(uuid=uuid, snapshot_id=uuid),
            s.DeleteVolumeSnapshots(uuids=(uuid,)),
            Instance(uuid=uuid),
            ShowVolume(uuid=uuid),
            WhatIf(commands=[p.Place(request=guest), p.Release(uuids=(uuid,))]),
            PlaceAcross(requests=(guest,)),
            RegionOf(uuid=uuid),
            Explain(request=guest),
            FitsVolume(request=volume),
            Volumes(after=uuid, group=uuid),
        ]

    assert list(map(with_canonical_uuids, of(form))) == of(PLAIN)


def test_what_needs_no_change_stays_the_same_object() -> None:
    for call in (p.Place(request=asked(1)), p.PlaceMany(requests=(asked(1), asked(2))), p.Release(uuids=(PLAIN,))):
        assert with_canonical_uuids(call) is call
    assert canonical("no uuid") == "no uuid"
    group = p.AddServerGroup(uuid=PLAIN.upper(), policy="affinity")
    assert with_canonical_uuids(group) is group


@pytest.mark.parametrize("form", FORMS)
def test_a_guest_is_released_with_both_ends_of_its_move_under_every_form_of_its_uuid(form: str) -> None:
    made = machine()
    for command in (c.CreateDomain(id="d"), c.CreateProject(id="p", domain="d")):
        made.apply(order(command))
    guest = msgspec.structs.replace(asked(project="p"), instance_uuids=(FORMS[1],))
    for call in (p.Place(request=guest), p.BeginMove(uuid=FORMS[2]), p.Release(uuids=(form,))):
        made.apply(order(with_canonical_uuids(call)))
    assert made.state.usage.of("project:p") == {}
    assert made.state.engine.moves() == []
    assert not made.state.requests


@pytest.mark.parametrize("end", ["confirm", "revert", "release"])
def test_a_move_of_the_library_is_ended_under_every_form_of_the_uuid(end: str) -> None:
    for form in FORMS:
        fleet = Fleet()
        add_hosts(fleet, [Host(host=name, vcpus_total=4, total_usable_ram_mb=4_096) for name in "ab"])
        engine = Engine(fleet)
        request = Request(spec=RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1)), instance_uuids=(PLAIN,))
        engine.place(request)
        assert engine.begin_move(FORMS[1], request).placed
        getattr(engine, end)(form)
        assert engine.moves() == []
        fleet.check()


SPEC = RequestSpec(flavor=Flavor(name="f", vcpus=1, memory_mb=1))
OTHERS = FORMS[1:]
NOT_A_UUID = ("{" + PLAIN + "}", "urn:uuid:" + PLAIN, " " + PLAIN, "")


def three_hosts(*filters: str) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=name, vcpus_total=4, total_usable_ram_mb=4_096) for name in "abc"])
    return Engine(fleet, Policy.from_mapping({"filter_scheduler": {"enabled_filters": ["ComputeFilter", *filters]}}))


@pytest.mark.parametrize("form", OTHERS)
def test_the_library_keeps_one_object_for_a_uuid_in_two_forms(form: str) -> None:
    engine = three_hosts("ServerGroupAffinityFilter")
    fleet = engine.fleet
    fleet.add_server_group(PLAIN, "affinity")
    with pytest.raises(DuplicateName):
        fleet.add_server_group(form, "affinity")
    assert engine.place(Request(spec=SPEC, server_group=form)).host == "a"
    assert engine.place(Request(spec=SPEC, server_group=PLAIN)).host == "a"
    assert ServerGroup(uuid=form, policy="affinity", members=frozenset({form})) == ServerGroup(
        uuid=PLAIN, policy="affinity", members=frozenset({PLAIN})
    )
    fleet.remove_server_group(form)
    fleet.set_aggregates("a", [Aggregate(uuid=PLAIN, name="rack")])
    fleet.set_aggregates("b", [Aggregate(uuid=form, name="rack")])
    assert [aggregate.uuid for aggregate in fleet.aggregates] == [PLAIN]
    fleet.check()


@pytest.mark.parametrize("form", OTHERS)
def test_hints_and_reports_mean_the_instance_whose_uuid_they_write_in_another_form(form: str) -> None:
    engine = three_hosts("SameHostFilter", "DifferentHostFilter")
    assert engine.place(Request(spec=SPEC, instance_uuids=(PLAIN,))).host == "a"
    for hint, host in (("same_host", "a"), ("different_host", "b")):
        spec = RequestSpec(flavor=SPEC.flavor, scheduler_hints={hint: (form,)})
        assert engine.what_if().place(Request(spec=spec)).host == host
    both = [Host(host=name, vcpus_total=4, total_usable_ram_mb=4_096, instances={form: {}}) for name in "ab"]
    report_hosts(engine.fleet, [HostReport(host=host, at=1.0) for host in both])
    assert [list(engine.fleet.instances(engine.fleet.row(name))) for name in "abc"] == [[PLAIN], [PLAIN], []]
    report_hosts(engine.fleet, [HostReport(host=Host(host="b", vcpus_total=4, total_usable_ram_mb=4_096), at=2.0)])
    assert [list(engine.fleet.instances(engine.fleet.row(name))) for name in "ab"] == [[PLAIN], []]


@pytest.mark.parametrize("form", OTHERS)
def test_a_volume_is_one_under_every_form_of_its_uuid(form: str) -> None:
    engine = VolumeEngine()
    pool = {"pool_name": "p", "total_capacity_gb": 100, "free_capacity_gb": 100}
    engine.pools.report(BackendReport(host="x@lvm", capabilities={"pools": [pool]}, at=1.0))
    request = VolumeRequest(spec=VolumeSpec(size_gb=10), volume_id=PLAIN)
    assert engine.place(request).placed
    with pytest.raises(DuplicateName):
        engine.place(VolumeRequest(spec=VolumeSpec(size_gb=10), volume_id=form))
    assert engine.extend(VolumeRequest(spec=VolumeSpec(size_gb=10), volume_id=form), 20).placed
    with pytest.raises(InvalidValue):
        engine.release([form, PLAIN])
    assert engine.release(form) == 1
    assert float(engine.pools.columns["free"][0]) == 100


@pytest.mark.parametrize("text", NOT_A_UUID)
def test_what_is_no_uuid_is_refused(text: str) -> None:
    engine = three_hosts()
    for refused in (
        lambda: engine.place(Request(spec=SPEC, instance_uuids=(text,))),
        lambda: engine.fleet.add_server_group(text, "affinity"),
        lambda: engine.fleet.set_aggregates("a", [Aggregate(uuid=text, name="x")]),
        lambda: VolumeEngine(engine.fleet).place(VolumeRequest(spec=VolumeSpec(size_gb=1), volume_id=text)),
    ):
        with pytest.raises(InvalidValue, match="must be a uuid"):
            refused()


@pytest.mark.parametrize("form", OTHERS)
def test_a_group_of_a_project_is_listed_counted_and_removed_under_every_form(form: str) -> None:
    made = machine()
    for command in (c.CreateDomain(id="d"), c.CreateProject(id="p", domain="d")):
        made.apply(order(command))
    made.apply(order(p.AddServerGroup(uuid=form, policy="affinity", project_id="p")))
    assert made.state.group_project(PLAIN) == made.state.group_project(form) == "p"
    made.apply(order(p.Place(request=msgspec.structs.replace(asked(1, project="p"), server_group=form))))
    assert len(answer(made.state, LOCAL, Instances(server_group=form))) == 1
    made.apply(order(p.RemoveServerGroup(uuid=PLAIN)))
    assert "server_groups" not in made.state.usage.of("project:p")
