"""The model's back end itself: what exists on it, and the operations of its service. It outlives its clients, as a real
one does, and knows no driver protocol."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ..protocol import (
    Capacity,
    Conflict,
    Connection,
    GuestSpec,
    Mark,
    NotFound,
    Permanent,
    Power,
    Transient,
    Unknown,
    VolumeSpec,
)


class ModelNode(msgspec.Struct):
    """A node of the model."""

    name: str
    vcpus: int = 16
    memory_mb: int = 65_536
    disk_gb: int = 1_000
    state: str = "up"


class ModelPool(msgspec.Struct):
    """A pool of the model."""

    name: str
    total_gb: int = 10_000
    state: str = "up"


class ModelGuest(msgspec.Struct, kw_only=True):
    """A guest of the model. ``ready_at``: when it is built, on the model's clock. ``mark`` empty: a stranger's.
    ``paused``: it runs and stands still. ``broken``: its build failed. ``clings``: while it runs it lets no volume
    go."""

    key: str
    mark: str
    name: str
    node: str
    vcpus: int
    memory_mb: int
    disk_gb: int = 0
    power: Power = "on"
    ready_at: float = 0.0
    volumes: list[str] = []
    paused: bool = False
    broken: bool = False
    clings: bool = False


class ModelVolume(msgspec.Struct, kw_only=True):
    """A volume of the model. ``broken``: it cannot be used."""

    key: str
    mark: str
    name: str
    pool: str
    size_gb: int
    broken: bool = False


class ModelSnapshot(msgspec.Struct, kw_only=True):
    """A snapshot of a guest of the model."""

    key: str
    mark: str
    name: str
    ready_at: float = 0.0


Owned = TypeVar("Owned", ModelGuest, ModelVolume, ModelSnapshot)


class Content(msgspec.Struct):
    """All that exists on a model."""

    nodes: dict[str, ModelNode] = {}
    pools: dict[str, ModelPool] = {}
    guests: dict[str, ModelGuest] = {}
    volumes: dict[str, ModelVolume] = {}
    snapshots: dict[str, ModelSnapshot] = {}
    made: int = 0
    """Objects made so far; keys are numbered by it."""


IMAGES_REFUSED: Final = "no-such-image"
"""The name of an image that the model does not know; it takes all others."""
IMAGES_BROKEN: Final = "broken-image"
"""The name of an image from which guests and volumes are made that are in error."""


GIVEN_UP: Final[ContextVar[threading.Event | None]] = ContextVar("given_up", default=None)
"""Set once the caller of an operation has gone: it is not to be done any more, as later ones may have been."""


class World:
    """One back end. With a ``file`` it is kept there, and processes may share it; else in memory.

    Operations are atomic. Errors are those of a driver, by class, so that tests need no table of codes.
    """

    def __init__(self, clock: Callable[[], float], file: Path | None = None, build_seconds: float = 0.0) -> None:
        self._clock, self._file, self.build_seconds = clock, file, build_seconds
        self._content = Content()
        self.broken_images = {IMAGES_BROKEN}
        self.creations: list[str] = []
        """Marks of all guests and volumes made by this process, in order."""

    @contextmanager
    def content(self, *, change: bool = True) -> Iterator[Content]:
        """What there is; saved at the end of the context if it is to ``change``."""
        if self._file is None:
            yield self._content
            return
        with (self._file.with_suffix(".lock")).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (given_up := GIVEN_UP.get()) is not None and given_up.is_set():
                raise Unknown("the call was given up before its turn")
            content = Content()
            if self._file.exists():
                content = msgspec.json.decode(self._file.read_bytes(), type=Content)
            yield content
            if change:
                written = self._file.with_suffix(".new")
                written.write_bytes(msgspec.json.encode(content))
                os.replace(written, self._file)

    def add(self, nodes: int = 0, pools: int = 0, prefix: str = "") -> None:
        """Add nodes and pools of the default size where they are missing."""
        with self.content() as there:
            for number in range(nodes):
                there.nodes.setdefault(f"{prefix}node-{number}", ModelNode(f"{prefix}node-{number}"))
            for number in range(pools):
                there.pools.setdefault(f"{prefix}pool-{number}", ModelPool(f"{prefix}pool-{number}"))

    # guests

    def guest(self, installation: str, uuid: str) -> ModelGuest:
        """A copy of the guest of an installation. NotFound if there is none, Transient if it can be on nodes that are
        down only."""
        with self.content(change=False) as there:
            return msgspec.structs.replace(_guest(there, installation, uuid))

    def create_guest(self, want: GuestSpec) -> ModelGuest:
        """Make a guest, or return the one that was made by the same mark and size."""
        with self.content() as there:
            known = _reachable(there, want.mark.installation, want.mark.uuid)
            size = (want.node, want.vcpus, want.memory_mb, want.disk_gb)
            if known is not None:
                same = (
                    known.mark == str(want.mark) and (known.node, known.vcpus, known.memory_mb, known.disk_gb) == size
                )
                if not same:
                    raise Conflict(f"guest {want.mark.uuid} exists with another claim or size")
                return msgspec.structs.replace(known)
            if want.image == IMAGES_REFUSED:
                raise Permanent(f"there is no image {want.image}")
            if want.image.startswith("snapshot-") and want.image not in there.snapshots:
                raise NotFound(f"there is no image {want.image}")
            _check_room(there, want.node, want.memory_mb, want.disk_gb)
            there.made += 1
            ready = self._clock() + self.build_seconds
            volumes = [each.volume for each in want.volumes]
            made = ModelGuest(
                key=f"guest-{there.made}",
                mark=str(want.mark),
                name=want.name,
                node=want.node,
                vcpus=want.vcpus,
                memory_mb=want.memory_mb,
                disk_gb=want.disk_gb,
                power=want.power,
                ready_at=ready,
                volumes=volumes,
                broken=want.image in self.broken_images,
            )
            there.guests[made.key] = made
            self.creations.append(made.mark)
            return msgspec.structs.replace(made)

    def set_power(self, installation: str, uuid: str, want: Power) -> ModelGuest:
        """Start or stop a guest. Conflict while it is built, Capacity if its node has no memory for it."""
        with self.content() as there:
            guest = _guest(there, installation, uuid)
            if self.is_building(guest):
                raise Conflict(f"guest {uuid} is being built")
            if want == "on" and guest.power != "on":
                _check_memory(there, guest)
            guest.power, guest.paused = want, False
            return msgspec.structs.replace(guest)

    def move_guest(self, installation: str, uuid: str, node: str, *, live: bool) -> ModelGuest:
        """Move a guest to a node with room. Conflict while it is built, or for a live move while it is off. One that is
        moved cold is stopped first, and stays off if it cannot be moved; that the node has no memory for it is seen
        when it is started there."""
        with self.content() as there:
            guest = _guest(there, installation, uuid)
            ran = guest.power
            if guest.node != node:
                if self.is_building(guest) or (live and guest.power != "on"):
                    raise Conflict(f"guest {uuid} does not run")
                if not live:
                    guest.power, guest.paused = "off", False
        with self.content() as there:
            guest = _guest(there, installation, uuid)
            moved = guest.node != node
            if moved:
                _check_room(there, node, guest.memory_mb if live else None, guest.disk_gb)
                guest.node = node
        return self._as_before(installation, uuid, ran if moved else "off")

    def resize_guest(self, installation: str, uuid: str, vcpus: int, memory_mb: int) -> ModelGuest:
        """Give a guest another size. Conflict while it is built. It is stopped first, may have any size then, and stays
        off with it if its node has no memory for that."""
        with self.content() as there:
            guest = _guest(there, installation, uuid)
            same, ran = (guest.vcpus, guest.memory_mb) == (vcpus, memory_mb), guest.power
            if not same:
                if self.is_building(guest):
                    raise Conflict(f"guest {uuid} is being built")
                guest.power, guest.paused = "off", False
        with self.content() as there:
            guest = _guest(there, installation, uuid)
            if not same:
                guest.vcpus, guest.memory_mb = vcpus, memory_mb
        return self._as_before(installation, uuid, "off" if same else ran)

    def _as_before(self, installation: str, uuid: str, ran: Power) -> ModelGuest:
        """Start a guest that ran before it was changed. Capacity, with it left off, if there is no memory for it."""
        with self.content() as there:
            guest = _guest(there, installation, uuid)
            if ran == "on" and guest.power == "off":
                _check_memory(there, guest)
                guest.power = "on"
            return msgspec.structs.replace(guest)

    def delete_guest(self, installation: str, uuid: str, claim: int | None) -> None:
        """Remove a guest of a claim, if it is there. Transient if it can be on nodes that are down only."""
        with self.content() as there:
            known = [each for each in _all_of(there.guests, installation, uuid) if _is_up(there, each)]
            for each in known:
                if claim in (None, _mark(each.mark).claim):
                    del there.guests[each.key]
            if not known:
                _check_up(there, uuid)

    def adopt_guest(self, key: str, mark: Mark) -> ModelGuest:
        """Mark a stranger's guest. Conflict if it has another mark."""
        with self.content() as there:
            guest = there.guests.get(key)
            if guest is None or not _is_up(there, guest):
                _check_up(there, key)
                raise NotFound(f"there is no guest {key}")
            if guest.mark not in ("", str(mark)):
                raise Conflict(f"guest {key} has another mark")
            guest.mark = str(mark)
            return msgspec.structs.replace(guest)

    def disown_guest(self, installation: str, uuid: str, claim: int) -> None:
        """Take its mark from a guest that was adopted."""
        with self.content() as there:
            for guest in _all_of(there.guests, installation, uuid):
                if guest.mark == str(Mark(installation, uuid, claim, adopted=True)):
                    guest.mark = ""

    def change_volumes(self, installation: str, uuid: str, volume: str, *, attached: bool) -> bool:
        """Attach a volume to a guest, or ask for it; returns whether that is so now."""
        with self.content() as there:
            guest = _guest(there, installation, uuid)
            if attached and volume not in guest.volumes:
                guest.volumes.append(volume)
            elif not attached and volume in guest.volumes:
                if guest.clings and guest.power == "on":
                    return False
                guest.volumes.remove(volume)
            return True

    def is_building(self, made: ModelGuest | ModelSnapshot) -> bool:
        """True before the guest or snapshot is built."""
        return self._clock() < made.ready_at

    # snapshots

    def snapshot(self, installation: str, uuid: str) -> ModelSnapshot:
        """A copy of the snapshot of an installation. NotFound if there is none."""
        with self.content(change=False) as there:
            known = _of(there.snapshots, installation, uuid)
            if known is None:
                raise NotFound(f"there is no snapshot {uuid}")
            return msgspec.structs.replace(known)

    def snapshot_guest(self, guest: str, mark: Mark, name: str) -> ModelSnapshot:
        """Make a snapshot of a guest, or return the one that was made by the same mark."""
        with self.content() as there:
            known = _of(there.snapshots, mark.installation, mark.uuid)
            if known is not None:
                if known.mark != str(mark):
                    raise Conflict(f"snapshot {mark.uuid} exists with another claim")
                return msgspec.structs.replace(known)
            if self.is_building(_guest(there, mark.installation, guest)):
                raise Conflict(f"guest {guest} is being built")
            there.made += 1
            key = f"snapshot-{there.made}"
            made = ModelSnapshot(key=key, mark=str(mark), name=name, ready_at=self._clock() + self.build_seconds)
            there.snapshots[key] = made
            self.creations.append(made.mark)
            return msgspec.structs.replace(made)

    def delete_snapshot(self, installation: str, uuid: str, claim: int | None) -> None:
        """Remove a snapshot of a claim, if it is there."""
        with self.content() as there:
            known = _of(there.snapshots, installation, uuid)
            if known is not None and claim in (None, _mark(known.mark).claim):
                del there.snapshots[known.key]

    # volumes

    def volume(self, installation: str, uuid: str) -> ModelVolume:
        """A copy of the volume of an installation. NotFound if there is none."""
        with self.content(change=False) as there:
            return msgspec.structs.replace(_volume(there, installation, uuid))

    def create_volume(self, want: VolumeSpec) -> ModelVolume:
        """Make a volume, or return the one that was made by the same mark and size."""
        with self.content() as there:
            known = _of(there.volumes, want.mark.installation, want.mark.uuid)
            if known is not None:
                if (known.mark, known.pool, known.size_gb) != (str(want.mark), want.pool, want.size_gb):
                    raise Conflict(f"volume {want.mark.uuid} exists with another claim or size")
                return msgspec.structs.replace(known)
            if want.image == IMAGES_REFUSED:
                raise Permanent(f"there is no image {want.image}")
            pool = there.pools.get(want.pool)
            if pool is None or pool.state != "up":
                raise Capacity(f"there is no pool {want.pool}")
            if provisioned_gb(there, want.pool) + want.size_gb > pool.total_gb:
                raise Capacity(f"pool {want.pool} is full")
            there.made += 1
            key = f"volume-{there.made}"
            made = ModelVolume(
                key=key,
                mark=str(want.mark),
                name=want.name,
                pool=want.pool,
                size_gb=want.size_gb,
                broken=want.image in self.broken_images,
            )
            there.volumes[key] = made
            self.creations.append(made.mark)
            return msgspec.structs.replace(made)

    def extend_volume(self, installation: str, uuid: str, size_gb: int) -> ModelVolume:
        """Let a volume grow. Conflict if it is larger, Capacity if its pool is full."""
        with self.content() as there:
            volume = _volume(there, installation, uuid)
            more = size_gb - volume.size_gb
            if more < 0:
                raise Conflict(f"volume {uuid} is larger than {size_gb} GiB")
            if provisioned_gb(there, volume.pool) + more > there.pools[volume.pool].total_gb:
                raise Capacity(f"pool {volume.pool} is full")
            volume.size_gb = size_gb
            return msgspec.structs.replace(volume)

    def delete_volume(self, installation: str, uuid: str, claim: int | None) -> None:
        """Remove a volume of a claim, if it is there. Conflict while a guest has it."""
        with self.content() as there:
            known = _of(there.volumes, installation, uuid)
            if known is None or claim not in (None, _mark(known.mark).claim):
                return
            if any(uuid in guest.volumes for guest in there.guests.values()):
                raise Conflict(f"volume {uuid} is in use")
            del there.volumes[known.key]

    def connect(self, installation: str, uuid: str) -> Connection:
        """How nodes reach a volume."""
        return Connection(volume=uuid, protocol="model", address=self.volume(installation, uuid).key)

    # strangers

    def make_strangers_guest(self, node: str, vcpus: int = 1, memory_mb: int = 1_024) -> str:
        """Make a guest that does not belong to Hostler; returns its key."""
        with self.content() as there:
            there.made += 1
            key = f"guest-{there.made}"
            there.guests[key] = ModelGuest(
                key=key, mark="", name=f"stranger {key}", node=node, vcpus=vcpus, memory_mb=memory_mb
            )
            return key


