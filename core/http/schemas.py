"""JSON schemas of the bodies and query strings, one for each form that the microversions have brought."""

from __future__ import annotations

from typing import Any, Final

from .validation import Schema

Document = dict[str, Any]

MOST: Final = 2**31 - 1
MOST_RATIO: Final = 3.40282e38
NAME: Final = "^[A-Z0-9_]+$"
CUSTOM_NAME: Final = "^CUSTOM_[A-Z0-9_]+$"
UUID_KEY: Final = "^[0-9a-fA-F-]{36}$"
SUFFIX: Final = "[1-9][0-9]*"
SUFFIX_33: Final = "[a-zA-Z0-9_-]{1,64}"

TEXT: Final[Document] = {"type": "string"}
UUID: Final[Document] = {"type": "string", "format": "uuid"}
GENERATION: Final[Document] = {"type": "integer"}
CONSUMER_GENERATION: Final[Document] = {"type": ["integer", "null"]}
OWNER: Final[Document] = {"type": "string", "minLength": 1, "maxLength": 255}


def record(properties: Document, required: tuple[str, ...] = ()) -> Document:
    """An object with these properties and no others."""
    document: Document = {"type": "object", "properties": properties}
    if required:
        document["required"] = list(required)
    document["additionalProperties"] = False
    return document


def table(pattern: str, value: Document, least: int = 0) -> Document:
    """An object whose keys match the pattern."""
    document: Document = {"type": "object", "patternProperties": {pattern: value}, "additionalProperties": False}
    if least:
        document["minProperties"] = least
    return document


def whole(least: int) -> Document:
    """An integer that the database column holds."""
    return {"type": "integer", "maximum": MOST, "minimum": least}


# providers

PROVIDER_NAME: Final[Document] = {"type": "string", "maxLength": 200}
PARENT: Final[Document] = {"anyOf": [UUID, {"type": "null"}]}

CREATE_PROVIDER: Final = Schema(record({"name": PROVIDER_NAME, "uuid": UUID}, ("name",)))
CREATE_PROVIDER_14: Final = Schema(
    record({"name": PROVIDER_NAME, "uuid": UUID, "parent_provider_uuid": PARENT}, ("name",))
)
UPDATE_PROVIDER: Final = Schema(record({"name": PROVIDER_NAME}, ("name",)))
UPDATE_PROVIDER_14: Final = Schema(record({"name": PROVIDER_NAME, "parent_provider_uuid": PARENT}, ("name",)))


def _list_providers(since: int) -> Schema:
    fields = {"name": (0, TEXT), "uuid": (0, UUID), "member_of": (3, TEXT), "resources": (4, TEXT)}
    fields |= {"in_tree": (14, UUID), "required": (18, TEXT)}
    known = {name: document for name, (first, document) in fields.items() if first <= since}
    return Schema(record(known), strict_uuids=True)


LIST_PROVIDERS: Final = tuple((since, _list_providers(since)) for since in (18, 14, 4, 3, 0))
"""(first microversion, query schema), newest first."""

# inventories

INVENTORY_FIELDS: Final[Document] = {
    "total": whole(1),
    "reserved": whole(0),
    "min_unit": whole(1),
    "max_unit": whole(1),
    "step_size": whole(1),
    "allocation_ratio": {"type": "number", "maximum": MOST_RATIO},
}
_INVENTORY: Final[Document] = {"resource_provider_generation": GENERATION, **INVENTORY_FIELDS}
_INVENTORIES: Final[Document] = record(
    {
        "resource_provider_generation": GENERATION,
        "inventories": {"type": "object", "patternProperties": {NAME: record(_INVENTORY, ("total",))}},
    },
    ("resource_provider_generation", "inventories"),
)

ADD_INVENTORY: Final = Schema(
    record({**_INVENTORY, "resource_class": {"type": "string", "pattern": NAME}}, ("total", "resource_class"))
)
SET_INVENTORY: Final = Schema(record(_INVENTORY, ("total", "resource_provider_generation")))
SET_INVENTORIES: Final = Schema(_INVENTORIES)

# aggregates, traits, resource classes

_AGGREGATES: Final[Document] = {"type": "array", "items": UUID, "uniqueItems": True}

