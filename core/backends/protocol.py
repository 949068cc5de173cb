"""Protocols of drivers. A driver is a set of idempotent calls on one back end: it stores no state, selects no host,
and repeats no call; the reconciler does that, since it knows the deadline and whether the claim still holds.

Every method raises a subclass of ``DriverError``. Every method may be cancelled at every await; what cannot be stopped
on the back end goes on there, and a later look-up shows its outcome.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, TypeGuard

from .values import (
    Can,
    Connection,
    ConsoleAddress,
    Facts,
    Guest,
    GuestSpec,
    Mark,
    Node,
    Page,
    Pool,
    Power,
    Snapshot,
    Volume,
    VolumeSpec,
)


class Driver(Protocol):
    """What all drivers have. One object may be driver of compute and of storage."""

    @property
    def facts(self) -> Facts:
        """Properties of the back end, known once the driver is open."""
        ...

    async def check(self) -> None:
        """Check that the back end answers, by one cheap call. DriverError otherwise."""


class ComputeDriver(Driver, Protocol):
    """Nodes and guests."""

    def nodes(self) -> AsyncIterator[Page[Node]]:
        """All nodes, page by page. A page that cannot be read raises: what came before must then not be used."""
        ...

    def guests(self) -> AsyncIterator[Page[Guest]]:
        """All guests, those that Hostler did not make included, page by page, as ``nodes``."""
        ...

    async def get_guest(self, uuid: str) -> Guest:
        """The guest of this installation with this uuid. NotFound if there is none; if there is none on the nodes that
        answer, Transient with those that do not as its ``nodes``."""
        ...

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Make a guest, and start it if ``want.power`` is on. It may still be building when this returns.

        Repeatable: the same mark and spec again return the guest that is there. Conflict, with nothing changed, if a
        guest of this uuid has another claim or another size. Capacity, Quota and Permanent leave nothing behind.
        """
        ...

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Start or stop a guest; no change if it is so already. NotFound if there is none."""
        ...

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Remove a guest, running or not, with what was made for it. No error if there is none, or, where ``claim`` is
        given, if the one that is there was made for another claim: that one stays. If there was none on the nodes that
        answer, Transient with those that do not as its ``nodes``."""


class AttachingDriver(ComputeDriver, Protocol):
    """A compute driver whose guests can be given volumes (``Can.ATTACH``)."""

    async def attach(self, uuid: str, volume: Connection) -> None:
        """Attach a volume to a guest. No change if it is attached already."""

    async def detach(self, uuid: str, volume: str) -> bool:
        """Ask a guest to let a volume go, by its uuid; True once it no longer uses it, False while it still does: the
        caller asks again. It must not wait for the guest, which may never let it go. No change if it is not
        attached."""
        ...


class MovingDriver(ComputeDriver, Protocol):
    """A compute driver that moves guests between its nodes (``Can.MOVE``)."""

    async def move_guest(self, uuid: str, node: str, *, live: bool) -> Guest:
        """Move a guest to a node, while it runs (``live``), or by stopping it and starting it there if it ran. Returns
        it once it is there and nowhere else; no change if it is there already. After a failure the guest is on one
        node, and ``get_guest`` tells which; it may be off. NotFound if there is none."""
        ...


class AdoptingDriver(ComputeDriver, Protocol):
    """A compute driver that marks guests which it has not made (``Can.ADOPT``)."""

    async def adopt_guest(self, key: str, mark: Mark) -> Guest:
        """Give the guest with the back end's id ``key`` a mark, and change nothing else. No change if it has it
        already. NotFound if there is none, Conflict if it has another mark, Permanent if it cannot have this one."""
        ...

    async def disown_guest(self, uuid: str, claim: int) -> None:
        """Take its mark from a guest that was adopted for a claim, and change nothing else. No error if there is
        none."""


class ResizingDriver(ComputeDriver, Protocol):
    """A compute driver that gives guests another size (``Can.RESIZE``)."""

    async def resize_guest(self, uuid: str, vcpus: int, memory_mb: int) -> Guest:
        """Give a guest another size on its node. One that runs is stopped for it, and started again. No change if it
        has that size. After a failure it has one of the two sizes, and ``get_guest`` tells which; it may be off. One
        that does not start with the new size is better given the old one, and started with it. NotFound if there is
        none."""
        ...


