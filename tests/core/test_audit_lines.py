"""The audit log says of every command what it was about."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import msgspec
import pytest

from hostler.core import engine_commands as p
from hostler.core import lifecycle_commands as f
from hostler.core import storage_commands as s
from hostler.core.machine.orders import AnyCommand, Order, PlacementWrite, SelectDestinations
from hostler.core.machine.report_columns import columns_of
from hostler.core.process.audit import LineEncoder, _on, line_of
from hostler.core.region_commands import PlaceAcross
from hostler.core.tenancy import commands as c
from hostler.placement.storage.pools.request import VolumeType
from hostler.placement.types.decision import Decision, Refusal
from hostler.placement.types.errors import UnknownName
from hostler.placement.types.host import Aggregate
from hostler.placement.types.host_report import HostReport
from hostler.placement.types.request import Flavor
from tests.volumes.values import report, reports, wish

from .orders import NOW, asked, hosts, uuid_of

ONE, TWO = uuid_of(1), uuid_of(2)
COMMANDS: list[tuple[Any, list[str]]] = [
    (p.Place(request=asked(1, project="p")), [ONE, "project:p"]),
    (p.PlaceCandidates(request=asked(1, project="p"), candidates={}), [ONE, "project:p"]),
    (p.Hold(request=asked(1, project="p"), expires_in=1.0), [ONE, "project:p"]),
    (p.ConfirmHold(uuids=(ONE,)), [ONE]),
    (p.PlaceMany(requests=(asked(1, project="p"),)), ["project:p"]),
    (p.Release(uuids=(ONE,)), [ONE]),
    (p.Spawned(uuids=(ONE,)), [ONE]),
    (p.AddHosts(hosts=hosts(1)), ["node-0"]),
    (columns_of([HostReport(host=hosts(1)[0], at=NOW)]), ["node-0"]),
    (p.Heartbeats(names=("node-0",)), ["node-0"]),
    (p.UpdateAggregate(aggregate=Aggregate(uuid=ONE, name="a")), [ONE]),
    (SelectDestinations(request=asked(1, project="p")), [ONE, "project:p"]),
    (c.SetIdentitySuffixes(domain="d", suffixes=()), ["d"]),
    (c.CreateFlavor(flavor=Flavor(name="f", vcpus=1, memory_mb=1)), ["f"]),
    (c.CreateVolumeType(volume_type=VolumeType(name="gold")), ["gold"]),
    (f.CreateGuest(request=asked(1, project="p"), name="web"), [ONE, "project:p"]),
    (f.AdoptGuest(backend="b", key="k", node="n", request=asked(1, project="p")), [ONE, "project:p", "b", "k"]),
    (f.CreateVolume(request=wish(1, project="p"), name="root"), [ONE, "project:p"]),
    (f.AttachVolume(uuid=ONE, volume=TWO), [ONE, TWO]),
    (f.SnapshotGuest(uuid=ONE, name="secret"), [ONE]),
    (f.DeleteGuestSnapshot(uuid=ONE, snapshot=TWO), [ONE, TWO]),
    (f.DetachVolume(uuid=ONE, volume=TWO), [ONE, TWO]),
    (f.ConfirmAttachment(uuid=ONE, claim=1, volume=TWO, attached=True), [ONE, TWO]),
    (f.RefuseAttachment(uuid=ONE, claim=1, volume=TWO, failure="permanent"), [ONE, TWO]),
    (f.BeginVolume(volume=ONE, claim=1), [ONE]),
    (f.ConfirmVolume(volume=ONE, claim=1), [ONE]),
    (f.FailVolume(volume=ONE, claim=1, failure="permanent"), [ONE]),
    (f.LoseVolume(volume=ONE, claim=1), [ONE]),
    (f.NoteVolumeTrouble(volume=ONE, claim=1, failure="transient"), [ONE]),
    (f.ClearVolume(volume=ONE, claim=1), [ONE]),
    (reports(report("h@lvm", ("a", 1))), ["h@lvm"]),
    (s.SetVolumeBackend(host="h"), ["h"]),
    (s.RemoveVolumeBackend(host="h"), ["h"]),
    (s.SetBackupService(host="h"), ["h"]),
    (s.RemoveBackupService(host="h"), ["h"]),
    (s.PlaceVolume(request=wish(1, project="p")), [ONE, "project:p"]),
    (s.ManageVolume(request=wish(1, project="p"), backend="h@lvm#a"), [ONE, "project:p"]),
    (s.DeleteVolumes(uuids=(ONE,)), [ONE]),
    (s.DeleteVolumeSnapshots(uuids=(ONE,)), [ONE]),
    (s.DeleteVolumeBackups(uuids=(ONE,)), [ONE]),
    (s.PlaceVolumeGroup(volumes=(wish(1),), project_id="p"), ["project:p"]),
    (s.PlaceTogether(request=asked(1, project="p"), volumes=()), [ONE, "project:p"]),
    (p.RemoveAggregate(uuid=ONE), [ONE]),
]
NAMED = {"id", "uuid", "name", "provider", "consumer", "resource_class", "scope", "user", "role"}
"""Fields that the log has of whichever command has them."""


@pytest.mark.parametrize(("command", "on"), COMMANDS, ids=lambda each: type(each).__name__)
def test_a_line_says_what_a_command_was_about(command: Any, on: list[str]) -> None:
    assert _on(command) == on


def test_lines_are_the_same_however_much_they_have_in_common_with_the_line_before() -> None:
    encoder, refused = LineEncoder(), Refusal(sentence="", stage="x", code="full")
    chosen = Decision(sequence=1, request_id=None, considered=0, removed={}, refusal=None)
    outcomes = [chosen, msgspec.structs.replace(chosen, refusal=refused), UnknownName("x", field="y")]
    cases = itertools.product(
        [NOW, NOW, NOW + 1.5], ["a", 'b"\\\n\u00fc'], [(), (ONE,), (ONE, TWO) * 99], ["p", "p", 'q"\x00', ""], outcomes
    )
    for sequence, (now, user, uuids, project, outcome) in enumerate(cases):
        request = msgspec.structs.replace(asked(1), instance_uuids=uuids, project_id=project)
        order = Order(now, user, p.Place(request=request))
        expected = msgspec.json.encode(line_of(sequence, order, outcome)) + b"\n"
        assert encoder(sequence, order, outcome) == expected


def test_no_command_is_forgotten() -> None:
    about_all = {p.SetPolicy}
    by_parts = {PlacementWrite, PlaceAcross}  # the log reads the write in it; it is journalled as its parts
    unnamed = {each for each in kinds(AnyCommand) if not NAMED & set(each.__struct_fields__)}
    assert unnamed - {type(command) for command, _ in COMMANDS} == about_all | by_parts


def kinds(union: Any) -> list[Any]:
    parts = get_args(union)
    return [each for part in parts for each in kinds(part)] if parts else [union]
