"""IBM Z by its hardware management console: nodes are machines in DPM mode, guests are partitions. Needs the extra
``zhmc``.

The client blocks, so each call runs in a thread; a change that is cancelled goes on there."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import trio
import zhmcclient

from ..log_ons import LogOns
from ..ongoing import Ongoing, open_ongoing
from ..protocol import (
    Can,
    Capacity,
    Conflict,
    Denied,
    DriverContext,
    DriverError,
    Facts,
    Guest,
    GuestSpec,
    GuestState,
    Mark,
    Node,
    NotFound,
    Page,
    Permanent,
    Power,
    Quota,
    Transient,
    Unknown,
    read_options,
)
from ..tls import tls_of

T = TypeVar("T")
TIMEOUT: Final = 900.0
NO_REPETITION: Final = zhmcclient.RetryTimeoutConfig(
    connect_timeout=10, connect_retries=0, read_timeout=300, read_retries=0, operation_timeout=600, status_timeout=300
)

STATES: Final[Mapping[str, GuestState]] = {
    "active": "on",
    "communications-not-active": "on",
    "degraded": "on",
    "paused": "paused",
    "reservation-error": "error",
    "starting": "building",
    "stopped": "off",
    "stopping": "on",
    "terminated": "off",
}
"""Status of partitions."""
UP: Final = ("active", "operating", "degraded", "acceptable")
"""Status of machines that run partitions."""

STATUS: Final[Mapping[tuple[int, int | None], type[DriverError]]] = {
    (400, 8): Conflict,  # the name is taken
    (400, None): Permanent,
    (401, None): Denied,
    (403, 5): Transient,  # the session has ended; the client logs on again
    (403, None): Denied,
    (404, None): NotFound,
    (409, 1): Conflict,  # another status than the operation needs
    (409, 2): Transient,  # busy
    (409, 15): Capacity,  # the machine has too few resources
    (409, None): Conflict,
    (413, None): Quota,
    (500, None): Unknown,
    (503, None): Transient,
}
"""HTTP status and reason by class; the status with no reason stands for all its other reasons."""
CLIENT: Final[tuple[tuple[type[zhmcclient.Error], type[DriverError]], ...]] = (
    (zhmcclient.CeasedExistence, NotFound),
    (zhmcclient.NotFound, NotFound),
    (zhmcclient.ClientAuthError, Denied),
    (zhmcclient.ServerAuthError, Denied),
    (zhmcclient.ConnectTimeout, Transient),
    (zhmcclient.RetriesExceeded, Unknown),
    (zhmcclient.ReadTimeout, Unknown),
    (zhmcclient.ConnectionError, Unknown),
    (zhmcclient.OperationTimeout, Unknown),
    (zhmcclient.StatusTimeout, Unknown),
    (zhmcclient.ParseError, Unknown),
    (zhmcclient.Error, Permanent),
)
"""Errors of the client by class; the first that matches counts."""
NOT_SENT: Final = re.compile("refused|unreachable|resolve|getaddrinfo", re.IGNORECASE)
LONGEST_DESCRIPTION: Final = 1_024


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options: the ``host`` and ``port`` of the console, ``username`` and ``password``; ``ca_file`` with certificates,
    or ``insecure`` to check none. ``cpcs``: the machines to use (default: all in DPM mode); the kind of ``processor``
    that guests get. ``memory_step_mb``, of which the memory of a partition is a multiple. ``partition``: further
    properties of new partitions; ``boot``: those that an image stands for, such as boot-device and boot-ftp-host."""

    host: str
    username: str
    password: str
    port: int = 6794
    ca_file: str | None = None
    insecure: bool = False
    cpcs: list[str] | None = None
    processor: Literal["ifl", "cp"] = "ifl"
    memory_step_mb: Annotated[int, msgspec.Meta(ge=1)] = 1_024
    partition: dict[str, Any] = {}
    boot: dict[str, dict[str, Any]] = {}
    poll: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4


_ENDED: Final = (4, 5)
"""Reasons of a 403 whose session is missing or has ended."""


