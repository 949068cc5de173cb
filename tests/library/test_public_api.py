"""The public API is closed: whatever it takes or gives can be imported from ``hostler``."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import hostler
from hostler.core.rpc.methods import METHODS

PACKAGE = "hostler."


def members(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class, as functions, and its constructor."""
    for name in dir(kind):
        if name.startswith("_") and name != "__init__":
            continue
        found = inspect.getattr_static(kind, name)
        if isinstance(found, (staticmethod, classmethod)):
            found = found.__func__
        if isinstance(found, property):
            found = found.fget
        if inspect.isfunction(found) and found.__module__.startswith(PACKAGE):
            yield name, found


def named_in(annotation: Any) -> Iterator[type[Any]]:
    """Hostler's classes in an annotation."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if annotation.__module__.startswith(PACKAGE):
            yield annotation
        return
    for part in typing.get_args(annotation):
        if isinstance(part, list):
            for each in part:
                yield from named_in(each)
        else:
            yield from named_in(part)


def hints(subject: Any) -> dict[str, Any]:
    """Annotations with every name resolved, those for type checkers alone included."""
    names: dict[str, Any] = dict(vars(typing)) | dict(vars(collections.abc))
    for name, module in sorted(sys.modules.items()):
        if name.startswith(PACKAGE):
            names |= {each: value for each, value in vars(module).items() if isinstance(value, type)}
    names |= vars(importlib.import_module(subject.__module__))
    return typing.get_type_hints(subject, globalns=names)


INTERNAL = {
    "Decisions.__init__",
    "VolumeDecisions.__init__",
    "Fleet.numa",
    "Pools.charging",
    "Pools.__init__",
    "Ranked.__init__",
    "AsyncioScheduler.__init__",
    "Scheduler.__init__",
    "Ranked.scan",
    "Ranked.signature",
}
"""What public classes have for Hostler's own packages, and say so."""


def missing() -> dict[str, str]:
    public = {id(getattr(hostler, name)): name for name in hostler.__all__}
    found: dict[str, str] = {}
    for name in hostler.__all__:
        value = getattr(hostler, name)
        subjects: list[tuple[str, Any]] = []
        if inspect.isfunction(value):
            subjects = [("", value)]
        elif isinstance(value, type):
            subjects = list(members(value))
            subjects.append(("", value))
        for part, subject in subjects:
            for argument, annotation in hints(subject).items():
                if argument.startswith("_"):
                    continue
                where = f"{name}.{part or argument}"
                for kind in named_in(annotation) if where not in INTERNAL else ():
                    if id(kind) not in public and not kind.__name__.startswith("_"):
                        found[f"{kind.__module__}.{kind.__qualname__}"] = where
    return found


def test_every_type_that_the_public_api_names_is_public() -> None:
    assert missing() == {}


def test_every_type_that_a_method_of_the_service_answers_with_is_public() -> None:
    public = {id(getattr(hostler, name)) for name in hostler.__all__}
    waiting, seen = [(name, method.result) for name, method in METHODS.items()], set[type[Any]]()
    while waiting:
        where, annotation = waiting.pop()
        for kind in set(named_in(annotation)) - seen:
            seen.add(kind)
            assert id(kind) in public, f"{where}: {kind}"
            waiting += [(kind.__name__, each) for each in hints(kind).values()]
    assert len(seen) > 50


@pytest.mark.parametrize("name", [name for name in hostler.__all__ if isinstance(getattr(hostler, name), type)])
def test_a_public_class_has_a_docstring_and_is_imported_under_its_own_name(name: str) -> None:
    kind = getattr(hostler, name)
    assert kind.__doc__
    assert name.endswith(kind.__name__)


def test_objects_say_what_they_are() -> None:
    fleet = hostler.Fleet()
    hostler.add_hosts(fleet, [hostler.Host(host="h", vcpus_total=4, total_usable_ram_mb=4096)])
    engine = hostler.Engine(fleet, seed=3)
    request = hostler.Request(spec=hostler.RequestSpec(flavor=hostler.Flavor(name="f", vcpus=1, memory_mb=512)))
    assert "1 hosts" in repr(fleet)
    assert "seed 3" in repr(engine)
    assert repr(engine.place_many([request])) == "<Decisions on 1 requests, 1 placed>"
    assert "1 hosts" in repr(hostler.VolumeEngine(fleet))
    assert "1 hosts" in repr(hostler.PlacementModel(fleet))
    for value in (fleet, engine, engine.policy, engine.policy.filters[0], engine.rank(request), fleet.pools):
        assert " object at 0x" not in repr(value)


def test_a_refused_decision_is_false() -> None:
    engine = hostler.Engine()
    request = hostler.Request(spec=hostler.RequestSpec(flavor=hostler.Flavor(name="f", vcpus=1, memory_mb=512)))
    assert not engine.place(request)
    hostler.add_hosts(engine.fleet, [hostler.Host(host="h", vcpus_total=4, total_usable_ram_mb=4096)])
    assert engine.place(request)


def test_a_column_that_is_none_is_an_unknown_name() -> None:
    with pytest.raises(hostler.UnknownName, match="fre_ram_mb") as caught:
        hostler.Fleet().column("fre_ram_mb")
    assert "free_ram_mb" in str(caught.value.hint)


def test_internals_start_with_an_underscore() -> None:
    """What the engine's own packages alone use is no attribute that a caller finds."""
    internal = {
        "aggregate_table",
        "context",
        "drift_of",
        "entered",
        "fits_row",
        "heads",
        "index",
        "placed",
        "reclaim",
        "registry",
        "rewind",
        "set_present",
        "state",
        "trees",
    }
    fleet = hostler.Fleet()
    for public in (fleet, hostler.Engine(fleet), hostler.VolumeEngine(fleet), hostler.PlacementModel(fleet)):
        assert not internal & set(dir(public))


def test_every_public_class_has_a_repr_of_its_own() -> None:
    """Except protocols, of which there are no objects."""
    kinds = [getattr(hostler, name) for name in hostler.__all__]
    plain = {
        kind.__name__
        for kind in kinds
        if isinstance(kind, type) and not any("__repr__" in vars(base) for base in kind.__mro__[:-1])
    }
    assert plain <= {"Admission", "Goal", "HostState"}
    assert repr(hostler.BlockingClient("unix:/x", token="hst_secret")) == "<BlockingClient of unix:/x>"
