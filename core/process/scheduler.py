"""The scheduler in an application's own process: writer, journal, reconciler and drivers as in the daemon, without
sockets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from ...placement.storage.with_guests import Locality
from ...placement.types.decision import Decision
from ...placement.types.errors import InvalidValue, UnknownName
from ...placement.types.from_builtins import from_msgspec
from ...placement.types.request import Request
from ..backends.values import ConsoleAddress
from ..engine_commands import Place, asked
from ..failures import Failures
from ..http.config import MEMORY
from ..journal.journal import Journal
from ..lifecycle_commands import (
    ATTEMPTS,
    BUILD_SECONDS,
    MOVE_SECONDS,
    AdoptGuest,
    AttachVolume,
    CreateGuest,
    DeleteGuest,
    DeleteGuestSnapshot,
    DetachVolume,
    GuestCommand,
    GuestVolume,
    MoveGuest,
    MoveKind,
    OnGuest,
    OnVolumeClaim,
    ResizeGuest,
    SnapshotGuest,
    StartGuest,
    StopGuest,
)
from ..machine import lifecycle_queries
from ..machine.call_uuids import canonical, with_canonical_uuids
from ..machine.event_log import Event, History
from ..machine.lifecycle_queries import GuestLine, GuestSnapshotLine
from ..machine.lives import GuestChange, SnapshotChange, VolumeChange
from ..machine.machine import ServiceMachine
from ..machine.order_policies import with_present_defaults
from ..machine.orders import AnyCommand, Order
from ..machine.question import Query
from ..reconcile.reconciler import Reconciler
from ..reconcile.status import ReconcileStatus, StrangerLine
from ..service import Service
from ..tasks import background, in_thread
from ..tenancy.tenants import LOCAL
from ..writer.writer import open_writer
from .clock import HonestClock
from .config import Loaded, load
from .daemon import put_policy
from .settings import Config, problems_of


class Scheduler:
    """A scheduler in this process; made by ``open_scheduler``. Methods may be called from any task of the same trio
    program. A call that is cancelled has either changed nothing, or is carried out whole."""

    def __init__(self, service: Service, reconciler: Reconciler | None) -> None:
        self._service, self._reconciler = service, reconciler
        self._history = service.history
        self._advanced = trio.Event()
        self._settling: dict[str, trio.Event] = {}
        """By guest that is waited for: set by the next command on it."""
        self._history.begin(service.writer.sequence)
        service.writer.observers.append(self._applied)

    def __repr__(self) -> str:
        return (
            f"<Scheduler of {len(self._service.state.fleet)} providers, after command {self._service.writer.sequence}>"
        )

    def _applied(self, sequence: int, order: Order, outcome: Any) -> None:
        self._history.add(sequence, order, outcome)
        self._advanced.set()
        self._advanced = trio.Event()
        if self._settling and isinstance(order.command, OnGuest | OnVolumeClaim):
            by_volume = outcome.guest if isinstance(outcome, VolumeChange) else ""
            uuid = order.command.uuid if isinstance(order.command, OnGuest) else by_volume
            waiting = self._settling.pop(uuid, None)
            if waiting is not None:
                waiting.set()

    async def submit(self, command: msgspec.Struct, *, key: str | None = None) -> Any:
        """Have any command of the RPC interface carried out, as a cloud admin; returns its answer once it is durable.
        With a ``key`` a repetition gets the first answer. HostlerError if it is refused."""
        if not isinstance(command, AnyCommand):
            raise InvalidValue(f"{type(command).__name__} is not a command", field="command")
        command = with_canonical_uuids(command)
        self._service.check_backend(LOCAL, command)
        order = Order(self._service.now(), LOCAL, command)
        fingerprint = b"" if key is None else msgspec.msgpack.encode(command)
        return await self._service.writer.submit(order, key=key, fingerprint=fingerprint, lane=LOCAL)

    def ask(self, query: msgspec.Struct) -> Any:
        """The answer to a question of the RPC interface about the state as it is now. HostlerError as the question
        says."""
        if not isinstance(query, Query):
            raise InvalidValue(f"{type(query).__name__} is not a question", field="query")
        return self._service.ask(self._service.newcomer(local=True), with_canonical_uuids(query))

    async def place(self, request: Request, *, key: str | None = None) -> Decision:
        """Choose a host for each instance of a request, and charge it. No back end is called."""
        decision: Decision = await self.submit(Place(request=asked(request)), key=key)
        return decision

    async def create_guest(
        self,
        request: Request,
        *,
        name: str = "",
        image: str = "",
        networks: tuple[str, ...] = (),
        user_data: str | None = None,
        stopped: bool = False,
        attempts: int = ATTEMPTS,
        build_seconds: float = BUILD_SECONDS,
        volumes: Sequence[GuestVolume] = (),
        locality: Locality | None = None,
        key: str | None = None,
    ) -> Decision:
        """Place one guest, and have its back end build it, its volumes first; see the command ``create_guest``.
        Returns once the claim is durable; ``until_settled`` waits for the guest."""
        values: Mapping[str, Any] = {
            "request": asked(request),
            "name": name,
            "image": image,
            "networks": networks,
            "user_data": user_data,
            "stopped": stopped,
            "attempts": attempts,
            "build_seconds": build_seconds,
            "volumes": tuple(volumes),
            "locality": locality,
        }
        decision: Decision = await self.submit(CreateGuest(**values), key=key)
        return decision

    async def adopt_guest(
        self,
        backend: str,
        key: str,
        node: str,
        request: Request,
        *,
        name: str = "",
        seconds: float = BUILD_SECONDS,
    ) -> Decision:
        """Make a guest that others made on a back end one of a project; see the command ``adopt_guest``."""
        command = AdoptGuest(backend=backend, key=key, node=node, request=asked(request), name=name, seconds=seconds)
        decision: Decision = await self.submit(command)
        return decision

    async def start_guest(self, uuid: str) -> GuestChange:
        """Have a guest run. UnknownName if no back end has it."""
        return await self._change(StartGuest(uuid=uuid))

    async def stop_guest(self, uuid: str) -> GuestChange:
        """Have a guest stopped. UnknownName if no back end has it."""
        return await self._change(StopGuest(uuid=uuid))

    async def delete_guest(self, uuid: str) -> GuestChange:
        """Have a guest removed. UnknownName if no back end has it."""
        return await self._change(DeleteGuest(uuid=uuid))

    async def move_guest(
        self, uuid: str, *, target: str | None = None, kind: MoveKind = "live_migrate", seconds: float = MOVE_SECONDS
    ) -> Decision:
        """Have a guest go to another node of its back end; see the command ``move_guest``."""
        decision: Decision = await self.submit(MoveGuest(uuid=uuid, target=target, kind=kind, seconds=seconds))
        return decision

    async def resize_guest(
        self, uuid: str, request: Request, *, target: str | None = None, seconds: float = MOVE_SECONDS
    ) -> Decision:
        """Have a guest get the size of the flavor of a request; see the command ``resize_guest``."""
        command = ResizeGuest(uuid=uuid, request=asked(request), target=target, seconds=seconds)
        decision: Decision = await self.submit(command)
        return decision

    async def snapshot_guest(
        self, uuid: str, *, name: str = "", snapshot: str = "", seconds: float = MOVE_SECONDS
    ) -> SnapshotChange:
        """Have an image made of the disk of a guest; see the command ``snapshot_guest``. ``until_settled`` waits for
        it."""
        command = SnapshotGuest(uuid=uuid, name=name, snapshot=snapshot, seconds=seconds)
        change: SnapshotChange = await self.submit(command)
        return change

    async def delete_snapshot(self, uuid: str, snapshot: str) -> SnapshotChange:
        """Have a snapshot of a guest removed. InUse while guests that were made from it are there."""
        change: SnapshotChange = await self.submit(DeleteGuestSnapshot(uuid=uuid, snapshot=snapshot))
        return change

    def guest_snapshots(self, uuid: str) -> list[GuestSnapshotLine]:
        """The snapshots of a guest. UnknownName if no back end has it."""
        lines: list[GuestSnapshotLine] = self.ask(lifecycle_queries.GuestSnapshots(uuid=uuid))
        return lines

    async def console(self, uuid: str) -> ConsoleAddress:
        """How the console of a guest is reached now; it may hold a secret. DriverError if it has none."""
        return await self._reconciling().console(canonical(uuid))

    async def attach_volume(self, uuid: str, volume: str) -> GuestChange:
        """Have a volume attached to a guest."""
        return await self._change(AttachVolume(uuid=uuid, volume=volume))

    async def detach_volume(self, uuid: str, volume: str) -> GuestChange:
        """Have a volume detached from a guest."""
        return await self._change(DetachVolume(uuid=uuid, volume=volume))

    async def _change(self, command: GuestCommand) -> GuestChange:
        change: GuestChange = await self.submit(command)
        return change

    def guest(self, uuid: str) -> GuestLine:
        """A guest as it is now. UnknownName if no back end has it."""
        line: GuestLine = self.ask(lifecycle_queries.ShowGuest(uuid=uuid))
        return line

    async def until_settled(self, uuid: str) -> GuestLine | None:
        """Wait until a guest is as desired, or in error; None once it is gone."""
        uuid = canonical(uuid)
        while True:
            try:
                life = self._service.state.lives.guest(uuid)
            except UnknownName:
                return None
            if life.settled:
                return self.guest(uuid)
            await self._settling.setdefault(uuid, trio.Event()).wait()

    def watch(self, *, after: int | None = None) -> AsyncIterator[Event]:
        """Events of all commands, from now on or ``after`` a number. A ``gap`` says that the reader was too slow, or
        came too late, for those up to its sequence number. It may be left at any time: there is nothing to close."""
        return _Events(self, self._history.last if after is None else after)

    def status(self) -> ReconcileStatus:
        """How guests are brought to what is desired. InvalidValue without back ends."""
        return self._reconciling().status()

    def strangers(self, backend: str, *, after: str = "", limit: int = 1_000) -> list[StrangerLine]:
        """Guests on a back end that this installation did not make, by their keys. UnknownName."""
        return self._reconciling().strangers(backend, after, limit)

    async def check_backend(self, name: str) -> None:
        """Have a back end's driver check that it answers. DriverError otherwise."""
        await self._reconciling().check(name)

    def _reconciling(self) -> Reconciler:
        if self._reconciler is None:
            raise InvalidValue("this scheduler has no back ends", field="backends")
        return self._reconciler


