"""Server groups that the fleet keeps: their members are the consumers placed with their uuid. server_groups.py judges
by them."""

from __future__ import annotations

from functools import partial
from typing import Final

from ..ext.constants import AFFINITY, ANTI_AFFINITY, SOFT_AFFINITY, SOFT_ANTI_AFFINITY
from .checks import shown, uuid_words, whole_number
from .errors import DuplicateName, InvalidValue, UnknownName
from .ledger import Ledger

GROUP_POLICIES: Final = {
    "affinity": AFFINITY,
    "anti-affinity": ANTI_AFFINITY,
    "soft-affinity": SOFT_AFFINITY,
    "soft-anti-affinity": SOFT_ANTI_AFFINITY,
}


class KeptGroups:
    """Groups by uuid; the kernel counts their members by row."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.ids: dict[str, int] = {}
        self.uuids: list[str] = []

    def add(self, uuid: str, policy: str, max_server_per_host: int) -> None:
        """Keep a group. O(1)."""
        uuid_words(uuid, "server_group.uuid")
        if not isinstance(policy, str):
            raise InvalidValue(f"server_group.policy must be a text, got {shown(policy)}", field="server_group.policy")
        if policy not in GROUP_POLICIES:
            raise UnknownName.among("server group policy", policy, GROUP_POLICIES, field="server_group.policy")
        whole_number(max_server_per_host, "server_group.max_server_per_host", least=1)
        if uuid in self.ids:
            raise DuplicateName(f"server group {uuid} exists", field="server_group.uuid")
        self._ledger.make(partial(self._append, uuid, GROUP_POLICIES[policy], max_server_per_host), self._pop)

    def restore(self, uuid: str, policy: int, at_most: int) -> None:
        """Keep a group again as a file has it, unrecorded; ValueError for one that cannot be. O(1)."""
        if uuid in self.ids:
            raise ValueError(f"server group {uuid} is there twice")
        self._append(uuid, policy, at_most)

    def id(self, uuid: str) -> int:
        """Id of a group; UnknownName if none is kept with this uuid. O(1)."""
        index = self.ids.get(uuid) if isinstance(uuid, str) else None
        if index is None:
            raise UnknownName(f"no server group is kept with the uuid {shown(uuid)}", field="server_group")
        return index

    def _append(self, uuid: str, policy: int, at_most: int) -> None:
        self.ids[uuid] = self._ledger.kernel.add_group(policy, at_most)
        self.uuids.append(uuid)

    def _pop(self) -> None:
        self._ledger.kernel.drop_last_group()
        del self.ids[self.uuids.pop()]
