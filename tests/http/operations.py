"""Random calls of the API that know enough of what happened before to succeed often, and to fail in every way."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlencode

from hypothesis import strategies as st

from .oracle import Oracle

RPS = tuple(f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")
CONSUMERS = tuple(f"{digit * 8}-0000-4000-8000-00000000000c" for digit in "123")
AGGREGATES = tuple(f"{digit * 8}-0000-4000-8000-0000000000aa" for digit in "12")
UNKNOWN = "99999999-0000-4000-8000-000000000000"
NAMES = ("one", "two", "three", "four")
CLASSES = ("VCPU", "MEMORY_MB", "CUSTOM_A", "CUSTOM_B")
TRAITS = ("HW_CPU_X86_VMX", "CUSTOM_T", "CUSTOM_U")
PROJECTS = ("p1", "p2")


class Call(NamedTuple):
    """A request."""

    method: str
    path: str
    body: Any = None


def mostly(draw: st.DrawFn, usual: Any, odd: st.SearchStrategy[Any]) -> Any:
    """``usual``, but one time in eight something else."""
    return draw(odd) if draw(st.integers(0, 7)) == 0 else usual


def _rp(draw: st.DrawFn) -> str:
    return str(draw(st.sampled_from((*RPS, *RPS, UNKNOWN))))


def _generation(draw: st.DrawFn, oracle: Oracle, uuid: str) -> int:
    known = oracle.rps[uuid].generation if uuid in oracle.rps else 0
    return int(mostly(draw, known, st.integers(0, 9)))


def _figures(draw: st.DrawFn) -> dict[str, Any]:
    figures: dict[str, Any] = {"total": draw(st.integers(1, 12))}
    optional = {
        "reserved": st.integers(0, 6),
        "min_unit": st.integers(1, 3),
        "max_unit": st.integers(1, 12),
        "step_size": st.integers(1, 3),
        "allocation_ratio": st.sampled_from((1.0, 1.5, 0.5, 2.0, 0.0, 16)),
    }
    for name, values in optional.items():
        if draw(st.integers(0, 3)) == 0:
            figures[name] = draw(values)
    return figures


def _inventories(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(CLASSES), unique=True, max_size=3))
    return {name: _figures(draw) for name in names}


def _consumer(draw: st.DrawFn, oracle: Oracle, uuid: str) -> dict[str, Any]:
    allocations = {}
    for rp in draw(st.lists(st.sampled_from((*RPS, *RPS, UNKNOWN)), unique=True, max_size=2)):
        names = sorted(oracle.rps[rp].inventories) if rp in oracle.rps else []
        usual = draw(st.lists(st.sampled_from(names), unique=True, min_size=1)) if names else ["VCPU"]
        classes = mostly(draw, usual, st.lists(st.sampled_from(CLASSES), unique=True, min_size=1, max_size=2))
        allocations[rp] = {"resources": {name: draw(st.integers(1, 6)) for name in classes}}
    known = oracle.consumers.get(uuid)
    generation = mostly(draw, known and known.generation, st.none() | st.integers(0, 3))
    return {
        "allocations": allocations,
        "project_id": draw(st.sampled_from(PROJECTS)),
        "user_id": draw(st.sampled_from(("u1", "u2"))),
        "consumer_generation": generation,
        "consumer_type": draw(st.sampled_from(("INSTANCE", "MIGRATION"))),
    }


def _several(draw: st.DrawFn, oracle: Oracle, least: int) -> dict[str, Any]:
    chosen = draw(st.lists(st.sampled_from(CONSUMERS), unique=True, min_size=least, max_size=3))
    return {uuid: _consumer(draw, oracle, uuid) for uuid in chosen}


@st.composite
def calls(draw: st.DrawFn, oracle: Oracle) -> Call:
    """The next call, in the state that the oracle is in."""
    kind = draw(st.sampled_from(KINDS))
    call: Call = kind(draw, oracle)
    return call


def create_provider(draw: st.DrawFn, oracle: Oracle) -> Call:
    missing = [uuid for uuid in RPS if uuid not in oracle.rps]
    uuid = mostly(draw, missing[0] if missing else RPS[0], st.sampled_from(RPS))
    name = mostly(draw, NAMES[RPS.index(uuid)], st.sampled_from(NAMES))
    body: dict[str, Any] = {"name": name, "uuid": uuid}
    if draw(st.booleans()):
        body["parent_provider_uuid"] = draw(st.sampled_from((None, *RPS, *RPS, UNKNOWN)))
    return Call("POST", "/resource_providers", body)


def update_provider(draw: st.DrawFn, oracle: Oracle) -> Call:
    uuid = _rp(draw)
    body: dict[str, Any] = {"name": draw(st.sampled_from(NAMES))}
    if draw(st.booleans()):
        body["parent_provider_uuid"] = draw(st.sampled_from((None, *RPS)))
    return Call("PUT", f"/resource_providers/{uuid}", body)


def delete_provider(draw: st.DrawFn, oracle: Oracle) -> Call:
    return Call("DELETE", f"/resource_providers/{_rp(draw)}")


def add_inventory(draw: st.DrawFn, oracle: Oracle) -> Call:
    body = {"resource_class": draw(st.sampled_from(CLASSES)), **_figures(draw)}
    return Call("POST", f"/resource_providers/{_rp(draw)}/inventories", body)


def set_inventories(draw: st.DrawFn, oracle: Oracle) -> Call:
    uuid = _rp(draw)
    body = {"resource_provider_generation": _generation(draw, oracle, uuid), "inventories": _inventories(draw)}
    return Call("PUT", f"/resource_providers/{uuid}/inventories", body)


def set_inventory(draw: st.DrawFn, oracle: Oracle) -> Call:
    uuid, name = _rp(draw), draw(st.sampled_from(CLASSES))
    body = {"resource_provider_generation": _generation(draw, oracle, uuid), **_figures(draw)}
    return Call("PUT", f"/resource_providers/{uuid}/inventories/{name}", body)


def delete_inventory(draw: st.DrawFn, oracle: Oracle) -> Call:
    return Call("DELETE", f"/resource_providers/{_rp(draw)}/inventories/{draw(st.sampled_from(CLASSES))}")


def delete_inventories(draw: st.DrawFn, oracle: Oracle) -> Call:
    return Call("DELETE", f"/resource_providers/{_rp(draw)}/inventories")


def set_traits(draw: st.DrawFn, oracle: Oracle) -> Call:
    uuid = _rp(draw)
    traits = draw(st.lists(st.sampled_from(TRAITS), max_size=2))
    body = {"resource_provider_generation": _generation(draw, oracle, uuid), "traits": traits}
    return Call("PUT", f"/resource_providers/{uuid}/traits", body)


def delete_traits(draw: st.DrawFn, oracle: Oracle) -> Call:
    return Call("DELETE", f"/resource_providers/{_rp(draw)}/traits")


def set_aggregates(draw: st.DrawFn, oracle: Oracle) -> Call:
    uuid = _rp(draw)
    aggregates = draw(st.lists(st.sampled_from(AGGREGATES), unique=True))
    body = {"resource_provider_generation": _generation(draw, oracle, uuid), "aggregates": aggregates}
    return Call("PUT", f"/resource_providers/{uuid}/aggregates", body)


def vocabulary(draw: st.DrawFn, oracle: Oracle) -> Call:
    method = draw(st.sampled_from(("PUT", "PUT", "DELETE")))
    name = draw(st.sampled_from(("/traits/CUSTOM_T", "/resource_classes/CUSTOM_A", "/resource_classes/CUSTOM_B")))
    return Call(method, name)


def set_allocations(draw: st.DrawFn, oracle: Oracle) -> Call:
    uuid = draw(st.sampled_from(CONSUMERS))
    return Call("PUT", f"/allocations/{uuid}", _consumer(draw, oracle, uuid))


def manage_allocations(draw: st.DrawFn, oracle: Oracle) -> Call:
    return Call("POST", "/allocations", _several(draw, oracle, 1))


def delete_allocations(draw: st.DrawFn, oracle: Oracle) -> Call:
    return Call("DELETE", f"/allocations/{draw(st.sampled_from(CONSUMERS))}")


def reshape(draw: st.DrawFn, oracle: Oracle) -> Call:
    uuids = draw(st.lists(st.sampled_from((*RPS, UNKNOWN)), unique=True, min_size=1, max_size=2))
    inventories = {}
    for uuid in uuids:
        kept = oracle.rps[uuid].inventories if uuid in oracle.rps and draw(st.booleans()) else {}
        inventories[uuid] = {
            "resource_provider_generation": _generation(draw, oracle, uuid),
            "inventories": {**kept, **_inventories(draw)},
        }
    return Call("POST", "/reshaper", {"inventories": inventories, "allocations": _several(draw, oracle, 0)})


KINDS = (
    *(create_provider, add_inventory, set_inventories, set_allocations, manage_allocations) * 3,
    *(update_provider, delete_provider, set_inventory, delete_inventory, delete_inventories),
    *(set_traits, delete_traits, set_aggregates, vocabulary, delete_allocations, reshape, reshape),
)


def views(oracle: Oracle) -> list[Call]:
    """Everything there is to see."""
    calls = [Call("GET", "/resource_providers")]
    for uuid in (*RPS, UNKNOWN):
        calls += [
            Call("GET", f"/resource_providers/{uuid}{part}")
            for part in ("", "/inventories", "/usages", "/traits", "/aggregates", "/allocations")
        ]
    return calls + [Call("GET", f"/allocations/{uuid}") for uuid in CONSUMERS]


def usages_path(project: str) -> str:
    """Where the usages of a project are."""
    return f"/usages?{urlencode({'project_id': project})}"


def comparable(status: int, body: Any) -> Any:
    """What counts of an answer: the error code, or the body without links and order."""
    if status >= 400:
        return (status, body["errors"][0]["code"])
    if body is None:
        return (status, None)
    if "resource_providers" in body:
        return (status, sorted((_plain(one) for one in body["resource_providers"]), key=lambda one: one["uuid"]))
    return (status, _plain(body))


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in body.items() if key != "links"}
    for key in ("traits", "aggregates"):
        if key in plain:
            plain[key] = sorted(plain[key])
    return plain
