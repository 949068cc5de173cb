"""Random lives of volumes over the service against the model: nothing drifts, nothing is charged twice, quotas are
sums, and a state that was saved and loaded, or replayed from its journal, is the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hostler.core import storage_commands as s
from hostler.core.machine.machine import ServiceMachine
from hostler.core.tenancy import commands as c
from hostler.placement.types.errors import HostlerError
from tests.core.orders import NOW, asked, order, uuid_of
from tests.volumes.model import Claim, Model, ModelVolume
from tests.volumes.values import free, report, reports, storage_machine, wish

POOLS = {"node-0@lvm#a": 900, "node-0@lvm#b": 800, "node-1@lvm#a": 700, "node-2@lvm#a": 600}
PROJECTS = ("p", "q")
LIMITS = {"gigabytes": 700, "volumes": 6, "snapshots": 3, "gigabytes_gold": 400, "per_volume_gigabytes": 300}
TYPES = (None, "gold", "silver")


class VolumeLives(RuleBasedStateMachine):
    """Commands of users on volumes, with reports that come late."""

    def __init__(self) -> None:
        super().__init__()
        self.made = storage_machine()
        self.model = Model(dict(POOLS))
        self.orders: list[bytes] = []
        self.now, self.next = NOW, 100
        self.away: set[str] = set()

    def do(self, command: Any) -> Any:
        """The answer, or None if it was refused with an error."""
        self.now += 1.0
        given = order(command, now=self.now)
        self.orders.append(self.made.encode(given))
        before = msgspec.msgpack.encode(self.made.state.volumes), self.made.state.fleet.version
        try:
            return self.made.apply(given)
        except HostlerError:
            assert (msgspec.msgpack.encode(self.made.state.volumes), self.made.state.fleet.version) == before
            return None

    @initialize()
    def tenants(self) -> None:
        for command in (
            c.CreateDomain(id="d"),
            *(c.CreateProject(id=name, domain="d") for name in PROJECTS),
            c.SetLimits(scope="project:p", limits=LIMITS),
            c.SetLimits(scope="domain:d", limits={"volumes": 9}),
        ):
            self.do(command)

    # new ones

    def _came(self, uuid: str, project: str, size_gb: int, kind: str | None, pool: str) -> None:
        types = [] if kind is None else [kind]
        self.model.volumes[uuid] = ModelVolume(project, size_gb, types, [Claim(pool, size_gb)], pool)

    @rule(project=st.sampled_from(PROJECTS), size_gb=st.integers(1, 350), kind=st.sampled_from(TYPES))
    def place(self, project: str, size_gb: int, kind: str | None) -> None:
        self.next += 1
        spec = {} if kind is None else {"volume_type": kind}
        decision = self.do(s.PlaceVolume(request=wish(self.next, size_gb, project=project, **spec)))
        if decision is not None and decision.placed:
            self._came(uuid_of(self.next), project, size_gb, kind, decision.selection.backend_id)

    @rule(size_gb=st.integers(1, 200))
    def place_with_guest(self, size_gb: int) -> None:
        self.next += 2
        volumes = (wish(self.next, size_gb, project="q"), wish(self.next - 1, 5, project="q", volume_type="silver"))
        decision = self.do(s.PlaceTogether(request=asked(self.next, project="q"), volumes=volumes))
        if decision is not None and decision.placed:
            first, second = decision.volumes
            self._came(uuid_of(self.next), "q", size_gb, None, first.selection.backend_id)
            self._came(uuid_of(self.next - 1), "q", 5, "silver", second.selection.backend_id)

    @rule(pool=st.sampled_from(list(POOLS)), size_gb=st.integers(1, 300), kind=st.sampled_from(TYPES[1:]))
    def manage(self, pool: str, size_gb: int, kind: str) -> None:
        """Its pool has it already."""
        self.next += 1
        request = wish(self.next, size_gb, project="q", volume_type=kind)
        decision = self.do(s.ManageVolume(request=request, backend=pool))
        if decision is not None and decision.placed:
            self._came(uuid_of(self.next), "q", size_gb, kind, pool)
            self.model.volumes[uuid_of(self.next)].claims[0].size_gb = 0

    @precondition(lambda self: self.model.volumes)
    @rule(data=st.data(), more=st.integers(0, 50))
    def clone(self, data: st.DataObject, more: int) -> None:
        uuid = data.draw(st.sampled_from(self.names))
        source = self.model.volumes[uuid]
        self.next += 1
        request = wish(self.next, source.size_gb + more, project=source.project, source=uuid)
        decision = self.do(s.PlaceVolume(request=request))
        if decision is not None and decision.placed:
            kind = source.types[0] if source.types else None
            self._came(uuid_of(self.next), source.project, source.size_gb + more, kind, decision.selection.backend_id)
            assert decision.selection.backend_id == (source.new_at or source.at)

    @rule(backend=st.sampled_from(["node-0@lvm", "node-1@lvm"]), what=st.sampled_from(["disabled", "up", "frozen"]))
    def backend_goes_and_comes(self, backend: str, what: str) -> None:
        """Until it is back nothing is placed there; what is given back meanwhile counts."""
        if backend in self.away:
            self.do(s.SetVolumeBackend(host=backend, disabled=False, up=True, frozen=False))
            self.away.discard(backend)
        else:
            change: dict[str, Any] = {what: what != "up"}
            self.do(s.SetVolumeBackend(host=backend, **change))
            self.away.add(backend)

    # those that are there

    @property
    def names(self) -> list[str]:
        return list(self.model.volumes)

    @precondition(lambda self: self.model.volumes)
    @rule(data=st.data(), growth=st.integers(-5, 300))
    def extend(self, data: st.DataObject, growth: int) -> None:
        uuid = data.draw(st.sampled_from(self.names))
        volume = self.model.volumes[uuid]
        size = max(volume.size_gb + growth, 1)
        decision = self.do(s.ExtendVolume(uuid=uuid, new_size_gb=size))
        if decision is not None and decision.placed:
            assert size > volume.size_gb
            assert not volume.moving
            volume.claims[0].size_gb += size - volume.size_gb
            volume.size_gb = size

    @precondition(lambda self: self.model.volumes)
    @rule(data=st.data(), cascade=st.booleans())
    def delete(self, data: st.DataObject, cascade: bool) -> None:
        uuids = tuple(data.draw(st.lists(st.sampled_from(self.names), min_size=1, max_size=3)))
        if self.do(s.DeleteVolumes(uuids=uuids, cascade=cascade)) is not None:
            assert len(set(uuids)) == len(uuids)
            for uuid in uuids:
                assert cascade or not self.model.volumes[uuid].snapshots
                del self.model.volumes[uuid]

    @precondition(lambda self: self.model.volumes)
    @rule(data=st.data(), kind=st.sampled_from(TYPES[1:]), policy=st.sampled_from(["never", "on-demand"]))
    def retype(self, data: st.DataObject, kind: str, policy: str) -> None:
        uuid = data.draw(st.sampled_from(self.names))
        decision = self.do(s.BeginRetype(uuid=uuid, volume_type=kind, migration_policy=policy))
        if decision is not None and decision.placed:
            self._begun(self.model.volumes[uuid], decision.selection.backend_id, kind)

    @precondition(lambda self: self.model.volumes)
    @rule(data=st.data(), pool=st.sampled_from([None, *POOLS]))
    def migrate(self, data: st.DataObject, pool: str | None) -> None:
        uuid = data.draw(st.sampled_from(self.names))
        decision = self.do(s.BeginVolumeMigration(uuid=uuid, target=pool))
        if decision is not None and decision.placed:
            assert not self.model.volumes[uuid].snapshots
            self._begun(self.model.volumes[uuid], decision.selection.backend_id, None)

    def _begun(self, volume: ModelVolume, pool: str, kind: str | None) -> None:
        assert not volume.moving
        volume.moving, volume.new_type = True, kind
        if pool != volume.at:
            volume.new_at = pool
            volume.claims.append(Claim(pool, volume.size_gb))

    @precondition(lambda self: any(volume.moving for volume in self.model.volumes.values()))
    @rule(data=st.data(), confirm=st.booleans())
    def end_move(self, data: st.DataObject, confirm: bool) -> None:
        uuid = data.draw(st.sampled_from([name for name in self.names if self.model.volumes[name].moving]))
        volume = self.model.volumes[uuid]
        moved = self.do(s.ConfirmVolumeMove(uuid=uuid) if confirm else s.RevertVolumeMove(uuid=uuid))
        assert moved is not None, "the end of a move cannot fail"
        if volume.new_at is not None:
            gone = 0 if confirm else 1
            del volume.claims[gone]
            volume.at = volume.new_at if confirm else volume.at
        if confirm and volume.new_type is not None:
            volume.types = [volume.new_type]
        volume.moving, volume.new_at, volume.new_type = False, None, None
        assert moved.backend_id == volume.at

    @precondition(lambda self: self.model.volumes)
    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        uuid = data.draw(st.sampled_from(self.names))
        answer = self.do(s.CreateVolumeSnapshot(uuid=uuid))
        if answer is not None and answer.decision.placed:
            volume = self.model.volumes[uuid]
            volume.snapshots[answer.snapshot_id] = Claim(volume.at, volume.size_gb)

    @precondition(lambda self: any(volume.snapshots for volume in self.model.volumes.values()))
    @rule(data=st.data())
    def delete_snapshot(self, data: st.DataObject) -> None:
        found = [(name, each) for name, volume in self.model.volumes.items() for each in volume.snapshots]
        uuid, snapshot = data.draw(st.sampled_from(found))
        assert self.do(s.DeleteVolumeSnapshots(uuids=(snapshot,))) == 1
        del self.model.volumes[uuid].snapshots[snapshot]

    @precondition(lambda self: self.model.volumes)
    @rule(data=st.data())
    def backup(self, data: st.DataObject) -> None:
        uuid = data.draw(st.sampled_from(self.names))
        answer = self.do(s.CreateVolumeBackup(uuid=uuid))
        if answer is not None:
            volume = self.model.volumes[uuid]
            self.model.backups[answer.backup_id] = (volume.project, volume.size_gb)

    @rule(seconds=st.floats(1, 1_000), pool=st.sampled_from(["node-1", "node-2"]))
    def late_report(self, seconds: float, pool: str) -> None:
        """One from before the first volume: nothing of it is taken over."""
        late = report(f"{pool}@lvm", ("a", 5), at=NOW - seconds, tier="silver")
        assert self.do(reports(late)) == 0

    @rule(pool=st.sampled_from(["node-1", "node-2"]))
    def report_that_includes_all(self, pool: str) -> None:
        self.do(reports(report(f"{pool}@lvm", ("a", self.model.room(f"{pool}@lvm#a")), tier="silver")))

    @rule()
    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.made.save(Path(folder))
            other = ServiceMachine()
            other.load(Path(folder))
        assert msgspec.msgpack.encode(other.state.volumes) == msgspec.msgpack.encode(self.made.state.volumes)
        self.made = other

    # what holds after each

    @invariant()
    def pools_have_what_the_model_has(self) -> None:
        there = [pool for pool in POOLS if pool.partition("#")[0] not in self.away]
        assert set(self.made.state.storage.pools.row_of) == set(there)
        assert {pool: free(self.made, pool) for pool in there} == {pool: self.model.room(pool) for pool in there}

    @invariant()
    def volumes_are_where_the_model_has_them(self) -> None:
        known = self.made.state.storage.pools.volumes
        shown = {uuid: volume.new_at or volume.at for uuid, volume in self.model.volumes.items()}
        assert {uuid: known[uuid].backend_id for uuid in known} == shown
        assert set(self.made.state.volumes.volumes) == set(shown)

    @invariant()
    def quotas_are_sums(self) -> None:
        guests = ("instances", "VCPU", "MEMORY_MB")
        for scope, projects in (("project:p", {"p"}), ("project:q", {"q"}), ("domain:d", {"p", "q"})):
            found = {name: n for name, n in self.made.state.usage.of(scope).items() if name not in guests}
            assert found == self.model.usage(projects), scope
        used = self.model.usage({"p"})
        assert all(used.get(name, 0) <= limit for name, limit in LIMITS.items())

    def teardown(self) -> None:
        """A replay of all orders gives the same state, bit for bit."""
        again = storage_machine()
        again.apply_batch([again.decode(each) for each in self.orders])
        assert msgspec.msgpack.encode(again.state.volumes) == msgspec.msgpack.encode(self.made.state.volumes)
        assert again.state.usage == self.made.state.usage
        again.state.storage.pools.check()


VolumeLives.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestVolumeLives = pytest.mark.property(VolumeLives.TestCase)
