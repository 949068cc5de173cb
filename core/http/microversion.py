"""Negotiation of the microversion of the Placement API: ``1.minor``, minor from 0 to 39."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from .errors import HttpError

SERVICE: Final = "placement"
NEWEST: Final = 39


@lru_cache(maxsize=256)
def negotiate(header: str) -> int:
    """The minor version that the header OpenStack-API-Version requests; 0 if it names no placement version.

    The header may name several services; the last placement version counts. Raises HttpError: 406 for a version that
    does not exist, 400 for a malformed version.
    """
    wanted = ""
    for part in reversed(header.split(",")):
        words = part.strip().split(None, 1)
        if len(words) == 2 and words[0].lower() == SERVICE:
            wanted = words[1]
            break
    if not wanted:
        return 0
    if wanted == "latest":
        return NEWEST
    try:  # signs and blanks are allowed, as in the real service; a header is bytes to it, so that digits are ASCII
        major, minor = (int(part) for part in wanted.encode("ascii").split(b".", 1))
    except ValueError:
        raise HttpError(400, f"Invalid microversion: invalid version string: {wanted}") from None
    if major != 1 or not 0 <= minor <= NEWEST:
        raise HttpError(406, f"Invalid microversion: Unacceptable version header: {wanted}")
    return minor
