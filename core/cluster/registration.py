"""A member's entry in etcd, with which it asks that the blocks that it still needs be kept; and its copies of other
members' snapshots."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from ssl import SSLContext
from typing import Final

import trio

from ...placement.types.errors import HostlerError
from ..cluster_status import MemberLine, SnapshotList
from ..errors import DataDamaged, StorageFailed
from ..etcd.errors import EtcdError, EtcdLeaseGone
from ..etcd.telling import OnceInAWhile
from ..etcd.values import put
from ..journal.etcd_journal import EtcdJournal
from ..journal.etcd_keys import BLOCKS, MemberValue, decode, encode
from ..journal.snapshots import check_folder, sync
from ..machine.orders import RULES
from ..rpc.client import Client, open_client

REPORT_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 1.0
MEMBER_TOKEN: Final = "member:"
VERSION: Final = version("hostler")

log = logging.getLogger("hostler.cluster")


class Registration:
    """The entry of one member, kept up to date while ``run`` runs."""

    def __init__(
        self,
        journal: EtcdJournal,
        name: str,
        addresses: tuple[str, ...] = (),
        placement: str = "",
        *,
        forget_seconds: int,
        tls: SSLContext | None = None,
    ) -> None:
        self.journal, self.name, self.addresses, self.placement = journal, name, addresses, placement
        self._forget, self._tls = forget_seconds, tls
        self._lease = 0
        self._told: MemberValue | None = None
        self._warnings = OnceInAWhile(log)
        self.look_at_files: Callable[[], Awaitable[None]] | None = None
        """Takes up what has changed of the files by which etcd and other members are reached."""

    def value(self) -> MemberValue:
        """The entry as of now."""
        journal = self.journal
        return MemberValue(
            *(self.name, self.addresses, self.placement, VERSION, journal.newest_snapshot, journal.last),
            rules=RULES,
            reads=BLOCKS,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the entry, for ever; started once it is there. Waits for an etcd that is not."""
        what = "this member waits for etcd, and answers nothing before"
        while True:
            try:
                await self._tell()
                task_status.started()
                task_status, self.journal.trouble = trio.TASK_STATUS_IGNORED, None
                what = "this member's entry in etcd could not be refreshed"
            except EtcdLeaseGone:
                self._lease, self._told = 0, None
                continue
            except EtcdError as error:
                self.journal.trouble = error
                self._warnings.warning("%s: %s", what, error, about=error.code)
            await trio.sleep(REPORT_SECONDS)
            if self.look_at_files is not None:
                await self.look_at_files()

    async def _tell(self) -> None:
        etcd = self.journal.etcd
        if not self._lease:
            self._lease, _ = await etcd.grant(self._forget)
        else:
            await etcd.keep_alive(self._lease)  # first: an etcd that is full takes no value, but keeps the entry
        value = self.value()
        if value != self._told:
            await etcd.transaction((), [put(self.journal.keys.members + self.name, encode(value), self._lease)])
            self._told = value

    async def others(self) -> list[MemberValue]:
        """The entries of all other members. EtcdError."""
        found = await self.journal.etcd.read_all(self.journal.keys.members)
        members = [decode(item.value, MemberValue, item.key) for item in found]
        return [each for each in members if each.name != self.name]

    async def lines(self, leader: str, end: int) -> list[MemberLine]:
        """All members, by name, where ``leader`` leads and the journal's last command is ``end``. EtcdError."""
        keys = self.journal.keys
        known = {each.name: each for each in [*await self.others(), self.value()]}
        alive = {item.key.removeprefix(keys.alive) for item in await self.journal.etcd.read_all(keys.alive)}
        return [
            MemberLine(
                name=name,
                role="leader" if name == leader else "follower" if name in alive else "gone",
                alive=name in alive,
                addresses=each.addresses,
                version=each.version,
                sequence=each.sequence,
                behind=max(end - each.sequence, 0),
                snapshot=each.snapshot,
            )
            for name, each in sorted(known.items())
        ]

    # snapshots of others

    async def fetch(self, sequence: int) -> int:
        """Copy a snapshot of at least command ``sequence`` from another member into this one's folder; its number.
        Tries until one has it."""
        told = False
        while True:
            try:
                members = sorted(await self.others(), key=lambda each: -each.snapshot)
            except EtcdError:
                members = []
            for member in members:
                for address in member.addresses:
                    try:
                        return await self._fetch_from(address, sequence)
                    except (HostlerError, OSError) as error:
                        log.warning("no snapshot from %s at %s: %s", member.name, address, error)
            if not told:
                told = True
                log.warning("waiting for a member with a snapshot of command %d or later", sequence)
            await trio.sleep(RETRY_SECONDS)

    async def _fetch_from(self, address: str, least: int) -> int:
        journal = self.journal
        token = MEMBER_TOKEN + journal.cluster.secret
        async with open_client(address, token=token, tls=self._tls) as client:
            found: SnapshotList = await client.call("snapshot_files", within=120)
            if found.sequence < least:
                raise StorageFailed(f"its newest snapshot is {found.sequence}", field="data")
            target = journal.snapshots.path(found.sequence)
            new = target.with_suffix(f".tmp-{os.getpid()}")
            log.info("fetching snapshot %d from %s: %d bytes", found.sequence, address, sum(found.files.values()))
            try:
                await trio.to_thread.run_sync(partial(_emptied, new))
                for name, size in found.files.items():
                    if Path(name).name != name:
                        raise DataDamaged(f"{name!r} is no name of a file", field="data")
                    await self._fetch_file(client, found.sequence, name, size, new / name)
                await trio.to_thread.run_sync(partial(_completed, new, target, found.sequence))
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(partial(shutil.rmtree, new, ignore_errors=True))
        return found.sequence

    async def _fetch_file(self, client: Client, sequence: int, name: str, size: int, path: Path) -> None:
        async with await trio.open_file(path, "wb") as file:
            offset = 0
            while offset < size:
                params = {"sequence": sequence, "file": name, "offset": offset}
                part: bytes = await client.call("snapshot_part", params)
                if not part:
                    raise DataDamaged(f"{name} ends at {offset} of {size} bytes", field="data")
                await file.write(part)
                offset += len(part)


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)


def _completed(new: Path, target: Path, sequence: int) -> None:
    """Check a copy, have it reach the disk, and give it its name. DataDamaged, StorageFailed."""
    check_folder(new, sequence)
    try:
        for path in new.iterdir():
            path.chmod(0o600)
            sync(path)
        sync(new)
        if not target.exists():
            new.rename(target)
        sync(target.parent)
    except OSError as error:
        raise StorageFailed(f"cannot keep the copy of snapshot {sequence}: {error}", field="data") from error
