"""Uuids in one form: 8-4-4-4-12 digits in lower case. A uuid that is written in another form is the same one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from ...ext.tables import format_uuid, parse_uuid

Value = TypeVar("Value")
_LENGTH: Final = frozenset((36,))


def plain_uuid(uuid: str) -> str:
    """A uuid in that form; another text as it is. O(1)."""
    if len(uuid) == 36 and uuid == uuid.lower():
        return uuid
    try:
        return format_uuid(*parse_uuid(uuid))
    except ValueError:
        return uuid


def are_plain(uuids: Iterable[str]) -> bool:
    """True if no uuid among these texts is in another form. O(uuids)."""
    texts = uuids if isinstance(uuids, (list, tuple, set, frozenset, Mapping)) else list(uuids)
    text = "".join(texts)
    return text == text.lower() and set(map(len, texts)) <= _LENGTH


def plain_uuids(uuids: Iterable[str]) -> list[str]:
    """Uuids in that form, in their order. O(uuids)."""
    return list(map(plain_uuid, uuids))


def by_plain_uuid(values: Mapping[str, Value]) -> Mapping[str, Value]:
    """A mapping whose keys are in that form; the same object where they are. Of a uuid in two forms the last counts.
    O(keys)."""
    return values if are_plain(values) else {plain_uuid(uuid): value for uuid, value in values.items()}
