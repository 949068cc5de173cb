"""Guests as plans see them: what each asks of a new host, what it takes, and whether it may move. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...ext.constants import NOT_INSTANCE, REPORTED
from ...ext.fleet_state import consumers_on_rows
from ...ext.tables import format_uuid
from ..decide.moves import spec_for
from ..fleet.fleet import Fleet
from ..types.moves import MoveKind
from ..types.plans import Asked, PlanOptions
from ..types.request import Flavor, Request, RequestSpec

_PLAIN: Final = frozenset({"VCPU", "MEMORY_MB", "DISK_GB"})


@dataclass(frozen=True, slots=True)
class Guest:
    """An instance on the host at ``row``. ``request``: what is asked of its new host; the source is left out by the
    planner. ``kind``: of its moves. ``stays``: why it may not move, empty if it may. ``derived``: the request follows
    from what it holds."""

    uuid: str
    row: int
    consumer: int
    shape: int
    generation: int
    project_id: str
    request: Request | None
    memory_mb: int
    disk_mb: int
    kind: MoveKind
    stays: str = ""
    derived: bool = False


class Guests:
    """The guests of a fleet, read when they are asked for. The options are those of ``PlanOptions``."""

    def __init__(self, fleet: Fleet, options: PlanOptions) -> None:
        asked = options.get("asked")
        self._fleet, self._pinned = fleet, options.get("pinned", frozenset[str]())
        self._kind: MoveKind = options.get("kind", "live_migrate")
        self._stopped, self._stays = options.get("stopped", ()), options.get("stays")
        self._asked: Asked = (asked.get if isinstance(asked, Mapping) else asked) or (lambda uuid: None)
        self._specs: dict[tuple[RequestSpec, str | None], RequestSpec] = {}
        self._shapes: dict[int, RequestSpec | None] = {}
        self._amounts: NDArray[np.int64] = np.zeros((0, 0), np.int64)

    def on(self, row: int) -> list[Guest]:
        """Guests on a host, the newest first. O(guests)."""
        kernel = self._fleet._kernel
        return [self.of(each) for each in kernel.consumers_on(row) if not kernel.consumer(each)[7] & NOT_INSTANCE]

    def of(self, consumer: int) -> Guest:
        """A guest by the dense id of its consumer. O(1)."""
        fleet = self._fleet
        high, low, row, shape, project, user, group, flags, generation = fleet._kernel.consumer(consumer)
        uuid = format_uuid(high, low)
        resources, _, _, memory_mb, disk_mb = fleet._kernel.shape(shape) if shape >= 0 else ([], [], 0, 0, 0)
        project_id = fleet._projects[project]
        note = fleet._consumers.notes.get(consumer)
        stays = ""
        if uuid in self._pinned:
            stays = "it is pinned"
        elif uuid in fleet._consumers.moves:
            stays = "a move of it is under way"
        elif note is not None and note.consumer_type not in (None, "INSTANCE"):
            stays = f"it is a consumer of type {note.consumer_type}"
        elif self._stays is not None:
            stays = self._stays(uuid)
        asked = self._asked(uuid) if not stays else None
        derived = asked is None and not stays
        if derived:
            stays = self._underivable(consumer, shape, flags, resources)
            asked = self._derived(shape) if not stays else None
        request = None
        if asked is not None:
            given = asked if isinstance(asked, Request) else Request(spec=asked)
            server_group = given.server_group
            if server_group is None and group >= 0:
                server_group = fleet._group_uuids[group] or None
            request = Request(
                spec=self._moved(given.spec, row),
                instance_uuids=(uuid,),
                project_id=project_id,
                user_id=given.user_id or fleet._users[user],
                server_group=server_group,
            )
        return Guest(
            uuid=uuid,
            row=row,
            consumer=consumer,
            shape=shape,
            generation=note.generation if note is not None else generation,
            project_id=project_id,
            request=request,
            memory_mb=int(memory_mb),
            disk_mb=int(disk_mb),
            kind=self.kind_of(uuid),
            stays=stays,
            derived=derived and not stays,
        )

    def kind_of(self, uuid: str) -> MoveKind:
        """The kind of the moves of an instance: cold where it does not run, and those of others are live."""
        return "cold_migrate" if self._kind == "live_migrate" and uuid in self._stopped else self._kind

    def immovable(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which of ``rows`` hold a guest that is known to stay without looking at what it was asked with. O(guests)."""
        found = consumers_on_rows(self._fleet._kernel, np.ascontiguousarray(rows, np.int32))
        fixed = np.zeros(len(rows), bool)
        fixed[found[1][(found[2] < 0) | ((found[3] & (REPORTED | NOT_INSTANCE)) != 0)]] = True
        held = {each for uuid in {*self._pinned, *self._fleet._consumers.moves} for each in self._rows(uuid)}
        fixed |= np.isin(rows, np.array(sorted(held), np.int32))
        return fixed

    def _rows(self, uuid: str) -> list[int]:
        consumer = self._fleet._kernel.consumers.get(uuid)
        return [self._fleet._kernel.consumer(consumer)[2]] if consumer >= 0 else []

    def table(self, rows: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        """Instances on ``rows``: their consumers, their positions in ``rows``, and what each takes of its host, int64
        [instances, resource classes]. O(instances)."""
        found = consumers_on_rows(self._fleet._kernel, np.ascontiguousarray(rows, np.int32))
        found = found[:, (found[3] & NOT_INSTANCE) == 0]
        ids, positions, shapes = found[0], found[1], found[2]
        return ids, positions, self.amounts()[shapes]

    def amounts(self) -> NDArray[np.int64]:
        """What each shape takes by resource class, int64 [shapes + 1, classes]; the last line, of shape -1, is zero.
        O(new shapes)."""
        fleet = self._fleet
        count, classes = len(fleet._consumers.shapes), len(fleet.resource_classes)
        if self._amounts.shape != (count + 1, classes):
            table = np.zeros((count + 1, classes), np.int64)
            for shape in range(count):
                indices, amounts, *_ = fleet._kernel.shape(shape)
                table[shape, indices] = amounts
            self._amounts = table
        return self._amounts

    def _moved(self, spec: RequestSpec, row: int) -> RequestSpec:
        """What is asked of a new host, but for the source, which is left out row by row."""
        key = (spec, self._fleet._host_class(row).cell_uuid)
        known = self._specs.get(key)
        if known is None:
            moved = spec_for(self._fleet, spec, row, self._kind)
            known = self._specs[key] = replace(moved, ignore_hosts=spec.ignore_hosts)
        return known

    def _underivable(self, consumer: int, shape: int, flags: int, resources: list[int]) -> str:
        """Why a request cannot be derived from what a guest holds; empty if it can."""
        if shape < 0 or flags & REPORTED:
            return "its size is not known"
        extras = self._fleet._extras.get(consumer)
        if extras is not None and (extras.elsewhere or extras.numa is not None or extras.pci):
            return "it holds NUMA cells, devices or nested providers, and what it was asked with is not known"
        names = {self._fleet.resource_classes[index] for index in resources}
        if "PCPU" in names:
            return "it holds dedicated CPUs, and what it was asked with is not known"
        return ""

    def _derived(self, shape: int) -> RequestSpec | None:
        """A request for the amounts of a shape."""
        if shape not in self._shapes:
            fleet = self._fleet
            indices, amounts, vcpus, memory_mb, disk_mb = fleet._kernel.shape(shape)
            held = {fleet.resource_classes[index]: n for index, n in zip(indices, amounts, strict=True)}
            more = {f"resources:{name}": str(n) for name, n in held.items() if name not in _PLAIN}
            figures = {"VCPU": int(vcpus), "MEMORY_MB": int(memory_mb), "DISK_GB": int(disk_mb) // 1024}
            more |= {
                f"resources:{name}": str(held.get(name, 0)) for name, n in figures.items() if held.get(name, 0) != n
            }
            flavor = Flavor(
                name=f"allocations of {', '.join(f'{n} {name}' for name, n in sorted(held.items()))}",
                vcpus=figures["VCPU"],
                memory_mb=figures["MEMORY_MB"],
                root_gb=figures["DISK_GB"],
                extra_specs=more,
            )
            self._shapes[shape] = RequestSpec(flavor=flavor, prepare=False)
        return self._shapes[shape]
