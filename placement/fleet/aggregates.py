"""Host aggregates by id: names and metadata. Membership is stored in the host classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from ..types.errors import InvalidValue, UnknownName
from ..types.host import Aggregate
from ..types.validation import shown, uuid_words
from .change_log import ChangeLog

NONE: Final = Aggregate(uuid="00000000-0000-0000-0000-000000000000", name="")
"""Placeholder for an aggregate that exists only in another version: host classes of that version refer to its id. No
rule reads it."""


class Aggregates:
    """The aggregates of a fleet. Versions may differ in them: an id is valid only in the version it came from."""

    def __init__(self, change_log: ChangeLog) -> None:
        self._change_log = change_log
        self.values: list[Aggregate] = []
        self._ids: dict[str, int] = {}

    def __len__(self) -> int:
        """Number of aggregates. O(1)."""
        return len(self._ids)

    def ids(self, aggregates: Iterable[Aggregate]) -> tuple[int, ...]:
        """Ids of aggregates; new ones are added. InvalidValue, with nothing changed, if one is malformed or differs
        from the known aggregate with its uuid. O(aggregates)."""
        wanted = list(aggregates)
        new: dict[str, Aggregate] = {}
        for aggregate in wanted:
            known = self._known(aggregate)
            if known is None:
                known = new.setdefault(_checked(aggregate).uuid, aggregate)
            if known is not aggregate and known != aggregate:
                raise InvalidValue(
                    f"aggregate {aggregate.uuid} is known with another name or metadata",
                    field="aggregate",
                    hint="use update_aggregate",
                )
        for aggregate in new.values():
            self._change_log.make(partial(self._append, aggregate), self._pop)
        return tuple(self._ids[aggregate.uuid] for aggregate in wanted)

    def find(self, uuid: str) -> int | None:
        """Id of the aggregate with this uuid, or None. O(1)."""
        return self._ids.get(uuid)

    def of(self, uuid: str) -> Aggregate:
        """The aggregate with this uuid; UnknownName otherwise. O(1)."""
        index = self._ids.get(uuid) if isinstance(uuid, str) else None
        if index is None:
            raise UnknownName(f"no aggregate has the uuid {shown(uuid)}", field="aggregate")
        return self.values[index]

    def update(self, aggregate: Aggregate) -> None:
        """Replace an aggregate's name and metadata. O(1), but every compiled signature is rebuilt on next use."""
        before = self.of(_checked(aggregate).uuid)
        self._change_log.make(partial(self._put, aggregate), partial(self._put, before))

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

    def truncate(self, count: int) -> None:
        """Drop placeholders from id ``count`` on, once no host class refers to them."""
        del self.values[max(count, len(self._ids)) :]

    def _append(self, aggregate: Aggregate) -> None:
        index = self._ids[aggregate.uuid] = len(self._ids)
        self.values[index : index + 1] = [aggregate]
        self._change_log.static_epoch += 1

    def _pop(self) -> None:
        last = len(self._ids) - 1
        del self._ids[self.values[last].uuid]
        self.values[last] = NONE
        self._change_log.static_epoch += 1

    def _put(self, aggregate: Aggregate) -> None:
        self.values[self._ids[aggregate.uuid]] = aggregate
        self._change_log.static_epoch += 1


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
