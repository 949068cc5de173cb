"""Validation of bodies and query strings against JSON schemas. Messages are those of the jsonschema library, as in
Placement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final, Protocol

import trio

from .config import PlacementConfig
from .errors import HttpError, bad_request
from .messages import Request

SMALL: Final = 65_536
"""Larger bodies are validated in a thread, with abbreviated messages."""
MOST_SAID: Final = 1_000

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_UUID: Final = re.compile(r"[0-9a-f]{32}")
_DASHED: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a uuid in any of the usual notations: with or without dashes, braces and urn:uuid:."""
    bare = text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "").lower()
    return _UUID.fullmatch(bare) is not None


def plain_uuid(text: str) -> str:
    """A uuid as Placement writes it: lower case, with dashes."""
    bare = text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "").lower()
    return f"{bare[:8]}-{bare[8:12]}-{bare[12:16]}-{bare[16:20]}-{bare[20:]}"


class Configured(Protocol):
    """What knows the configured limits of the API."""

    config: PlacementConfig


class Schema:
    """A JSON schema, compiled when it is first used. ``strict_uuids``: only with dashes."""

    def __init__(self, document: dict[str, Any], *, strict_uuids: bool = False) -> None:
        self.document, self._strict = document, strict_uuids

    @cached_property
    def _validator(self) -> Any:
        import jsonschema  # takes its time to import

        formats = jsonschema.FormatChecker(formats=())
        matches = _DASHED.fullmatch if self._strict else is_uuid

        @formats.checks("uuid")
        def _(value: object) -> bool:
            return not isinstance(value, str) or bool(matches(value))

        return jsonschema.Draft202012Validator(self.document, format_checker=formats)

    def problem(self, value: Any, *, small: bool = True) -> str | None:
        """What is wrong with ``value``; None if nothing is."""
        if self._validator.is_valid(value):
            return None
        from jsonschema.exceptions import best_match

        error = best_match(self._validator.iter_errors(value))
        if small:
            return str(error)
        path = "".join(f"[{part!r}]" for part in error.absolute_path)
        return f"{error.message[:MOST_SAID]}\n\nFailed validating {error.validator!r} at instance{path[:MOST_SAID]}"


async def read_json(request: Request, api: Configured, schema: Schema) -> Any:
    """The body as JSON that the schema accepts. Raises HttpError: 400, and 408 and 413 from reading it."""
    body = await request.read_body()
    depth = api.config.limits.json_depth
    if len(body) <= SMALL:
        return parse_json(body, schema, depth)
    return await trio.to_thread.run_sync(parse_json, body, schema, depth)


def parse_json(body: bytes, schema: Schema, depth: int) -> Any:
    """``body`` as JSON, not deeper than ``depth``, that the schema accepts. Raises HttpError 400."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()  # half of a pair is no text, and could not be stored
    except RecursionError as error:
        raise _too_deep(depth) from error
    except ValueError as error:
        raise bad_request(f"Malformed JSON: {error}") from error
    if body.count(b"[") + body.count(b"{") > depth and _deeper_than(value, depth):
        raise _too_deep(depth)
    problem = schema.problem(value, small=len(body) <= SMALL)
    if problem is not None:
        raise bad_request(f"JSON does not validate: {problem}")
    return value


def check_query(request: Request, schema: Schema) -> dict[str, str]:
    """The query string, the last value of each name, that the schema accepts. Raises HttpError 400."""
    query = request.query.last()
    problem = schema.problem(query, small=len(request.raw_query) <= SMALL)
    if problem is not None:
        raise bad_request(f"Invalid query string parameters: {problem}")
    return query


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _too_deep(depth: int) -> HttpError:
    return bad_request(f"Malformed JSON: nested more than {depth} levels deep")


def _deeper_than(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested in more than ``depth`` levels. O(size)."""
    level = [value]
    for _ in range(depth):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return any(isinstance(item, list | dict) for item in level)


def _children(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        yield from item.values()
    elif isinstance(item, list):
        yield from item
