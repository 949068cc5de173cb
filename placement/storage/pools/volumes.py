"""Volumes that are known to be on pools: who they belong to, where they are, how much was charged for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...types.errors import DuplicateName, UnknownName
from ...types.uuids import plain_uuid
from .backend_names import append_pool, backend_part, pool_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume. ``host`` is ``host@backend#pool``, ``cluster_name`` the same of its cluster. ``charged`` names the
    pools (backend ids) that ``size_gb`` GiB were taken of: two while it migrates, none if only its place is known.
    ``uncharged_gb``: GiB less that the first of them was charged, of a volume that was taken over and has grown since.
    ``moved_from``: host and cluster that it comes back to if its move is reverted."""

    volume_id: str
    host: str
    size_gb: int
    cluster_name: str | None = None
    project_id: str = ""
    charged: tuple[str, ...] = ()
    moved_from: tuple[str, str | None] | None = None
    uncharged_gb: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.volume_id, str) and (plain := plain_uuid(self.volume_id)) != self.volume_id:
            object.__setattr__(self, "volume_id", plain)

    @property
    def charged_gb(self) -> int:
        """GiB that the first pool of ``charged`` was charged."""
        return self.size_gb - self.uncharged_gb

    @property
    def backend_id(self) -> str:
        """The pool's name: of its cluster, or of its host."""
        return self.cluster_name or self.host


Placed = tuple[str, str, int, str | None, str, tuple[str, ...]]
"""A volume as a batch tells of it: id, host, GiB, cluster, project, charged."""


class Volumes(Mapping[str, Volume]):
    """Volumes by id. ``counted(host, change)`` is called when one is added or removed."""

    def __init__(self, counted: Callable[[str, int], None]) -> None:
        self._by_id: dict[str, Volume | Placed] = {}
        self._on: dict[str, int] = {}
        self._counted = counted

    def __getitem__(self, volume_id: str) -> Volume:
        found = self._by_id[volume_id]
        if isinstance(found, tuple):
            found = self._by_id[volume_id] = _volume(found)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def on(self, host: str) -> int:
        """Number of volumes whose host is this pool's. O(1)."""
        return self._on.get(host, 0)

    def known(self, volume_id: str, field: str = "volume_id") -> Volume:
        """The volume of an id; UnknownName if there is none. O(1)."""
        found = self.get(plain_uuid(volume_id)) if isinstance(volume_id, str) else None
        if found is None:
            raise UnknownName(f"no volume {volume_id!r:.60} is known", field=field)
        return found

    def check_new(self, volume_id: str, field: str = "volume_id") -> None:
        """DuplicateName if there is a volume with this id. O(1)."""
        if volume_id in self._by_id:
            raise DuplicateName(f"volume {volume_id} exists", field=field)

    def put(self, volume_id: str, volume: Volume | None) -> None:
        """Set or remove the volume with an id, unrecorded. O(1)."""
        before = self.get(volume_id)
        if before is not None:
            del self._by_id[volume_id]
            self._count(before.host, -1)
        if volume is not None:
            self._by_id[volume_id] = volume
            self._count(volume.host, 1)

    def _count(self, host: str, change: int) -> None:
        self._add(host, change)
        self._counted(host, change)

    def _add(self, host: str, change: int) -> None:
        left = self._on.get(host, 0) + change
        if left:
            self._on[host] = left
        else:
            del self._on[host]

    def put_placed(self, placed: Sequence[Placed]) -> None:
        """Know volumes that are new and that the columns count already. O(volumes)."""
        for each in placed:
            self._by_id[each[0]] = each
            self._on[each[1]] = self._on.get(each[1], 0) + 1

    def drop_placed(self, placed: Sequence[Placed]) -> None:
        """Undo ``put_placed``. O(volumes)."""
        for each in placed:
            del self._by_id[each[0]]
            self._add(each[1], -1)

    def any_on(self, volume_ids: frozenset[str], project_id: str, host: str, cluster_name: str | None) -> bool:
        """True if one of these volumes, of this project, is on the pool. O(ids)."""
        return any(
            volume.project_id == project_id
            and (volume.cluster_name == cluster_name if cluster_name else volume.host == host)
            for volume in map(self.get, map(plain_uuid, volume_ids))
            if volume is not None
        )


def in_cluster(volume: Volume, host: str, cluster_name: str | None) -> Volume:
    """The volume once the service ``host``, on which it is or from which it moves, is of this cluster (None: of none).
    O(1)."""

    def at(place: str) -> str | None:
        return None if cluster_name is None else append_pool(cluster_name, pool_part(place) or "")

    names: dict[str, str] = {}
    if backend_part(volume.host) == host:
        names[volume.backend_id] = at(volume.host) or volume.host
        volume = replace(volume, cluster_name=at(volume.host))
    if volume.moved_from is not None and backend_part(volume.moved_from[0]) == host:
        place, cluster = volume.moved_from
        names[cluster or place] = at(place) or place
        volume = replace(volume, moved_from=(place, at(place)))
    return replace(volume, charged=tuple(names.get(each, each) for each in volume.charged))


def _volume(placed: Placed) -> Volume:
    volume_id, host, size_gb, cluster_name, project_id, charged = placed
    return Volume(
        volume_id=volume_id,
        host=host,
        size_gb=size_gb,
        cluster_name=cluster_name,
        project_id=project_id,
        charged=charged,
    )
