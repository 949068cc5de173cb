"""What drivers are given and report, as plain values. Memory is in MiB, disks and pools in GiB; drivers convert at the
edge, and round capacity down and needs up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Flag, auto
from typing import Final, Generic, Literal, NamedTuple, TypeVar

import msgspec

Power = Literal["on", "off"]
GuestState = Literal["building", "off", "on", "paused", "error", "deleting"]
VolumeState = Literal["building", "available", "in_use", "error", "deleting"]
SnapshotState = Literal["building", "available", "error", "deleting"]
NodeState = Literal["up", "down", "maintenance"]
ConsoleKind = Literal["vnc", "spice", "serial", "url"]
Item = TypeVar("Item")


class Can(Flag):
    """Capabilities of a back end, beyond what every driver does."""

    COMPUTE = auto()
    """It has nodes and guests."""
    STORAGE = auto()
    """It has pools and volumes."""
    ATTACH = auto()
    """Guests can be given volumes (``GuestSpec.volumes``, ``attach``, ``detach``)."""
    MOVE = auto()
    """Guests can be moved between its nodes (``move_guest``)."""
    CHOOSES_HOST = auto()
    """Nodes are zones: the back end selects the host itself."""
    NATIVE_KEY = auto()
    """The service itself joins a second creation with the same uuid to the first one."""
    ADOPT = auto()
    """Guests that Hostler did not make can be given a mark, and lose it again (``adopt_guest``, ``disown_guest``)."""
    RESIZE = auto()
    """Guests can be given another number of CPUs and amount of memory (``resize_guest``)."""
    SNAPSHOT = auto()
    """Images can be made of the disks of guests (``snapshot_guest``)."""
    CONSOLE = auto()
    """It tells how the console of a guest is reached (``console``)."""


class Facts(NamedTuple):
    """Properties of a connected back end, constant while it is open.

    ``kind``: name of the driver. ``version``: of the back end. ``poll``: seconds between two inventories.
    ``concurrency``: number of calls that may be under way. ``timeout``: seconds after which a call is given up, with
    an unknown outcome.
    """

    kind: str
    version: str
    can: Can
    poll: float = 30.0
    concurrency: int = 8
    timeout: float = 300.0


class Mark(NamedTuple):
    """Whose object it is: the ``installation`` of Hostler, the ``uuid`` of the guest or volume, and the number of the
    ``claim`` for which it was made. Written into the object when it is created, or when it is ``adopted``: a guest that
    is adopted and has no claim loses its mark, and is not removed."""

    installation: str
    uuid: str
    claim: int
    adopted: bool = False

    def __str__(self) -> str:
        return f"hostler:{self.installation}:{self.uuid}:{self.claim}" + (":adopted" if self.adopted else "")

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """The mark that ``str`` wrote; None for any other text."""
        found = _MARK.fullmatch(text)
        return None if found is None else cls(found[1], found[2], int(found[3]), bool(found[4]))


_MARK: Final = re.compile(r"hostler:([0-9a-z-]{1,64}):([0-9a-f-]{36}):(\d{1,18})(:adopted)?")


class Node(NamedTuple):
    """A node that guests run on. ``used_*``: what all guests on it use, those of others included. ``disk_gb`` is local
    disk."""

    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    used_vcpus: int = 0
    used_memory_mb: int = 0
    used_disk_gb: int = 0
    state: NodeState = "up"
    hypervisor: str = "QEMU"


class Pool(NamedTuple):
    """A storage pool. ``provisioned_gb``: total size of all volumes in it, those of others included; it may exceed
    ``total_gb`` where ``thin`` volumes take space when they are written."""

    name: str
    total_gb: int
    free_gb: int
    provisioned_gb: int
    thin: bool = False
    state: NodeState = "up"


class Guest(NamedTuple):
    """A guest as the back end has it. ``key``: the back end's own id. ``mark``: None if Hostler did not make it."""

    key: str
    mark: Mark | None
    name: str
    node: str
    state: GuestState
    vcpus: int
    memory_mb: int
    volumes: tuple[str, ...] = ()


class Volume(NamedTuple):
    """A volume as the back end has it. ``key``: the back end's own id. ``mark``: None if Hostler did not make it."""

    key: str
    mark: Mark | None
    name: str
    pool: str
    size_gb: int
    state: VolumeState


class Snapshot(NamedTuple):
    """An image of a guest's disk as the back end has it. ``key``: the back end's own name of it, which new guests are
    made from. ``mark``: of the snapshot itself; None if Hostler did not make it."""

    key: str
    mark: Mark | None
    name: str
    state: SnapshotState


class ConsoleAddress(msgspec.Struct, frozen=True, kw_only=True):
    """How the console of a guest is reached. ``address``: HOST:PORT of ``vnc`` and ``spice``, the device on ``node`` of
    ``serial``, a ``url``. ``note``: how to connect, for people. It may hold a secret that the back end has made for
    this one use, and is kept nowhere."""

    kind: ConsoleKind
    address: str
    node: str
    note: str = ""


class Page(NamedTuple, Generic[Item]):
    """A part of a listing. An object that moves while pages are read may be in two pages or in none."""

    items: tuple[Item, ...]


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How a node reaches a volume. ``protocol``: file, rbd, iscsi, nbd, nfs, ebs or another name that the compute
    driver knows; ``address``: path, image name, target or id; ``options``: what else the protocol needs, without
    secrets."""

    volume: str
    protocol: str
    address: str
    format: str = "raw"
    options: Mapping[str, str] = {}


class GuestSpec(NamedTuple):
    """A guest to be made. ``image`` and ``networks`` are names that the back end knows. ``user_data`` is cloud-init
    user data, which may hold secrets: a driver passes it on and logs none of it."""

    mark: Mark
    name: str
    node: str
    vcpus: int
    memory_mb: int
    disk_gb: int = 0
    image: str = ""
    networks: tuple[str, ...] = ()
    volumes: tuple[Connection, ...] = ()
    user_data: str = ""
    power: Power = "on"


class VolumeSpec(NamedTuple):
    """A volume to be made, empty or from an ``image`` that the back end knows by name."""

    mark: Mark
    name: str
    pool: str
    size_gb: int
    image: str = ""