class Session(zhmcclient.Session):  # type: ignore[misc]  # the client has no types
    """A session that many threads use: the client's own would be renewed by each thread that finds it ended, and each
    would try the password."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._renewing, self._log_ons = threading.Lock(), LogOns()

    def get(self, uri: str, *given: Any, **named: Any) -> Any:
        """Read something."""
        return self._renewed(super().get, uri, *given, **named)

    def post(self, uri: str, *given: Any, **named: Any) -> Any:
        """Have something done."""
        return self._renewed(super().post, uri, *given, **named)

    def delete(self, uri: str, *given: Any, **named: Any) -> Any:
        """Remove something."""
        return self._renewed(super().delete, uri, *given, **named)

    def renew(self, ended: str | None = None) -> None:
        """Log on in place of a session that has ended, unless another thread has. It does nothing else, so that no
        outcome is unknown: errors of the protocol, Denied soon after a log-on that was refused."""
        with self._renewing:
            if self._token() != ended:
                return
            try:
                with self._log_ons.one():
                    as_ours(self._do_logon)
            except Unknown as error:
                raise Transient(str(error), backend_code=error.backend_code) from error

    def _token(self) -> str | None:
        """What calls are sent with: there is none during a log-on, and after one that failed."""
        found: str | None = self.headers.get("X-API-Session")
        return found

    def _renewed(self, call: Callable[..., Any], uri: str, *given: Any, **named: Any) -> Any:
        """The answer to a call, made again in a new session if its own has ended."""
        wanted = named.get("logon_required", True) and named.get("renew_session", True)
        named |= {"logon_required": False, "renew_session": False}
        token = self._token()
        try:
            return call(uri, *given, **named)
        except zhmcclient.ServerAuthError as error:
            if not wanted or getattr(error.details, "reason", None) not in _ENDED:
                raise
        self.renew(token)
        try:
            return call(uri, *given, **named)
        except zhmcclient.ServerAuthError as error:
            raise Denied(str(error), backend_code=type(error).__name__) from error


class ZhmcDriver:
    """The machines of one console."""

    def __init__(self, session: Any, version: str, options: Options, installation: str, ongoing: Ongoing) -> None:
        self._client, self._options, self._installation = zhmcclient.Client(session), options, installation
        self._ongoing, self._threads = ongoing, trio.CapacityLimiter(options.concurrency)
        self.facts = Facts("zhmc", version, Can.COMPUTE, options.poll, options.concurrency, TIMEOUT)

    async def _read(self, work: Callable[[], T]) -> T:
        """Have something read in a thread. It leaves no outcome unknown."""
        try:
            return await trio.to_thread.run_sync(as_ours, work, abandon_on_cancel=True, limiter=self._threads)
        except Unknown as error:
            raise Transient(str(error), backend_code=error.backend_code) from error

    async def _change(self, uuid: str, work: Callable[[], T]) -> T:
        async def in_thread() -> T:
            return await trio.to_thread.run_sync(as_ours, work, limiter=self._threads)

        return await self._ongoing.run(uuid, in_thread)

    async def check(self) -> None:
        """Ask for the version of the API."""
        await self._read(self._client.query_api_version)

    # what there is

    def _cpcs(self) -> list[Any]:
        wanted = self._options.cpcs
        found = [each for each in self._client.cpcs.list(full_properties=True) if each.prop("dpm-enabled")]
        return [each for each in found if wanted is None or each.name in wanted]

    async def nodes(self) -> AsyncIterator[Page[Node]]:
        """The machines, with what all their partitions take."""
        yield Page(tuple(await self._read(lambda: [self._node(cpc) for cpc in self._cpcs()])))

    def _node(self, cpc: Any) -> Node:
        kind = "ifl" if self._options.processor == "ifl" else "general-purpose"
        guests = self._in(cpc)
        used = sum(guest.vcpus for guest in guests), sum(guest.memory_mb for guest in guests)
        vcpus, memory_mb = int(cpc.prop(f"processor-count-{kind}", 0)), int(cpc.prop("storage-customer", 0))
        state: Any = "up" if cpc.prop("status") in UP else "down"
        return Node(cpc.name, vcpus, memory_mb, 0, *used, state=state, hypervisor="PR/SM")

    async def guests(self) -> AsyncIterator[Page[Guest]]:
        """The partitions, a page for each machine."""
        for cpc in await self._read(self._cpcs):
            yield Page(tuple(await self._read(lambda cpc=cpc: self._in(cpc))))  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    def _in(self, cpc: Any) -> list[Guest]:
        try:
            return [self._seen(cpc, partition) for partition in cpc.partitions.list(full_properties=True)]
        except (zhmcclient.HTTPError, zhmcclient.CeasedExistence, zhmcclient.NotFound) as error:
            if isinstance(error, zhmcclient.HTTPError) and error.http_status != HTTPStatus.NOT_FOUND:
                raise
        found = []  # one of them went away meanwhile: ask for each
        for partition in cpc.partitions.list():
            with suppress(zhmcclient.CeasedExistence, zhmcclient.NotFound):
                partition.pull_full_properties()
                found.append(self._seen(cpc, partition))
        return found

    def _seen(self, cpc: Any, partition: Any) -> Guest:
        text, _, name = str(partition.prop("description", "")).partition(" ")
        mark = Mark.parse(text)
        if mark is not None and partition.name != _name(mark.uuid):
            mark = None  # a copy, made by others
        return Guest(
            key=partition.uri,
            mark=mark,
            name=name if mark is not None else partition.name,
            node=cpc.name,
            state=STATES.get(partition.prop("status"), "error"),
            vcpus=int(partition.prop(f"{self._options.processor}-processors", 0)),
            memory_mb=int(partition.prop("initial-memory", 0)),
        )

    async def get_guest(self, uuid: str) -> Guest:
        """Look a partition up by its name."""
        return await self._read(lambda: self._found(uuid)[0])

    def _found(self, uuid: str) -> tuple[Guest, Any]:
        """The guest and its partition. NotFound if this installation has none of that uuid; Transient if a listing, or
        what it named, is not there, which says nothing of others."""
        try:
            for cpc in self._cpcs():
                for partition in cpc.partitions.list(filter_args={"name": _name(uuid)}):
                    partition.pull_full_properties()
                    guest = self._seen(cpc, partition)
                    if guest.mark is not None and guest.mark.installation == self._installation:
                        return guest, partition
        except (zhmcclient.HTTPError, zhmcclient.CeasedExistence, zhmcclient.NotFound) as error:
            if isinstance(error, zhmcclient.HTTPError) and error.http_status != HTTPStatus.NOT_FOUND:
                raise
            raise Transient(f"the partitions cannot be listed now: {error}", backend_code="404") from error
        raise NotFound(f"there is no partition of guest {uuid}")

    # changes

    async def create_guest(self, want: GuestSpec) -> Guest:
        """Make a partition, and start it."""
        if want.volumes or want.networks or want.user_data or want.disk_gb:
            raise Permanent("partitions get volumes, networks and user data by their properties only")
        if want.image and want.image not in self._options.boot:
            raise NotFound(f"there is no image {want.image}", hint="set the option boot")
        return await self._change(want.mark.uuid, lambda: self._create(want))

    def _create(self, want: GuestSpec) -> Guest:
        step = self._options.memory_step_mb
        memory_mb = -(-want.memory_mb // step) * step
        try:
            guest, partition = self._found(want.mark.uuid)
        except NotFound:
            partition = self._make(want, memory_mb)
        else:
            if (guest.mark, guest.node, guest.vcpus, guest.memory_mb) != (want.mark, want.node, want.vcpus, memory_mb):
                raise Conflict(f"guest {want.mark.uuid} exists with another claim, node or size")
        if want.power == "on" and partition.get_property("status") in ("stopped", "terminated"):
            partition.start()
        return self._found(want.mark.uuid)[0]

    def _make(self, want: GuestSpec, memory_mb: int) -> Any:
        options = self._options
        cpc = next((each for each in self._cpcs() if each.name == want.node), None)
        if cpc is None:
            raise NotFound(f"there is no node {want.node}")
        properties = {
            "name": _name(want.mark.uuid),
            "description": f"{want.mark} {want.name}"[:LONGEST_DESCRIPTION],
            f"{options.processor}-processors": want.vcpus,
            "initial-memory": memory_mb,
            "maximum-memory": memory_mb,
            **options.partition,
            **(options.boot[want.image] if want.image else {}),
        }
        made = cpc.partitions.create(properties)
        made.pull_full_properties()
        return made

    async def set_power(self, uuid: str, want: Power) -> Guest:
        """Start or stop a partition."""
        return await self._change(uuid, lambda: self._set_power(uuid, want))

    def _set_power(self, uuid: str, want: Power) -> Guest:
        guest, partition = self._found(uuid)
        if want == "on" and guest.state == "off":
            partition.start()
        elif want == "off" and guest.state != "off":
            partition.stop()
        return self._found(uuid)[0]

    async def delete_guest(self, uuid: str, claim: int | None = None) -> None:
        """Stop a partition, and remove it."""
        await self._change(uuid, lambda: self._delete(uuid, claim))

    def _delete(self, uuid: str, claim: int | None) -> None:
        try:
            guest, partition = self._found(uuid)
            if guest.mark is not None and claim in (None, guest.mark.claim):
                if guest.state != "off":
                    partition.stop()
                    partition.pull_full_properties()
                    if self._seen(partition.manager.cpc, partition).mark != guest.mark:
                        raise Conflict(f"partition {_name(uuid)} was taken by others: it is {partition.name} now")
                partition.delete()
        except (NotFound, zhmcclient.NotFound, zhmcclient.CeasedExistence):
            return


def _name(uuid: str) -> str:
    """The name of a guest's partition: names are unique on a machine, at most 64 characters, and of few characters."""
    return f"hostler-{uuid}"


