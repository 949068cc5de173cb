"""One member of a cluster: follows the journal in etcd, is elected when no member leads, leads while its lease holds,
and hands over.

A leader is elected by creating one key, under its lease, in a transaction that also holds the journal to the end that
the candidate has carried out: the member that is elected has all that was acknowledged.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from ...placement.types.errors import HostlerError, InvalidValue, UnknownName
from ..cluster_status import MemberLine, SnapshotList
from ..errors import DataDamaged, DeadlineExceeded, NotLeader, StateUnknown, StorageFailed, TooStale
from ..etcd.errors import EtcdError, EtcdUnavailable
from ..etcd.values import created_at, delete, get, modified_at, put
from ..failures import Failures
from ..journal.etcd_journal import Tail
from ..journal.etcd_keys import BLOCKS, DigestValue, MemberValue, decode, encode
from ..journal.journal import Record, unpack
from ..journal.leadership import TICK, Leadership, since_boot
from ..journal.store import Block
from ..machine.machine import ServiceMachine
from ..machine.orders import Order
from ..writer.writer import Writer
from .digests import Digests, differences, note_difference
from .guardian import Guardian
from .lease import Lease
from .options import ClusterOptions
from .registration import MEMBER_TOKEN, Registration
from .snapshot_files import snapshot_files, snapshot_part

POLL_SECONDS: Final = 0.1
"""Between two looks at the journal's end, so the age of what a follower answers from."""
MARGIN: Final = 0.1
"""Part of a lease before whose end its leader stops."""
HAND_OVER_SECONDS: Final = 2.0
"""For a member that is to lead to take up the journal; then all may."""
DROP_SECONDS: Final = 60
"""Between two times at which blocks are dropped where etcd is compacted by others."""
FINISH_SECONDS: Final = 10.0
"""For commands under way to be carried out before a hand-over; then there is none."""
RECOVERABLE_SECONDS: Final = 60.0
"""Between two times at which a member makes sure that it could recover by what it has and what is in etcd."""
AGREE_SECONDS: Final = 5.0
"""Between two times at which a leader looks up what the other members can read."""

log = logging.getLogger("hostler.cluster")


