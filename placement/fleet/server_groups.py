"""Server groups of the fleet. Their members are the consumers placed with their uuid. ``decide.group_state`` applies
their policies."""

from __future__ import annotations

from functools import partial
from typing import Final

from ...ext.constants import AFFINITY, ANTI_AFFINITY, SOFT_AFFINITY, SOFT_ANTI_AFFINITY
from ..types.errors import DuplicateName, InvalidValue, UnknownName
from ..types.uuids import plain_uuid
from ..types.validation import shown, uuid_words, whole_number
from .change_log import ChangeLog

GROUP_POLICIES: Final = {
    "affinity": AFFINITY,
    "anti-affinity": ANTI_AFFINITY,
    "soft-affinity": SOFT_AFFINITY,
    "soft-anti-affinity": SOFT_ANTI_AFFINITY,
}


class ServerGroups:
    """Groups by uuid; the kernel counts their members by row. A removed group's id is reused once it has no members."""

    def __init__(self, change_log: ChangeLog) -> None:
        self._change_log = change_log
        self.ids: dict[str, int] = {}
        self.uuids: list[str] = []
        """By id; empty for a removed group."""
        self.removed: list[int] = []
        """Ids of removed groups, the oldest first."""

    def add(self, uuid: str, policy: str, max_server_per_host: int) -> None:
        """Add a group. InvalidValue, UnknownName or DuplicateName for bad input. O(1)."""
        uuid_words(uuid, "server_group.uuid")
        uuid = plain_uuid(uuid)
        if not isinstance(policy, str):
            raise InvalidValue(
                f"server_group.policy must be a string, got {shown(policy)}", field="server_group.policy"
            )
        if policy not in GROUP_POLICIES:
            raise UnknownName.among("server group policy", policy, GROUP_POLICIES, field="server_group.policy")
        whole_number(max_server_per_host, "server_group.max_server_per_host", least=1)
        if uuid in self.ids:
            raise DuplicateName(f"server group {uuid} exists", field="server_group.uuid")
        number, make = GROUP_POLICIES[policy], self._change_log.make
        kernel = self._change_log.kernel
        for place in range(len(self.removed) - 1, -1, -1):
            old = self.removed[place]
            if not kernel.group_rows(old):
                make(
                    partial(self._reuse, uuid, place, number, max_server_per_host),
                    partial(self._unuse, uuid, place, old, *kernel.group_policy(old)),
                )
                return
        make(partial(self._append, uuid, number, max_server_per_host), self._pop)

    def remove(self, uuid: str) -> None:
        """Remove a group; its members stay placed and belong to no group. UnknownName if there is none. O(1)."""
        index = self.id(uuid)
        self._change_log.make(partial(self._forget, index), partial(self._remember, index, self.uuids[index]))

    def restore(self, uuids: list[str], limits: list[tuple[int, int]], removed: list[int]) -> None:
        """Restore groups from a file, unrecorded; ValueError for inconsistent input. O(groups)."""
        for uuid, (policy, at_most) in zip(uuids, limits, strict=True):
            if uuid in self.ids:
                raise ValueError(f"server group {uuid} occurs twice")
            plain = plain_uuid(uuid)  # of an earlier release, which told the forms of a uuid apart
            self._append(uuid if plain in self.ids or plain in uuids else plain, policy, at_most)
        if sorted(removed) != [index for index, uuid in enumerate(uuids) if not uuid]:
            raise ValueError("the removed server groups are not those without a uuid")
        self.removed[:] = removed

    def id(self, uuid: str) -> int:
        """Id of a group by uuid; UnknownName if there is none. O(1)."""
        index = self.find(uuid) if isinstance(uuid, str) else None
        if index is None:
            hint = "add it first, or leave it out"
            raise UnknownName(f"no server group has the uuid {shown(uuid)}", field="server_group", hint=hint)
        return index

    def kept(self, uuid: str) -> str:
        """Uuid of a group in the form in which it is kept; UnknownName if there is none. O(1)."""
        return self.uuids[self.id(uuid)]

    def find(self, uuid: str) -> int | None:
        """Id of a group by uuid, None if there is none. O(1)."""
        index = self.ids.get(uuid)
        return self.ids.get(plain_uuid(uuid)) if index is None else index

    def _append(self, uuid: str, policy: int, at_most: int) -> None:
        index = self._change_log.kernel.add_group(policy, at_most)
        if uuid:
            self.ids[uuid] = index
        self.uuids.append(uuid)

    def _pop(self) -> None:
        self._change_log.kernel.drop_last_group()
        del self.ids[self.uuids.pop()]

    def _reuse(self, uuid: str, place: int, policy: int, at_most: int) -> None:
        index = self.removed.pop(place)
        self._change_log.kernel.set_group(index, policy, at_most)
        self.ids[uuid], self.uuids[index] = index, uuid

    def _unuse(self, uuid: str, place: int, index: int, policy: int, at_most: int) -> None:
        self._change_log.kernel.set_group(index, policy, at_most)
        del self.ids[uuid]
        self.uuids[index] = ""
        self.removed.insert(place, index)

    def _forget(self, index: int) -> None:
        del self.ids[self.uuids[index]]
        self.uuids[index] = ""
        self.removed.append(index)

    def _remember(self, index: int, uuid: str) -> None:
        self.removed.pop()
        self.ids[uuid], self.uuids[index] = index, uuid
