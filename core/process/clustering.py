"""Makes a service a member of a cluster, as the configuration says."""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from ...placement.types.errors import InvalidValue
from ..cluster.guardian import Guardian
from ..cluster.member import Member
from ..cluster.registration import Registration
from ..etcd.client import Etcd
from ..etcd.errors import EtcdError
from ..etcd.telling import OnceInAWhile
from ..failures import Failures
from ..journal.etcd_journal import EtcdJournal
from ..machine.machine import ServiceMachine
from ..rpc.tls import client_context, renewal
from ..service import Service
from ..tasks import Aside, in_thread
from .settings import Config, EtcdTable

log = logging.getLogger("hostler.cluster")

_Files = tuple[Path | None, Path | None, Path | None]
"""Authorities, certificate and key."""


def etcd_of(table: EtcdTable) -> tuple[Etcd, ssl.SSLContext | None]:
    """A client of the configured etcd, and its context for TLS. InvalidValue for a file that cannot be used."""
    tls: ssl.SSLContext | None = None
    if any(url.startswith("https:") for url in table.endpoints):
        tls = client_context(*_files_of(table))
    return Etcd(table.endpoints, user=table.user, password=password_of(table), tls=tls), tls


def guardian_of(table: EtcdTable) -> Guardian:
    """One that reaches the configured etcd."""
    return Guardian(
        table.endpoints,
        user=table.user,
        password_file=table.password_file,
        ca=table.ca,
        certificate=table.certificate,
        key=table.key,
    )


def password_of(table: EtcdTable) -> str:
    """The password of etcd's user, as the file has it now; empty without one. InvalidValue."""
    if table.password_file is None:
        return ""
    try:
        return Path(table.password_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{table.password_file} cannot be read: {error}"
        raise InvalidValue(problem, field="data.etcd.password_file") from error


def _files_of(table: EtcdTable) -> _Files:
    return _path(table.ca), _path(table.certificate), _path(table.key)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


class Clustered:
    """The part of a daemon that makes it a member: first ``register``, then a recovery, ``join`` and ``run``; at the
    end ``leave`` and ``resign``."""

    def __init__(self, config: Config, *, aside: Aside, committed: Callable[[float], None]) -> None:
        """Errors as ``EtcdJournal.in_folder``'s and ``etcd_of``'s."""
        table, folder, cluster = config.data.etcd, config.folder, config.cluster
        assert table is not None, "checked with the configuration"
        assert folder is not None, "checked with the configuration"
        tls: ssl.SSLContext | None = None
        self._contexts: list[tuple[ssl.SSLContext, _Files]] = []
        """Those for TLS, to members and to etcd, with their files."""
        if any(text.startswith("tls:") for text in (*cluster.advertise, *config.rpc.listen)):
            own = config.rpc.tls
            files = _path(cluster.ca), *((own.certificate, own.key) if own is not None else (None, None))
            tls = client_context(*files)
            self._contexts.append((tls, files))
        etcd, its_tls = etcd_of(table)
        if its_tls is not None:
            self._contexts.append((its_tls, _files_of(table)))
        self._table, self._etcd, self._options = table, etcd, cluster
        self._member: Member | None = None
        self.journal = EtcdJournal.in_folder(folder, etcd, table.prefix, aside=aside)
        self.journal.committed, self.journal.snapshot_bytes = committed, cluster.snapshot_bytes
        name = cluster.name or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64]
        self._registration = Registration(
            self.journal,
            name,
            cluster.advertise,
            cluster.advertise_placement.rstrip("/"),
            forget_seconds=cluster.forget_seconds,
            tls=tls,
        )
        self.journal.fetch = self._registration.fetch
        self._registration.look_at_files = self._take_up_changes
        self._stamps, self._warnings = self._stamped(), OnceInAWhile(log)

    async def read_again(self) -> Callable[[], None]:
        """Read etcd's password, and the files of certificates, as they are now; what is returned takes them into use
        for new connections. InvalidValue if one of them cannot be used."""
        stamps = await in_thread(self._stamped)
        password = await in_thread(partial(password_of, self._table))
        renewals = [await in_thread(partial(renewal, context, *files)) for context, files in self._contexts]

        def take() -> None:
            for renew in renewals:
                renew()
            self._etcd.renew(password)
            self._stamps = stamps

        return take

    def _stamped(self) -> list[tuple[int, ...]]:
        """What tells that a file has been changed or replaced since."""
        files = [*(file for _, files in self._contexts for file in files), _path(self._table.password_file)]
        return [_stamp(file) for file in files if file is not None]

    async def _take_up_changes(self) -> None:
        """Read the files of the password and the certificates again, if one has changed; those that cannot be used yet,
        as while they are being written, later."""
        if await in_thread(self._stamped) == self._stamps:
            return
        try:
            take = await self.read_again()
            take()
        except InvalidValue as error:
            self._warnings.warning("files have changed, and are not taken into use: %s", error)
            return
        log.info("etcd's password and the certificates were read again")

    def trouble(self) -> EtcdError | None:
        """Why etcd does not do what this member asks it for; None while it does."""
        return self.journal.trouble

    async def register(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the member's entry, for ever; started once it is there."""
        await self._registration.run(task_status=task_status)

    async def join(
        self, service: Service, machine: ServiceMachine, failures: Failures, leading: Callable[[], Awaitable[None]]
    ) -> Member:
        """The member, whose writer is paused now. ``leading`` runs while it leads."""
        writer = service.writer
        writer.observers.append(lambda _, order, __: service.not_before(order.now))
        guardian = guardian_of(self._table) if self._options.guardian else None
        self._member = member = Member(
            self._registration,
            writer,
            machine,
            self._options,
            failures=failures,
            leading=leading,
            guardian=guardian,
        )
        await writer.pause(member.refusal)
        return member

    def advertise(self, addresses: list[str], placement: str) -> None:
        """Have the entry name where the member listens, unless the configuration names other addresses."""
        if not self._options.advertise:
            remote = [text for text in addresses if not text.startswith("unix:")]
            self._registration.addresses = tuple(remote or addresses)
        if not self._options.advertise_placement:
            self._registration.placement = placement

    async def run(self) -> None:
        """Follow and lead, for ever."""
        assert self._member is not None
        await self._member.run()

    async def leave(self) -> None:
        """Hand over, if this member leads and another one is alive."""
        if self._member is not None:
            await self._member.leave()

    async def resign(self) -> None:
        """End the member's lease."""
        if self._member is not None:
            await self._member.resign()
