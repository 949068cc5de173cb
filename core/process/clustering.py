"""Makes a service a member of a cluster, as the configuration says."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from ...placement.types.errors import InvalidValue
from ..cluster.member import Member
from ..cluster.registration import Registration
from ..etcd.client import Etcd
from ..failures import Failures
from ..journal.etcd_journal import EtcdJournal
from ..machine.machine import ServiceMachine
from ..rpc.tls import client_context
from ..service import Service
from ..tasks import Aside
from .settings import Config, EtcdTable


def etcd_of(table: EtcdTable) -> Etcd:
    """A client of the configured etcd. InvalidValue for a file that cannot be used."""
    password = ""
    if table.password_file is not None:
        try:
            password = Path(table.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = f"{table.password_file} cannot be read: {error}"
            raise InvalidValue(problem, field="data.etcd.password_file") from error
    tls: ssl.SSLContext | None = None
    if any(url.startswith("https:") for url in table.endpoints):
        tls = client_context(table.ca, table.certificate, table.key)
    return Etcd(table.endpoints, user=table.user, password=password, tls=tls)


class Clustered:
    """The part of a daemon that makes it a member: first ``register``, then a recovery, ``join`` and ``run``; at the
    end ``leave`` and ``resign``."""

    def __init__(self, config: Config, *, aside: Aside, committed: Callable[[float], None]) -> None:
        """Errors as ``EtcdJournal.in_folder``'s and ``etcd_of``'s."""
        table, folder, cluster, tls = config.data.etcd, config.folder, config.cluster, None
        assert table is not None, "checked with the configuration"
        assert folder is not None, "checked with the configuration"
        if any(text.startswith("tls:") for text in (*cluster.advertise, *config.rpc.listen)):
            own = config.rpc.tls
            tls = client_context(cluster.ca, own.certificate if own else None, own.key if own else None)
        self._options = cluster
        self._member: Member | None = None
        self.journal = EtcdJournal.in_folder(folder, etcd_of(table), table.prefix, aside=aside)
        self.journal.committed, self.journal.snapshot_bytes = committed, cluster.snapshot_bytes
        name = cluster.name or re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64]
        self._registration = Registration(
            self.journal,
            name,
            cluster.advertise,
            cluster.advertise_placement,
            forget_seconds=cluster.forget_seconds,
            tls=tls,
        )
        self.journal.fetch = self._registration.fetch

    async def register(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the member's entry, for ever; started once it is there."""
        await self._registration.run(task_status=task_status)

    async def join(
        self, service: Service, machine: ServiceMachine, failures: Failures, leading: Callable[[], Awaitable[None]]
    ) -> Member:
        """The member, whose writer is paused now. ``leading`` runs while it leads."""
        writer = service.writer
        writer.observers.append(lambda _, order, __: service.not_before(order.now))
        self._member = member = Member(
            self._registration, writer, machine, self._options, failures=failures, leading=leading
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