class _Events:
    """Iterates over events after a position. No asynchronous generator: one that is left before its end is reported as
    not closed."""

    def __init__(self, scheduler: Scheduler, position: int) -> None:
        self._scheduler, self._position = scheduler, position
        self._next: deque[Event] = deque()

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> Event:
        history = self._scheduler._history
        while not self._next:
            advanced = self._scheduler._advanced
            if self._position >= history.last:
                await advanced.wait()
            elif self._position + 1 < history.first:
                self._position = history.first - 1
                return Event(kind="gap", sequence=self._position, time=self._scheduler._service.now())
            else:
                self._position += 1
                self._next.extend(history.events(self._position))
        return self._next.popleft()


@asynccontextmanager
async def open_scheduler(
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> AsyncIterator[Scheduler]:
    """A scheduler in this process, recovered from its journal, with its reconciler running.

    ``config`` is the path of a configuration file, or its content as a mapping; of it ``policy``, ``data``,
    ``backends`` and ``reconcile`` are used. Without a data folder all state is lost at the end. At the end what was
    submitted is carried out, calls on back ends are cancelled, and the journal is closed; the next scheduler on the
    same folder goes on. BadConfig or InvalidValue for a wrong configuration, DataInUse if another process has the
    folder.
    """
    loaded = await trio.to_thread.run_sync(_loaded, config)
    settings, policy = loaded.config, await trio.to_thread.run_sync(loaded.policy_values)
    journal, failures = None, Failures()
    if settings.data.folder not in (None, MEMORY):
        assert settings.data.folder is not None
        keep = settings.data.keep_history
        journal = Journal.in_folder(settings.data.folder, keep_history=keep, aside=in_thread, failures=failures)
    machine = ServiceMachine()
    data = settings.data
    limits = {"queue_limit": data.queue, "answers_kept": data.keys_kept, "snapshot_every": data.snapshot_every}
    async with open_writer(machine, journal, None, failures, **limits) as writer:
        service = Service(machine, writer, clock=HonestClock(), history=History(machine), limits=settings.limits)
        await put_policy(service, None if policy is None else with_present_defaults(policy))
        folder = settings.reconcile.user_data
        reconciler = None
        if settings.backends:
            user_data = None if folder is None else Path(folder)
            reconciler = service.reconciler = Reconciler(service, settings.backends, user_data=user_data)
        scheduler = Scheduler(service, reconciler)
        async with background() as nursery:
            if reconciler is not None:
                nursery.start_soon(failures.keep_running, "reconciler", reconciler.run)
            try:
                yield scheduler
            finally:
                nursery.cancel_scope.cancel()


def _loaded(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> Loaded:
    if config is None or isinstance(config, str | os.PathLike):
        return load(config, environment={} if config is None else None)
    try:
        settings = msgspec.convert(dict(config), Config)
    except msgspec.ValidationError as error:
        raise from_msgspec(error, "config") from None
    for key, problem in problems_of(settings):
        raise InvalidValue(f"{'.'.join(map(str, key))}: {problem}", field=str(key[-1]))
    return Loaded(settings)
