"""Host aggregates by id: names and metadata. Membership is stored in the host classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

import numpy as np

from ..types.errors import InUse, InvalidValue, UnknownName
from ..types.host import Aggregate
from ..types.uuids import plain_uuid
from ..types.validation import shown, uuid_words
from .change_log import ChangeLog

NONE: Final = Aggregate(uuid="00000000-0000-0000-0000-000000000000", name="")
"""Placeholder for an aggregate that was removed or exists only in another version: host classes of that version, or
without rows, refer to its id. No rule reads it."""


class Aggregates:
    """The aggregates of a fleet. Versions may differ in them: an id is valid only in the version it came from."""

    def __init__(self, change_log: ChangeLog) -> None:
        self._change_log = change_log
        self.values: list[Aggregate] = []
        self._ids: dict[str, int] = {}
        self._given = 0

    def __len__(self) -> int:
        """Number of ids that were given in this version, those of removed aggregates included. O(1)."""
        return self._given

    def ids(self, aggregates: Iterable[Aggregate]) -> tuple[int, ...]:
        """Ids of aggregates; new ones are added. InvalidValue, with nothing changed, if one is malformed or differs
        from the known aggregate with its uuid. O(aggregates)."""
        wanted = list(aggregates)
        new: dict[str, Aggregate] = {}
        unused: list[int] = []
        for aggregate in wanted:
            known = self._known(aggregate)
            known = new.get(aggregate.uuid, known)
            if known is not None and known is not aggregate and known != aggregate and self._is_unused(known):
                unused.append(self._ids[known.uuid])
                known = None
            if known is None:
                known = new.setdefault(_checked(aggregate).uuid, aggregate)
            if known is not aggregate and known != aggregate:
                raise InvalidValue(
                    f"aggregate {aggregate.uuid} is known with another name or metadata",
                    field="aggregate",
                    hint="use update_aggregate",
                )
        for index in unused:
            self._forget(index)
        for aggregate in new.values():
            self._change_log.make(partial(self._append, aggregate), self._pop)
        return tuple(self._ids[aggregate.uuid] for aggregate in wanted)

    def find(self, uuid: str) -> int | None:
        """Id of the aggregate with this uuid, or None. O(1)."""
        return self._ids.get(uuid)

    def of(self, uuid: str) -> Aggregate:
        """The aggregate with this uuid, in any of its forms; UnknownName otherwise. O(1)."""
        index = self._ids.get(plain_uuid(uuid)) if isinstance(uuid, str) else None
        if index is None:
            raise UnknownName(f"no aggregate has the uuid {shown(uuid)}", field="aggregate")
        return self.values[index]

    def update(self, aggregate: Aggregate) -> None:
        """Replace an aggregate's name and metadata. O(1), but every compiled signature is rebuilt on next use."""
        before = self.of(_checked(aggregate).uuid)
        self._change_log.make(partial(self._put, aggregate), partial(self._put, before))

    def remove(self, uuid: str) -> None:
        """Remove an aggregate. UnknownName if there is none; InUse if a provider is in it, as Nova refuses to delete an
        aggregate that has hosts. O(rows + classes), and every compiled signature is rebuilt on next use."""
        aggregate = self.of(uuid)
        index = self._ids[aggregate.uuid]
        if members := self._members(index):
            name = aggregate.name or aggregate.uuid
            raise InUse(
                f"aggregate {shown(name)} has {members} hosts or other providers",
                field="aggregate",
                hint="take them out first",
            )
        self._forget(index)

    def _members(self, index: int) -> int:
        """Number of rows in an aggregate. O(rows + classes)."""
        log = self._change_log
        classes = [number for number, value in enumerate(log.classes.values) if index in value.aggregates]
        return int(np.isin(log.store.row["class_of"][: log.rows], classes).sum()) if classes else 0

    def _is_unused(self, aggregate: Aggregate) -> bool:
        """Whether a known aggregate is no more than a uuid that no provider is in: whether it has been given back yet
        makes no difference."""
        index = self._ids.get(aggregate.uuid)
        return index is not None and is_bare(aggregate) and not self._members(index)

    def _forget(self, index: int) -> None:
        aggregate = self.values[index]
        self._change_log.make(partial(self._drop, aggregate.uuid), partial(self._restore, index, aggregate))

    def _known(self, aggregate: object) -> Aggregate | None:
        if not isinstance(aggregate, Aggregate) or not isinstance(aggregate.uuid, str):
            raise InvalidValue(f"aggregates must be Aggregates with a uuid, got {shown(aggregate)}", field="aggregate")
        index = self._ids.get(aggregate.uuid)
        return None if index is None else self.values[index]

    def keep(self, kept: Iterable[int]) -> None:
        """Forget all aggregates but those with the ids ``kept``, which become 0, 1, 2, ... in their order.
        O(aggregates)."""
        self.values[:] = [self.values[index] for index in kept]
        self._ids = {value.uuid: index for index, value in enumerate(self.values)}
        self._given = len(self.values)

    def truncate(self, count: int) -> None:
        """Drop placeholders from id ``count`` on, once no host class refers to them."""
        del self.values[max(count, self._given) :]

    def _append(self, aggregate: Aggregate) -> None:
        index = self._ids[aggregate.uuid] = self._given
        self.values[index : index + 1] = [aggregate]
        self._given += 1
        self._change_log.static_epoch += 1

    def _pop(self) -> None:
        self._given -= 1
        del self._ids[self.values[self._given].uuid]
        self.values[self._given] = NONE
        self._change_log.static_epoch += 1

    def _drop(self, uuid: str) -> None:
        self.values[self._ids.pop(uuid)] = NONE
        self._change_log.static_epoch += 1

    def _restore(self, index: int, aggregate: Aggregate) -> None:
        self._ids[aggregate.uuid] = index
        self.values[index] = aggregate
        self._change_log.static_epoch += 1

    def _put(self, aggregate: Aggregate) -> None:
        self.values[self._ids[aggregate.uuid]] = aggregate
        self._change_log.static_epoch += 1


def is_bare(aggregate: Aggregate) -> bool:
    """Whether no more than the uuid of an aggregate is known, as Placement has them."""
    return aggregate.name == aggregate.uuid and not aggregate.metadata


def _checked(aggregate: Aggregate) -> Aggregate:
    """``aggregate``, or InvalidValue naming the malformed field."""
    uuid_words(getattr(aggregate, "uuid", None), "aggregate.uuid")
    if not isinstance(aggregate.name, str):
        raise InvalidValue(f"aggregate.name must be a string, got {shown(aggregate.name)}", field="aggregate.name")
    metadata = aggregate.metadata
    texts = isinstance(metadata, Mapping) and all(isinstance(text, str) for pair in metadata.items() for text in pair)
    if not texts:
        raise InvalidValue(
            f"aggregate.metadata must map strings to strings, got {shown(metadata)}", field="aggregate.metadata"
        )
    return aggregate
