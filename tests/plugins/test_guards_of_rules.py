"""Guards of rules of others: whatever Hostler reads of a rule, however the rule has it, and what is left as it is."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from hostler import Engine, Flavor, Fleet, Host, Policy, Request, RequestSpec, add_hosts
from hostler.placement.decide.signature_cache import _spec_only
from hostler.placement.filters.base import Filter
from hostler.placement.types.errors import RuleFailed
from hostler.placement.types.guarded import made

REQUEST = Request(spec=RequestSpec(flavor=Flavor(name="m", vcpus=1, memory_mb=1)))


class NoDatabase(RuntimeError):
    def __str__(self) -> str:
        raise ValueError


class Fine(Filter):
    name: ClassVar[str] = "Fine"
    limit: int = 1

    def fields(self, request: Request) -> Any:
        return frozenset({"host"})

    def host_passes(self, host: Any, request: Any) -> Any:
        return self.limit > 1

    @property
    def table(self) -> dict[str, int]:
        return {"a": 1}

    def found(self, name: str) -> int:
        return self.table[name]


class Static(Fine):
    @staticmethod
    def host_passes(host: Any, request: Any) -> bool:
        raise NoDatabase


class OfClass(Fine):
    @classmethod
    def key(cls, request: Request) -> Any:
        raise NoDatabase


class Partly(Fine):
    def _passes(self, number: int, host: Any, request: Any) -> bool:
        raise NoDatabase

    host_passes = functools.partialmethod(_passes, 1)


class _Called:
    def __call__(self, host: Any, request: Any) -> bool:
        raise NoDatabase


class ByObject(Fine):
    host_passes = _Called()


class OfItself(Fine):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.host_passes = _Called()  # type: ignore[method-assign]  # called as the class's


class _Unsure:
    def __bool__(self) -> bool:
        raise NoDatabase

    def __hash__(self) -> int:
        raise NoDatabase


class NoBool(Fine):
    def host_passes(self, host: Any, request: Any) -> Any:
        return _Unsure()


class NoHash(Fine):
    def key(self, request: Request) -> Any:
        return _Unsure()


class Generates(Fine):
    def fields(self, request: Request) -> Iterator[str]:  # type: ignore[override]  # read as the base's
        yield "host"
        raise NoDatabase


def policy(rule: type[Filter]) -> Policy:
    path = f"{__name__}.{rule.__name__}"
    available = ["nova.scheduler.filters.all_filters", path]
    return Policy.from_mapping({"filter_scheduler": {"available_filters": available, "enabled_filters": ["Fine"]}})


def engine(rule: type[Filter]) -> Engine:
    fleet = Fleet()
    add_hosts(fleet, [Host(host=name, vcpus_total=4, total_usable_ram_mb=4_096) for name in "ab"])
    return Engine(fleet, policy(rule))


@pytest.mark.parametrize("rule", [Static, OfClass, Partly, ByObject, OfItself, NoBool, NoHash, Generates])
def test_what_a_rule_is_made_of_raises_by_its_name(rule: type[Filter]) -> None:
    with pytest.raises(RuleFailed, match="Fine"):
        engine(rule).place(REQUEST)


class Late(Fine):
    seen: ClassVar[list[str]] = []

    @property
    def once_per_request(self) -> bool:  # type: ignore[override]  # a property in place of a value
        self.seen.append("once")
        raise NoDatabase

    def reason(self, host: Any, request: Request) -> str:
        try:
            return str(self.found("none"))
        except KeyError:
            return "it is not in the table"


def test_properties_are_read_when_they_are_needed() -> None:
    (rule,) = policy(Late).filters
    assert not Late.seen
    with pytest.raises(RuleFailed, match=r"Fine\.once_per_request"):
        _ = rule.once_per_request
    assert Late.seen == ["once"]


def test_a_rule_catches_what_its_own_members_raise() -> None:
    (rule,) = policy(Late).filters
    assert rule.reason(None, REQUEST) == "it is not in the table"  # type: ignore[arg-type]  # it reads no host


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_program_is_not_a_rules_failure(error: type[BaseException], monkeypatch: Any) -> None:
    def ends(*given: Any) -> bool:
        raise error

    monkeypatch.setattr(Fine, "host_passes", ends)
    with pytest.raises(error):
        engine(Fine).place(REQUEST)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda rule: pickle.loads(pickle.dumps(rule))])
def test_copies_of_rules_are_rules_of_their_own(again: Any) -> None:
    (rule,) = policy(Fine).filters
    other = again(rule)
    other.limit = 2
    assert (rule.host_passes(None, REQUEST), other.host_passes(None, REQUEST)) == (False, True)  # type: ignore[arg-type]
    other.limit = None
    with pytest.raises(RuleFailed):
        other.host_passes(None, REQUEST)


def test_a_guarded_rule_is_freed_at_once() -> None:
    gc.disable()
    try:
        rule = made(Fine, None, "filters")
        there = weakref.ref(rule)
        del rule
        assert there() is None
    finally:
        gc.enable()


class KeyedBySpec(Fine):
    spec_only: ClassVar[bool] = True

    def key(self, request: Request) -> Any:
        return request.spec


def test_a_guarded_class_says_what_its_own_says() -> None:
    (rule,) = policy(KeyedBySpec).filters
    assert _spec_only(type(rule))
    assert (type(rule).__module__, type(rule).__qualname__) == (__name__, "KeyedBySpec")


class Counted(Fine):
    """A class that its plug-in registers, and that demands an argument of classes derived from it."""

    derived: ClassVar[list[str]] = []

    def __init_subclass__(cls, *, tag: str, **more: Any) -> None:
        super().__init_subclass__(**more)
        Counted.derived.append(tag)


class Tagged(Counted, tag="tagged"):
    pass


def test_a_guard_is_registered_by_no_plug_in() -> None:
    for _ in range(3):
        rule = made(Tagged, None, "enabled_filters")
        assert isinstance(rule, Tagged)
    assert Counted.derived == ["tagged"]
