"""The small languages inside query strings: amounts of resources, traits, aggregate memberships."""

from __future__ import annotations

from .errors import bad_request
from .messages import Request
from .validation import is_uuid, plain_uuid

Traits = tuple[frozenset[str], frozenset[str], tuple[frozenset[str], ...]]
"""Required, forbidden, and sets of which one each is required."""
MOST_DIGITS = 18


def resources(text: str) -> dict[str, int]:
    """``VCPU:2,MEMORY_MB:1024`` as {class: amount}; a class named twice counts as named last. HttpError 400."""
    if not text.strip():
        raise _bad_resources("empty string")
    amounts: dict[str, int] = {}
    for part in text.split(","):
        name, colon, amount = part.partition(":")
        if not colon or ":" in amount:
            raise _bad_resources(part)
        amounts[name] = _amount(name, amount)
    return amounts


def _bad_resources(got: str) -> Exception:
    return bad_request(
        "Badly formed resources parameter. Expected resources query string parameter in form: "
        f"?resources=VCPU:2,MEMORY_MB:1024. Got: {got}."
    )


def _amount(name: str, text: str) -> int:
    digits = text.strip().removeprefix("-").removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
        raise bad_request(f"Requested resource {name} expected positive integer amount. Got: {text}.")
    amount = int(text)
    if amount < 1:
        raise bad_request(f"Requested resource {name} requires amount >= 1. Got: {amount}.")
    return amount


def traits(request: Request, suffix: str = "") -> Traits:
    """The ``required`` fields of a query: ``A,!B`` (1.22), ``in:A,B`` (1.39), several of them (1.39). HttpError 400."""
    values = request.query.all(f"required{suffix}")
    if request.minor < 39:
        values = values[-1:]
    required: set[str] = set()
    forbidden: set[str] = set()
    any_of: list[frozenset[str]] = []
    for value in values:
        if value.startswith("in:"):
            any_of.append(_any_of(value, request.minor))
        else:
            wanted, unwanted = required_traits(value, may_forbid=request.minor >= 22)
            required |= wanted
            forbidden |= unwanted
    required |= {trait for group in any_of if len(group) == 1 for trait in group}
    return frozenset(required), frozenset(forbidden), tuple(group for group in any_of if len(group) > 1)


def required_traits(value: str, *, may_forbid: bool) -> tuple[set[str], set[str]]:
    """``A,!B`` as required and forbidden traits. HttpError 400."""
    names = [name.strip() for name in value.split(",")]
    form = "HW_CPU_X86_VMX,!CUSTOM_MAGIC" if may_forbid else "HW_CPU_X86_VMX,CUSTOM_MAGIC"
    forbidden = {name.lstrip("!") for name in names if name.startswith("!")}
    if "" in names or "" in forbidden:
        raise _bad_traits(f"of the form: {form}. Got an empty trait in: {value}")
    if forbidden and not may_forbid:
        raise _bad_traits(f"of the form: {form}. Got: {value}")
    return {name for name in names if not name.startswith("!")}, forbidden


def _any_of(value: str, minor: int) -> frozenset[str]:
    form = "in:HW_CPU_X86_VMX,CUSTOM_MAGIC"
    if minor < 39:
        raise bad_request(
            f"Invalid query string parameters: The format '{form}' only supported since microversion 1.39. Got: {value}"
        )
    names = frozenset(name.strip() for name in value[3:].split(","))
    if "" in names:
        raise _bad_traits(f"of the form: {form}. Got an empty trait in: {value}")
    if any(name.startswith("!") for name in names):
        raise bad_request(
            f"Invalid query string parameters: The format '{form}' does not support forbidden traits. Got: {value}"
        )
    return names


def _bad_traits(what: str) -> Exception:
    return bad_request(f"Invalid query string parameters: Expected 'required' parameter value {what}")


def memberships(request: Request, suffix: str = "") -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
    """The ``member_of`` fields of a query: sets of aggregates of which one each is required, and forbidden ones.

    Several fields from 1.24, forbidden aggregates from 1.32. HttpError 400.
    """
    values = request.query.all(f"member_of{suffix}")
    if len(values) > 1 and request.minor < 24:
        raise bad_request(f"Multiple member_of{suffix} parameters are not supported")
    required: list[frozenset[str]] = []
    forbidden: frozenset[str] = frozenset()
    for value in values:
        unwanted, uuids = _aggregates(value)
        if not unwanted:
            required.append(uuids)
        elif request.minor < 32:
            raise bad_request(f"Forbidden member_of{suffix} parameters are not supported in the specified microversion")
        else:
            forbidden |= uuids
    return tuple(required), forbidden


def _aggregates(value: str) -> tuple[bool, frozenset[str]]:
    """Whether the aggregates of a ``member_of`` are forbidden, and which they are."""
    unwanted = value.startswith("!")
    names = value[1:] if unwanted else value
    if names.startswith("in:"):
        uuids = names[3:].split(",")
    elif "," in names:
        raise bad_request(
            "Multiple values for 'member_of' must be prefixed with the 'in:' or '!in:' keyword using the valid "
            f"microversion. Got: {value}"
        )
    else:
        uuids = [names]
    for uuid in uuids:
        if not is_uuid(uuid):
            raise bad_request(
                f"Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). Got: {uuid}"
            )
    return unwanted, frozenset(map(plain_uuid, uuids))


def tree(value: str) -> str:
    """The uuid of an ``in_tree``. HttpError 400."""
    if not is_uuid(value.strip()):
        raise bad_request(
            f"Invalid query string parameters: Expected 'in_tree' parameter to be a format of uuid. Got: {value}"
        )
    return plain_uuid(value.strip())