def as_ours(work: Callable[[], T]) -> T:
    """Do work; errors of the client are raised as those of the protocol."""
    try:
        return work()
    except zhmcclient.HTTPError as error:
        status, reason = error.http_status, error.reason
        known = STATUS.get((status, reason)) or STATUS.get((status, None)) or (Permanent if status < 500 else Unknown)
        raise known(str(error.message), backend_code=f"{status}.{reason}") from error
    except zhmcclient.Error as error:
        kind = next(kind for cause, kind in CLIENT if isinstance(error, cause))
        if kind is Unknown and NOT_SENT.search(str(error)):
            kind = Transient
        raise kind(str(error), backend_code=type(error).__name__) from error
    except (LookupError, TypeError, ValueError) as error:
        raise Unknown(f"the answer is malformed: {error!r}") from error


@asynccontextmanager
async def open_driver(options: Mapping[str, Any], context: DriverContext) -> AsyncIterator[ZhmcDriver]:
    """A session on a console."""
    settings = read_options(options, Options)
    tls_of(settings.ca_file, settings.insecure)  # the client reads the file by itself, with errors of its own
    verify = False if settings.insecure else settings.ca_file if settings.ca_file is not None else True

    def log_on() -> tuple[Any, str]:
        session = Session(
            settings.host,
            settings.username,
            settings.password,
            port=settings.port,
            verify_cert=verify,
            retry_timeout_config=NO_REPETITION,
        )
        session.renew()
        version = zhmcclient.Client(session).query_api_version()
        return session, str(version["hmc-version"])

    session, version = await trio.to_thread.run_sync(as_ours, log_on)
    try:
        async with open_ongoing(TIMEOUT) as ongoing:
            yield ZhmcDriver(session, version, settings, context.installation, ongoing)
    finally:
        with trio.CancelScope(shield=True), suppress(zhmcclient.Error):
            await trio.to_thread.run_sync(session.logoff)
