"""Requests and answers of etcd's JSON gateway as values: keys and values are in base64 there, 64-bit numbers are texts,
and zeros are left out."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Request = Mapping[str, Any]
"""A request as JSON has it."""


class KeyValue(NamedTuple):
    """A key as etcd has it. ``created``: the revision at which it came to be; ``modified``: that of its last change;
    ``lease``: 0 for none."""

    key: str
    value: bytes
    created: int
    modified: int
    lease: int


class Answer(NamedTuple):
    """The answer to a transaction: whether its comparisons held, the revision of the database, and what each of the
    operations found (nothing, for those that do not read)."""

    succeeded: bool
    revision: int
    found: Sequence[Sequence[KeyValue]]


class Change(NamedTuple):
    """One event of a watch: a key that was put, or deleted (then with an empty value)."""

    deleted: bool
    item: KeyValue


def text(data: bytes) -> str:
    """Base64."""
    return b64encode(data).decode("ascii")


def end_of(prefix: str) -> str:
    """The first key behind all that begin with a prefix that ends in an ASCII character."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def put(key: str, value: bytes, lease: int = 0) -> Request:
    """The operation that puts a key."""
    body: dict[str, Any] = {"key": text(key.encode()), "value": text(value)}
    if lease:
        body["lease"] = str(lease)
    return {"request_put": body}


def get(key: str, end: str | None = None, *, limit: int = 0, newest_first: bool = False) -> Request:
    """The operation that reads a key, or all from ``key`` to before ``end`` in their order."""
    body: dict[str, Any] = {"key": text(key.encode())}
    if end is not None:
        body["range_end"] = text(end.encode())
    if limit:
        body["limit"] = str(limit)
    if newest_first:
        body |= {"sort_order": "DESCEND", "sort_target": "KEY"}
    return {"request_range": body}


def delete(key: str, end: str | None = None) -> Request:
    """The operation that deletes a key, or all from ``key`` to before ``end``."""
    body = {"key": text(key.encode())}
    if end is not None:
        body["range_end"] = text(end.encode())
    return {"request_delete_range": body}


def created_at(key: str, revision: int) -> Request:
    """The comparison that a key came to be at a revision; 0: that it is not there."""
    return {"key": text(key.encode()), "target": "CREATE", "result": "EQUAL", "create_revision": str(revision)}


def modified_at(key: str, revision: int) -> Request:
    """The comparison that a key was last changed at a revision; 0: that it is not there."""
    return {"key": text(key.encode()), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def revision_of(answer: Mapping[str, Any]) -> int:
    """The revision of the database in an answer's header."""
    return int(answer.get("header", {}).get("revision", 0))


def item_of(value: Mapping[str, Any]) -> KeyValue:
    """A key in an answer."""
    return KeyValue(
        b64decode(value["key"]).decode(),
        b64decode(value.get("value", "")),
        int(value.get("create_revision", 0)),
        int(value.get("mod_revision", 0)),
        int(value.get("lease", 0)),
    )


def answer_of(answer: Mapping[str, Any]) -> Answer:
    """A transaction's answer."""
    found = [
        [item_of(each) for each in response.get("response_range", {}).get("kvs", ())]
        for response in answer.get("responses", ())
    ]
    return Answer(bool(answer.get("succeeded", False)), revision_of(answer), found)


def changes_of(result: Mapping[str, Any]) -> list[Change]:
    """The events of one message of a watch."""
    return [Change(each.get("type") == "DELETE", item_of(each["kv"])) for each in result.get("events", ())]