def provisioned_gb(there: Content, pool: str) -> int:
    """Total size of the volumes in a pool."""
    return sum(volume.size_gb for volume in there.volumes.values() if volume.pool == pool)


def used_on(there: Content, node: str) -> tuple[int, int, int]:
    """CPUs, MiB of memory and GiB of disk that guests use on a node."""
    guests = [guest for guest in there.guests.values() if guest.node == node]
    return (
        sum(guest.vcpus for guest in guests),
        sum(guest.memory_mb for guest in guests),
        sum(guest.disk_gb for guest in guests),
    )


def _check_memory(there: Content, guest: ModelGuest) -> None:
    """Capacity for a guest that is to be started, and for which its node has no memory beside those that run."""
    node = there.nodes.get(guest.node)
    others = [each for each in there.guests.values() if each.node == guest.node and each is not guest]
    used_mb = sum(each.memory_mb for each in others if each.power == "on")
    if node is not None and used_mb + guest.memory_mb > node.memory_mb:
        raise Capacity(f"node {guest.node} has no {guest.memory_mb} MiB of memory")


def _check_room(there: Content, name: str, more_memory_mb: int | None, more_disk_gb: int) -> None:
    """Capacity for a node with too little room. ``more_memory_mb`` None: that is seen later."""
    node = there.nodes.get(name)
    if node is not None and node.state == "down":
        raise Transient(f"node {name} does not answer", nodes=[name])
    if node is None or node.state != "up":
        raise Capacity(f"node {name} is not available")
    _, memory_mb, disk_gb = used_on(there, name)
    full = more_memory_mb is not None and memory_mb + more_memory_mb > node.memory_mb
    if full or disk_gb + more_disk_gb > node.disk_gb:
        raise Capacity(f"node {name} is full")