SET_AGGREGATES: Final = Schema(_AGGREGATES)
SET_AGGREGATES_19: Final = Schema(
    record(
        {"aggregates": _AGGREGATES, "resource_provider_generation": GENERATION},
        ("aggregates", "resource_provider_generation"),
    )
)
CUSTOM_TRAIT: Final = Schema({"type": "string", "minLength": 1, "maxLength": 255, "pattern": CUSTOM_NAME})
SET_TRAITS: Final = Schema(
    record(
        {"traits": {"type": "array", "items": OWNER}, "resource_provider_generation": GENERATION},
        ("traits", "resource_provider_generation"),
    )
)
LIST_TRAITS: Final = Schema(record({"name": TEXT, "associated": TEXT}))
RESOURCE_CLASS: Final = Schema(
    record({"name": {"type": "string", "pattern": CUSTOM_NAME, "maxLength": 255}}, ("name",))
)

# allocations

_AMOUNTS: Final = table(NAME, {"type": "integer", "minimum": 1}, least=1)
_OWNERS: Final[Document] = {"project_id": OWNER, "user_id": OWNER}
_LISTED: Final[Document] = {
    "type": "array",
    "minItems": 1,
    "items": record(
        {"resource_provider": record({"uuid": UUID}, ("uuid",)), "resources": _AMOUNTS},
        ("resource_provider", "resources"),
    ),
}


def _allocations(since: int, least: int) -> Document:
    """What one consumer shall hold, in the form of 1.``since`` (12 or later)."""
    held = record({"generation": GENERATION, "resources": _AMOUNTS}, ("resources",))
    properties: Document = {"allocations": table(UUID_KEY, held, least), **_OWNERS}
    required = ["allocations", "project_id", "user_id"]
    if since >= 28:
        properties["consumer_generation"] = CONSUMER_GENERATION
        required.append("consumer_generation")
    if since >= 34:
        providers = {"type": "array", "minItems": 1, "items": UUID}
        properties["mappings"] = {"type": "object", "minProperties": 1, "patternProperties": {SUFFIX_33: providers}}
    if since >= 38:
        properties["consumer_type"] = {**OWNER, "pattern": NAME}
        required.append("consumer_type")
    return record(properties, tuple(required))


SET_ALLOCATIONS: Final = (
    (38, Schema(_allocations(38, 0))),
    (34, Schema(_allocations(34, 0))),
    (28, Schema(_allocations(28, 0))),
    (12, Schema(_allocations(12, 1))),
    (8, Schema(record({"allocations": _LISTED, **_OWNERS}, ("allocations", "project_id", "user_id")))),
    (0, Schema(record({"allocations": _LISTED}, ("allocations",)))),
)
MANAGE_ALLOCATIONS: Final = tuple(
    (since, Schema(table(UUID_KEY, _allocations(since, 0), least=1))) for since in (38, 34, 28, 13)
)
RESHAPE: Final = tuple(
    (
        since,
        Schema(
            record(
                {
                    "inventories": table(UUID_KEY, _INVENTORIES, least=1),
                    "allocations": table(UUID_KEY, _allocations(since, 0)),
                },
                ("inventories", "allocations"),
            )
        ),
    )
    for since in (38, 34, 30)
)

# usages, candidates

USAGES: Final = (
    (
        38,
        Schema(record({**_OWNERS, "consumer_type": {**OWNER, "pattern": f"{NAME}|^all|^unknown$"}}, ("project_id",))),
    ),
    (9, Schema(record(_OWNERS, ("project_id",)))),
)


def _candidates(since: int) -> Schema:
    properties: Document = {}
    if since >= 16:
        properties["limit"] = {"type": ["integer", "string"], "pattern": "^[1-9][0-9]*$", "minimum": 1, "minLength": 1}
    if since < 25:
        properties |= {"resources": TEXT} | ({"required": TEXT} if since >= 17 else {})
        properties |= {"member_of": TEXT} if since >= 21 else {}
        return Schema(record(properties, ("resources",)))
    properties["group_policy"] = {"type": "string", "enum": ["none", "isolate"]}
    if since >= 35:
        properties["root_required"] = TEXT
    if since >= 36:
        properties["same_subtree"] = TEXT
    suffix = SUFFIX_33 if since >= 33 else SUFFIX
    suffixed = ("resources", "required", "member_of", *(("in_tree",) if since >= 31 else ()))
    document = record(properties)
    document["patternProperties"] = {f"^{name}({suffix})?$": TEXT for name in suffixed}
    return Schema(document)


CANDIDATES: Final = tuple((since, _candidates(since)) for since in (36, 35, 33, 31, 25, 21, 17, 16, 10))


def at(versions: tuple[tuple[int, Schema], ...], minor: int) -> Schema:
    """The schema in force at microversion 1.``minor``."""
    return next(schema for since, schema in versions if minor >= since)