class Member:
    """Runs the roles of one member. Of its writer, it is the only one that pauses, resumes and follows."""

    def __init__(
        self,
        registration: Registration,
        writer: Writer[Order, Any],
        machine: ServiceMachine,
        options: ClusterOptions,
        *,
        failures: Failures,
        leading: Callable[[], Awaitable[None]],
        guardian: Guardian | None = None,
    ) -> None:
        """``leading`` runs while this member leads, and is cancelled at its end. ``guardian``: ends its lease when this
        process dies."""
        self._registration, self._journal = registration, registration.journal
        self._etcd, self._keys = self._journal.etcd, self._journal.keys
        self._writer, self._options = writer, options
        self._failures, self._leading = failures, leading
        self.name = registration.name
        self.role = "follower"
        self.term = self.elections = 0
        """``elections``: how often this member was elected."""
        self.takeover_seconds = 0.0
        """From the last time that this member found no leader to its leading."""
        self.leader: MemberValue | None = None
        self.journal_end = self._journal.last
        """Number of the last command in etcd, as far as known."""
        self._fresh_at: float | None = None
        """When it knew all that was in etcd."""
        self._yielded_at: float | None = None
        """When this leader asked etcd to have another member lead: from then on that one may."""
        self._leadership: Leadership | None = None
        alive = self._keys.alive + self.name
        self._lease = Lease(self._etcd, alive, self.name, options.lease_seconds)
        self._guardian = guardian
        if guardian is not None:
            self._lease.guard = guardian.guard
        self._vacant_since: float | None = None
        self._yielding_to, self._yielding_since = "", 0.0
        self._woken, self._leader_changed, self._leaving = trio.Event(), trio.Event(), False
        self._handing_over = trio.Lock()
        self._digests = Digests(machine, writer, failures, options.digest_every)
        self.differences = differences(self._journal.folder)
        """How often this member's state differed from the leader's, starts before this one included."""

    # what others ask

    @property
    def leader_addresses(self) -> tuple[str, ...]:
        return () if self.leader is None else self.leader.addresses

    @property
    def failovers(self) -> int:
        """How often an endpoint of etcd has failed and the next one was asked."""
        return self._etcd.failovers

    @property
    def compared(self) -> int:
        """How many digests of the leader's state were compared with this member's."""
        return self._digests.compared

    @property
    def behind(self) -> int:
        """Commands in etcd that this member has not carried out yet, as far as it knows."""
        return max(self.journal_end - self._journal.last, 0)

    @property
    def age(self) -> float | None:
        """In seconds, of what this member knows: 0 while it leads and no other member can; None: unknown."""
        if self._leadership is not None and self._leadership.left > 0 and self._yielded_at is None:
            return 0.0
        known = [at for at in (self._fresh_at, self._yielded_at) if at is not None]
        return since_boot() - max(known) if known else None

    def check_age(self, stale_ms: float) -> None:
        age = self.age
        if age is None or 1000 * age > stale_ms:
            behind = "of unknown age" if age is None else f"{1000 * age:.0f} ms old"
            error = TooStale(f"what this member knows is {behind}, at most {stale_ms:g} ms are accepted")
            error.behind_ms, error.leader = -1.0 if age is None else 1000 * age, self.leader_addresses
            raise error

    def is_member(self, token: str) -> bool:
        secret = self._journal.cluster.secret
        return bool(secret) and hmac.compare_digest(token.encode(), (MEMBER_TOKEN + secret).encode())

    def refusal(self) -> NotLeader:
        """The error for commands while this member does not lead."""
        if self.leader is not None and self.leader.name != self.name:
            age, leader = self.age, self.leader
            silent = age if age is not None and age > 2 * self._lease.seconds else None
            return NotLeader.naming(leader.name, leader.addresses, leader.placement, silent=silent)
        return NotLeader("no member leads at the moment", hint="ask again in a moment")

    async def members(self) -> list[MemberLine]:
        leads = "" if self.leader is None else self.leader.name
        return await self._registration.lines(leads, max(self.journal_end, self._journal.last))

    async def hand_over(self, to: str | None) -> str:
        """Have ``to`` lead, or the member that is least behind; its name. Where that fails, or is cancelled, before
        etcd was asked for it, this member goes on leading."""
        async with self._handing_over:
            leadership, successor = self._leadership, await self._successor(to)
            if leadership is None or leadership is not self._leadership:
                raise self.refusal()
            if successor.name == self.name:
                return self.name
            log.info("handing over to %s", successor.name)
            self.leader = successor
            try:
                with trio.move_on_after(FINISH_SECONDS) as limit:
                    await self._writer.pause(self.refusal, finish=True)
                if limit.cancelled_caught:
                    problem = f"commands under way were not carried out within {FINISH_SECONDS:g} s"
                    raise DeadlineExceeded(problem, field="to", hint="this member goes on leading")
                if leadership is not self._leadership:  # lost meanwhile, and perhaps another one won since
                    raise self.refusal()
                with trio.CancelScope(shield=True):  # else it would not be known who leads
                    await self._yield_to(successor.name, leadership)
            except BaseException:
                if leadership is self._leadership and leadership.left > 0:
                    self._yielded_at = None
                    self.leader = self._registration.value()
                    self._writer.resume()
                raise
            return successor.name

    async def _successor(self, to: str | None) -> MemberValue:
        """The member that is to lead. NotLeader, StorageFailed, UnknownName, InvalidValue if none can."""
        if self._leadership is None:
            raise self.refusal()
        if to == self.name:
            return self._registration.value()
        if self._writer.broken is not None:
            raise StorageFailed(f"nothing can be handed over now: {self._writer.broken.args[0]}", field="data.etcd")
        others = [each for each in await self.members() if each.alive and each.name != self.name]
        if to is not None and to not in {each.name for each in others}:
            raise UnknownName.among("member", to, [each.name for each in others])
        if not others:
            raise InvalidValue("no other member is alive", field="to", hint="see hostler members")
        target = to or min(others, key=lambda each: (each.behind, each.name)).name
        for each in await self._registration.others():
            if each.name == target:
                return each
        raise UnknownName(f"member {target} is gone", field="to", hint="see hostler members")

    async def _yield_to(self, target: str, leadership: Leadership) -> None:
        """Give up the leader's key for a member. EtcdError, with nothing done, while ``leadership`` is not lost."""
        keys, self._yielded_at = self._keys, since_boot()
        try:
            answer = await self._etcd.transaction(
                [created_at(keys.leader, leadership.term)],
                [delete(keys.leader), put(keys.handover, target.encode(), leadership.lease)],
            )
        except EtcdUnavailable as error:
            leadership.lose(f"the outcome of handing over to {target} is not known: {error}")
            raise
        if not answer.succeeded:
            leadership.lose("another member was elected")
            raise NotLeader("this member did not lead any more", hint="ask again in a moment")
        self._yielding_to, self._yielding_since = target, since_boot()
        leadership.lose(f"handed over to {target}")

    async def leave(self) -> None:
        """Before the process stops: hand over, if this member leads and another one is alive, and stand for election no
        more; the others take it for gone then, and hand nothing over to it."""
        self._leaving = self._lease.leaving = True
        if self._leadership is not None:
            changed = self._leader_changed
            try:
                await self.hand_over(None)
            except HostlerError as error:
                log.info("no hand-over: %s", error)
                return
            with trio.move_on_after(HAND_OVER_SECONDS):
                await changed.wait()
        await self.resign()

    async def resign(self) -> None:
        """At the very end: end this member's lease, so that the others need not wait for that."""
        self._leaving = self._lease.leaving = True
        if self._leadership is not None:
            self._leadership.lose("the service stops")  # before another member can lead
        if self._guardian is not None:
            await self._guardian.dismiss()
        if self._lease.number:
            with trio.move_on_after(1), suppress(EtcdError):
                await self._etcd.revoke(self._lease.number)

    async def snapshot_files(self) -> SnapshotList:
        with suppress(EtcdError):
            await self._keep_recoverable()
        return await snapshot_files(self._journal.snapshots, self._writer.snapshot)

    async def snapshot_part(self, sequence: int, file: str, offset: int) -> bytes:
        return await snapshot_part(self._journal.snapshots, sequence, file, offset)

    # the task

    async def run(self) -> None:
        """Follow and lead, for ever. The writer must be paused. StateUnknown where this member's state may be another
        one than the leader's: the process is to end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lease.keep)
            if self._guardian is not None:
                nursery.start_soon(self._failures.keep_running, "guardian", self._guardian.run)
            nursery.start_soon(self._failures.keep_running, "cluster", self._stay_recoverable)
            while True:
                await self._lead(*await self._follow())

    async def _stay_recoverable(self) -> None:
        """Now and then see to a snapshot behind which all blocks are there: they are dropped where this member was
        forgotten for some time, and another one's may be gone when it is needed."""
        while True:
            await trio.sleep(RECOVERABLE_SECONDS)
            with suppress(EtcdError):
                await self._keep_recoverable()

    async def _keep_recoverable(self) -> None:
        if not await self._journal.continues(newest := self._journal.newest_snapshot):
            log.warning("blocks behind snapshot %d of this member are gone: it takes another one", newest)
            await self._writer.snapshot()

    # following

    async def _follow(self) -> tuple[Tail, Leadership]:
        """Follow the journal until this member is elected: the end that it was elected with, and its term."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                began = since_boot()
                woken = self._woken
                try:
                    tail = await self._journal.tail()
                except EtcdError as error:
                    log.debug("the journal could not be read: %s", error)
                    await trio.sleep(POLL_SECONDS)
                    continue
                except DataDamaged as error:
                    raise self._astray(str(error)) from error
                self._note(tail)
                if tail.blocks:
                    await self._carry_out(tail.blocks, nursery)
                if self._journal.last == tail.head.last:
                    self._fresh_at = began
                    if self._digests.is_wanted():
                        await nursery.start(self._digests.make, 0)
                    leadership = await self._elected(tail._replace(blocks=[]))
                    if leadership is not None:
                        nursery.cancel_scope.cancel()
                        return tail, leadership
                    with trio.move_on_after(POLL_SECONDS):
                        await woken.wait()
                elif not tail.blocks:
                    raise self._astray(f"etcd has no commands {self._journal.last + 1} to {tail.head.last}")

    async def _watch(self) -> None:
        """Wake the follower when a key that concerns it changes. It looks by itself as well, only later."""
        while True:
            with suppress(EtcdError):
                async with self._etcd.watch(self._keys.control) as changes:
                    async for _ in changes:
                        self._woken.set()
                        self._woken = trio.Event()
            await trio.sleep(POLL_SECONDS)

    def _note(self, tail: Tail) -> None:
        """Take up what the keys say."""
        self.journal_end = tail.head.last
        leader = tail.control.get(self._keys.leader)
        if leader is None:
            if self._vacant_since is None:
                self._vacant_since = since_boot()
            self.leader = None
            return
        self._vacant_since, self._yielding_to = None, ""
        if leader.created != self.term:
            self._leader_changed.set()
            self._leader_changed = trio.Event()
        self.leader, self.term = decode(leader.value, MemberValue, leader.key), leader.created
        digest = tail.control.get(self._keys.digest)
        if digest is not None:
            self._digests.note(decode(digest.value, DigestValue, digest.key))
            self._compare()

    async def _carry_out(self, blocks: Sequence[Block], nursery: trio.Nursery) -> None:
        """Carry out blocks of the leader; at those where digests are compared, have one made."""
        records: list[Record] = []
        taken: list[Block] = []
        for block in blocks:
            records += unpack(block)
            taken.append(block)
            level = self._digests.level(block.first, block.first + block.records - 1)
            if level is not None or block is blocks[-1]:
                await self._writer.follow(records)
                self._journal.took(taken)
                records, taken = [], []
                if level is not None:
                    await nursery.start(self._digests.make, level)

    async def _elected(self, tail: Tail) -> Leadership | None:
        """The term, if this member leads from now on; None: another one does, or none can."""
        leader, keys = tail.control.get(self._keys.leader), self._keys
        if not self._may_stand(tail):
            return None
        lease = self._lease.number  # another one may be granted while etcd is asked
        until = self._lease.until(lease)
        if leader is not None:  # perhaps its own key of before, as long as the lease has held
            return Leadership(leader.created, lease, until) if leader.lease == lease else None
        value = encode(self._registration.value())
        try:
            answer = await self._etcd.transaction(
                [created_at(keys.leader, 0), modified_at(keys.head, tail.head_modified)],
                [put(keys.leader, value, lease), delete(keys.handover)],
                [get(keys.leader)],
            )
        except EtcdError as error:
            log.warning("this member could not stand for election: %s", error)
            return None
        return Leadership(answer.revision, lease, until) if answer.succeeded else None

    def _may_stand(self, tail: Tail) -> bool:
        if self._leaving or self._lease.left <= MARGIN * self._lease.seconds:
            return False
        named = tail.control.get(self._keys.handover)
        if named is None:
            return True
        to = named.value.decode(errors="replace")
        if to == self.name:
            return True
        if to != self._yielding_to:
            self._yielding_to, self._yielding_since = to, since_boot()
        return since_boot() - self._yielding_since > HAND_OVER_SECONDS

    # leading

    async def _lead(self, tail: Tail, leadership: Leadership) -> None:
        self._leadership = self._lease.leadership = leadership
        leadership.extend(self._lease.until(leadership.lease))
        self._journal.lead(leadership, tail)
        self.term, self.role, self.leader = leadership.term, "leader", self._registration.value()
        self.elections += 1
        if self._vacant_since is not None:
            self.takeover_seconds, self._vacant_since = since_boot() - self._vacant_since, None
        self._writer.resume()
        log.info("this member leads: term %d, after command %d", leadership.term, self._journal.last)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._leading)
                nursery.start_soon(self._failures.keep_running, "cluster", partial(self._keep_bounded, leadership))
                nursery.start_soon(self._digests.lead, partial(self._publish, leadership))
                nursery.start_soon(self._failures.keep_running, "cluster", self._agree_on_blocks)
                await self._until_over(leadership)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                leadership.lose("the service stops")
                # The lease was there when it was last refreshed, and so was the leader's key unless it was given up.
                held = leadership.until - self._lease.seconds
                held = held if self._yielded_at is None else min(held, self._yielded_at)
                self._fresh_at = held if self._fresh_at is None else max(held, self._fresh_at)
                self._yielded_at = None
                self.role, self._leadership, self._lease.leadership = "follower", None, None
                if self.leader is not None and self.leader.name == self.name:
                    self.leader = None
                if leadership.given_up:
                    self._lease.sit_out()
                await self._writer.pause(self.refusal)
                self._journal.stop_leading()
        log.warning("this member leads no more: %s", leadership.reason)

    async def _until_over(self, leadership: Leadership) -> None:
        while not leadership.lost.is_set():
            left = leadership.left - MARGIN * self._lease.seconds
            if left < TICK:
                leadership.lose("etcd could not be reached before the lease's end")
                return
            with trio.move_on_after(left):
                await leadership.lost.wait()

    async def _agree_on_blocks(self) -> None:
        """While leading: write blocks in the newest form that all members read, those too that are away."""
        while True:
            with suppress(EtcdError):
                others = await self._registration.others()
                self._journal.compress = all(each.reads >= BLOCKS for each in others)
                self._digests.needed = bool(others)
            await trio.sleep(AGREE_SECONDS)

    async def _keep_bounded(self, leadership: Leadership) -> None:
        """Drop the blocks behind which all members have snapshots, and compact etcd."""
        seconds, dropped = self._options.compact_seconds, 0
        while not leadership.lost.is_set():
            await trio.sleep(seconds or DROP_SECONDS)
            members = [self._registration.value(), *await self._registration.others()]
            least = min(member.snapshot for member in members)
            if least > dropped:
                await self._journal.drop(least)
                dropped = least
            if seconds:
                await self._etcd.compact((await self._etcd.transaction((), [get(self._keys.head)])).revision)

    # digests

    async def _publish(self, leadership: Leadership, digest: DigestValue) -> bool:
        """Have the others compare a digest. False while etcd does not take it."""
        holds = [created_at(self._keys.leader, leadership.term)]
        with suppress(EtcdError):
            return (await self._etcd.transaction(holds, [put(self._keys.digest, encode(digest))])).succeeded
        return False

    def _compare(self) -> None:
        """StateUnknown if the leader's state was another one than this member's behind the same command."""
        sequence = self._digests.difference()
        if sequence is not None:
            self.differences += 1
            note_difference(self._journal.folder, sequence)
            for each in self._journal.snapshots.known():
                log.critical("snapshot %d is now %s", each, self._journal.snapshots.set_aside(each))
            raise self._astray(f"its state behind command {sequence} differs from the leader's")

    def _astray(self, why: str) -> StateUnknown:
        text = f"this member cannot follow: {why}"
        log.critical("%s; the process ends, and the next start catches up by a snapshot and the journal", text)
        return StateUnknown(text)
