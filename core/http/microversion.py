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
        service, _, version = part.strip().partition(" ")
        if service.lower() == SERVICE and version.strip():
            wanted = version.strip()
            break
    if not wanted:
        return 0
    if wanted == "latest":
        return NEWEST
    major, dot, minor = wanted.partition(".")
    if not (dot and _is_number(major) and _is_number(minor)):
        raise HttpError(400, f"Invalid microversion: invalid version string: {wanted}")
    if int(major) != 1 or int(minor) > NEWEST:
        raise HttpError(406, f"Invalid microversion: Unacceptable version header: {wanted}")
    return int(minor)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