def _is_up(there: Content, guest: ModelGuest) -> bool:
    """False for a guest on a node that is down, which the back end does not reach."""
    node = there.nodes.get(guest.node)
    return node is None or node.state != "down"


def reachable(there: Content) -> list[ModelGuest]:
    """The guests that are not on nodes that are down."""
    return [guest for guest in there.guests.values() if _is_up(there, guest)]


def _mark(text: str) -> Mark:
    found = Mark.parse(text)
    assert found is not None
    return found


def _all_of(known: dict[str, Owned], installation: str, uuid: str) -> list[Owned]:
    start = f"hostler:{installation}:{uuid}:"
    return [each for each in known.values() if each.mark.startswith(start)]


def _of(known: dict[str, Owned], installation: str, uuid: str) -> Owned | None:
    found = _all_of(known, installation, uuid)
    return found[0] if found else None


def _reachable(there: Content, installation: str, uuid: str) -> ModelGuest | None:
    """The guest of a uuid on a node that is up: of several the newest, which was made when the node of others was
    down."""
    found = [each for each in _all_of(there.guests, installation, uuid) if _is_up(there, each)]
    return max(found, key=lambda each: _mark(each.mark).claim) if found else None


def _guest(there: Content, installation: str, uuid: str) -> ModelGuest:
    found = _reachable(there, installation, uuid)
    if found is None:
        _check_up(there, uuid)
        raise NotFound(f"there is no guest {uuid}")
    return found


def _check_up(there: Content, uuid: str) -> None:
    """Transient if some node is down: what is on it is not known."""
    down = [each.name for each in there.nodes.values() if each.state == "down"]
    if down:
        raise Transient(f"nodes {', '.join(down)} do not answer, which may have guest {uuid}", nodes=down)


def _volume(there: Content, installation: str, uuid: str) -> ModelVolume:
    found = _of(there.volumes, installation, uuid)
    if found is None:
        raise NotFound(f"there is no volume {uuid}")
    return found
