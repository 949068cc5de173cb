"""A uuid is the same in every form in which it may be written."""

from __future__ import annotations

import msgspec
import pytest

from hostler import Engine, Flavor, Fleet, Host, Request, RequestSpec, add_hosts
from hostler.core import engine_commands as p
from hostler.core import storage_commands as s
from hostler.core.machine.queries import Instance
from hostler.core.machine.volume_queries import ShowVolume
from hostler.core.machine.what_if import WhatIf
from hostler.core.rpc.uuids import canonical, with_canonical_uuids
from hostler.core.tenancy import commands as c
from tests.core.orders import asked, machine, order
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
    assert not made.state.requests.of_guest


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
