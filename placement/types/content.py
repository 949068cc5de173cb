"""Equality and hash by content for request values; it knows no field of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


def _builtin(value: object) -> object:
    """A mapping of another type than dict as a dict; TypeError for what has no canonical form."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no canonical form")


_CANONICAL: Final = msgspec.msgpack.Encoder(enc_hook=_builtin, order="deterministic")
"""Keys and sets are sorted; 1, 1.0 and True differ, as they do to the checks."""
_OBJECT_BYTES: Final = 1 << 10
"""What an object takes beside its contents, measured."""
_IN_MEMORY: Final = 8
"""Bytes of memory for a byte of the encoding: short words, and lists of them."""


class ContentEquality:
    """Base of frozen dataclasses that compare and hash by their canonical encoding, made once per object.

    Two objects of one class are equal if all fields are, types of numbers included. An object that holds a value
    without a canonical form (an array, an object of the caller's) equals itself alone. Mappings in fields must not be
    changed after construction.
    """

    __slots__ = ("_content", "_hash")

    _content: object
    _hash: int

    @property
    def content(self) -> object:
        """The canonical encoding as bytes, or an object that equals nothing else. O(1) after the first call, O(size)
        then."""
        try:
            return self._content
        except AttributeError:
            pass
        found: object
        try:
            found = _CANONICAL.encode(self)
        except (TypeError, ValueError, OverflowError, RecursionError):
            found = object()
        object.__setattr__(self, "_content", found)
        return found

    @property
    def nbytes(self) -> int:
        """About how many bytes of memory the object takes, with its contents. O(1) after the first call."""
        content = self.content
        return _OBJECT_BYTES + (_IN_MEMORY * len(content) if isinstance(content, bytes) else 0)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, ContentEquality)
        return hash(self) == hash(other) and self.content == other.content

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            found = hash(self.content)
            object.__setattr__(self, "_hash", found)
            return found
