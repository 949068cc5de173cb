"""Names and values of the keys that members of a cluster keep in etcd."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from ..errors import DataDamaged

FORMAT: Final = 1
BLOCKS: Final = 1
"""Newest form of blocks that this version reads: 1 may be compressed. A leader writes what all members read."""
T = TypeVar("T")


class ClusterKey(msgspec.Struct, array_like=True, frozen=True):
    """Which cluster this is: a random name, so that a data folder of another one is found out, and the format of the
    keys."""

    name: str
    format: int = FORMAT
    secret: str = ""
    """By which members know each other."""


class Head(msgspec.Struct, array_like=True, frozen=True):
    """The end of the journal: the last command's number, the first one's of its block, the block's checksum, and the
    term in which it was written. ``begun``: the number of the first command that the journal ever held."""

    last: int
    first: int
    checksum: int
    term: int
    begun: int = 1


class BlockValue(msgspec.Struct, array_like=True, frozen=True):
    """A block. Where it has ``parts``, these hold what comes before ``body``, each in a key of its own."""

    records: int
    checksum: int
    before: int
    """Checksum of the block before."""
    body: bytes
    parts: int = 0
    term: int = 0
    length: int = 0
    """Bytes of the body before it was compressed; 0: it is not. The checksum is of the body as it was before."""


class MemberValue(msgspec.Struct, array_like=True, frozen=True):
    """A member as it describes itself. ``snapshot``: number of its newest snapshot; ``sequence``: of the last command
    that it has carried out, as of this value."""

    name: str
    addresses: tuple[str, ...] = ()
    placement: str = ""
    version: str = ""
    snapshot: int = 0
    sequence: int = 0
    rules: int = 0
    """Newest revision of the rules of decision that it knows."""
    reads: int = 0
    """Newest form of blocks that it reads, as in ``BLOCKS``."""


class DigestValue(msgspec.Struct, array_like=True, frozen=True):
    """The digest of the leader's state behind a command."""

    sequence: int
    digest: str
    version: str = ""


class Keys:
    """The names, below a prefix. ``control`` is the prefix of those that members watch."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.rstrip("/") + "/"
        self.control = f"{self.prefix}control/"
        self.cluster = f"{self.prefix}cluster"
        self.head, self.leader = f"{self.control}head", f"{self.control}leader"
        self.handover, self.digest = f"{self.control}handover", f"{self.control}digest"
        self.members, self.alive = f"{self.prefix}members/", f"{self.prefix}alive/"
        self.blocks, self.parts = f"{self.prefix}blocks/", f"{self.prefix}parts/"

    def block(self, first: int) -> str:
        """The block that begins with a command."""
        return f"{self.blocks}{first:016d}"

    def part(self, first: int, term: int, number: int) -> str:
        """A part of that block, as it was written in a term."""
        return f"{self.parts}{first:016d}/{term:016d}-{number:04d}"

    def parts_behind(self, first: int) -> str:
        """Before the parts of that block and later ones."""
        return f"{self.parts}{first:016d}/"


encode: Final = msgspec.msgpack.Encoder().encode


def decode(data: bytes, kind: type[T], key: str) -> T:
    """A value. DataDamaged for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataDamaged(f"the key {key} in etcd cannot be read: {error}", field="data.etcd.prefix") from error