class SnapshottingDriver(ComputeDriver, Protocol):
    """A compute driver that makes images of the disks of guests (``Can.SNAPSHOT``)."""

    def snapshots(self) -> AsyncIterator[Page[Snapshot]]:
        """All images that Hostler made of guests, those of other installations included, page by page, as
        ``nodes``."""
        ...

    async def get_snapshot(self, uuid: str) -> Snapshot:
        """The snapshot of this installation with this uuid. NotFound if there is none."""
        ...

    async def snapshot_guest(self, guest: str, mark: Mark, name: str) -> Snapshot:
        """Make an image of the disk that a guest has of its own, as it is at one moment, whether the guest runs or not.
        ``mark`` is that of the image, which outlasts the guest. It may still be building when this returns.
        Repeatable: the same mark again returns the image that is there; what an attempt that was cut off has left is
        made again. Conflict if there is one of this uuid with another claim. NotFound if there is no such guest,
        Permanent if it has no disk of its own. Errors leave nothing behind that counts as made."""
        ...

    async def delete_snapshot(self, uuid: str, claim: int | None = None) -> None:
        """Remove a snapshot, whole or not, as ``delete_guest``. Conflict while it is in use."""


class ConsoleDriver(ComputeDriver, Protocol):
    """A compute driver that tells how consoles are reached (``Can.CONSOLE``)."""

    async def console(self, uuid: str) -> ConsoleAddress:
        """How the console of a guest is reached now. NotFound if there is no such guest, Conflict while it does not
        run, Permanent if it has none."""
        ...


class StorageDriver(Driver, Protocol):
    """Pools and volumes."""

    def pools(self) -> AsyncIterator[Page[Pool]]:
        """All pools, as ``ComputeDriver.nodes``."""
        ...

    def volumes(self) -> AsyncIterator[Page[Volume]]:
        """All volumes, those that Hostler did not make included, as ``ComputeDriver.nodes``."""
        ...

    async def get_volume(self, uuid: str) -> Volume:
        """The volume of this installation with this uuid. NotFound if there is none."""
        ...

    async def create_volume(self, want: VolumeSpec) -> Volume:
        """Make a volume of at least ``want.size_gb``. Repeatable, and with the errors of ``create_guest``."""
        ...

    async def delete_volume(self, uuid: str, claim: int | None = None) -> None:
        """Remove a volume, as ``delete_guest``. Conflict while it is in use."""

    async def extend_volume(self, uuid: str, size_gb: int) -> Volume:
        """Let a volume grow to a size. No change if it has that size; Conflict if it is larger."""
        ...

    async def connect(self, uuid: str, node: str) -> Connection:
        """How a node reaches a volume. Repeatable. NotFound if there is no such volume."""
        ...


AnyDriver = ComputeDriver | StorageDriver


class DriverContext(NamedTuple):
    """What every driver is opened with: ``backend`` is the name of the back end in the configuration, ``installation``
    the id that marks of this installation carry."""

    backend: str
    installation: str


class OpenDriver(Protocol):
    """What an entry point of the group ``hostler.drivers`` names: a function that connects to a back end. Within the
    context the driver is open; at the end its connections and threads are closed. InvalidValue for wrong options,
    DriverError if the back end does not answer."""

    def __call__(
        self, options: Mapping[str, Any], context: DriverContext
    ) -> AbstractAsyncContextManager[AnyDriver]: ...


def computes(driver: AnyDriver) -> TypeGuard[ComputeDriver]:
    """True for a driver of nodes and guests."""
    return Can.COMPUTE in driver.facts.can


def stores(driver: AnyDriver) -> TypeGuard[StorageDriver]:
    """True for a driver of pools and volumes."""
    return Can.STORAGE in driver.facts.can


def attaches(driver: AnyDriver) -> TypeGuard[AttachingDriver]:
    """True for a compute driver whose guests can be given volumes."""
    return Can.ATTACH in driver.facts.can


def moves(driver: AnyDriver) -> TypeGuard[MovingDriver]:
    """True for a compute driver that moves guests."""
    return Can.MOVE in driver.facts.can


def adopts(driver: AnyDriver) -> TypeGuard[AdoptingDriver]:
    """True for a compute driver that marks guests which it has not made."""
    return Can.ADOPT in driver.facts.can


def resizes(driver: AnyDriver) -> TypeGuard[ResizingDriver]:
    """True for a compute driver that gives guests another size."""
    return Can.RESIZE in driver.facts.can


def snapshots(driver: AnyDriver) -> TypeGuard[SnapshottingDriver]:
    """True for a compute driver that makes images of the disks of guests."""
    return Can.SNAPSHOT in driver.facts.can


def has_consoles(driver: AnyDriver) -> TypeGuard[ConsoleDriver]:
    """True for a compute driver that tells how consoles are reached."""
    return Can.CONSOLE in driver.facts.can
