"""Methods about a cluster of members: who they are, which one leads, and copies of their snapshots."""

from __future__ import annotations

from typing import Annotated

import msgspec

from .messages import Params


class Members(Params, frozen=True):
    """The members of the cluster that this service is one of. For readers of the cloud."""


class Lead(Params, frozen=True):
    """Have another member lead: ``to``, or the one that is least behind. Commands under way are carried out first.
    Returns the name of the member; the leader alone can do that. For cloud admins."""

    to: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class SnapshotFiles(Params, frozen=True):
    """The newest snapshot of this member, with the length of each of its files; one is taken if there is none. For
    other members, and the service's own user."""


class SnapshotPart(Params, frozen=True):
    """Some MiB of a file of a snapshot from an offset on; empty behind its end. For other members, and the
    service's own user."""

    sequence: Annotated[int, msgspec.Meta(ge=0)]
    file: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0
