"""Rules of others, made so that whatever they raise is a HostlerError that names the rule: they may fail in any way. It
knows no filters or weighers.

Guarded are the names that Hostler's own classes define, for these alone does it read: a rule's other members are called
by the rule, which may catch what they raise."""

from __future__ import annotations

import functools
import inspect
from abc import ABCMeta
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

from .errors import LONGEST, HostlerError, InvalidValue, RuleFailed, said

Rule = TypeVar("Rule")
Passing = Mapping[str, tuple[type[Exception], ...]]
Read = Callable[[Any], Any]
_OWN: Final = __name__.partition(".")[0]
_NOTHING: Final[Passing] = MappingProxyType({})


def _as_it_is(value: Any) -> Any:
    return value


def _hashable(value: Any) -> Any:
    hash(value)
    return value


_READ: Final[Mapping[str, Read]] = {
    "fields": frozenset,
    "key": _hashable,
    "applies": bool,
    "host_passes": bool,
    "pool_passes": bool,
}
"""How Hostler reads what a method returns, which may run code of others too."""


def made(kind: type[Rule], options: object, field: str, passing: Passing = _NOTHING) -> Rule:
    """A rule of a policy's option ``field``. RuleFailed if its class cannot be instantiated, as from then on for
    whatever Hostler reads of it and does not define itself, but for methods that the rule replaces later; ``passing``:
    exceptions of methods that are let through, as they have a meaning. A BaseException that is no Exception passes.
    O(members)."""
    try:
        rule = kind(options)  # type: ignore[call-arg]  # a rule takes the policy's options
    except (HostlerError, MemoryError):
        raise
    except Exception as error:
        problem = f"{field}: {_name(kind)} cannot be instantiated ({said(error)})"
        raise RuleFailed(problem[:LONGEST], field=field) from error
    own = tuple(sorted(name for name in _contract(kind) if callable(getattr(rule, "__dict__", {}).get(name))))
    return _guard(rule, passing, own)


def failed(rule: str, what: str, error: Exception) -> RuleFailed:
    """The error of a rule of others."""
    return RuleFailed(f"{rule}.{what} failed: {said(error)}"[:LONGEST], field=rule)


def check_judges_singly(kind: type[Any], base: str, method: str) -> None:
    """Raise InvalidValue for a class of Nova's or Cinder's form that judges all hosts or pools at once, by a ``method``
    other than that of their class ``base``: it would not be called."""
    owner = next((each for each in kind.__mro__ if method in vars(each)), None)
    if owner is not None and owner.__name__ != base:
        raise InvalidValue(
            f"{kind.__name__} judges all at once, by its {method}, which is not supported",
            field=kind.__name__,
            hint="a class that judges each by itself, or a set form (docs/plugins.md)",
        )


def unguarded(kind: type[Rule]) -> type[Rule]:
    """The class that a rule's class guards, or itself. O(1)."""
    found: type[Rule] = vars(kind).get("_guards", kind)
    return found


def _name(kind: type[Any]) -> str:
    given = inspect.getattr_static(kind, "name", None)
    return given if isinstance(given, str) else kind.__qualname__


def _is_own(kind: type[Any]) -> bool:
    return kind.__module__.partition(".")[0] == _OWN


def _contract(kind: type[Any]) -> dict[str, Any]:
    """Members that Hostler's classes define, as the first of them does."""
    found: dict[str, Any] = {}
    for each in filter(_is_own, kind.__mro__):
        found = {name: value for name, value in vars(each).items() if not name.startswith("__")} | found
    return found


def _reduced(rule: Any, protocol: Any) -> Any:
    """The rule as its own class is copied and pickled, and guarded again."""
    guard: Any = type(rule)
    kind: Any = unguarded(guard)
    said = kind.__reduce_ex__(rule, protocol)
    if isinstance(said, str):
        return said
    function, given, *state = said
    given = tuple(kind if each is guard else each for each in given)
    return (_restored, (function, given, *guard._guarding), *state)


def _restored(function: Callable[..., Any], given: tuple[Any, ...], passing: Passing, own: tuple[str, ...]) -> Any:
    return _guard(function(*given), passing, own)


class _Quiet:
    """Keeps `__init_subclass__` of others from being called for a guard: it may demand or count something."""

    __slots__ = ()

    def __init_subclass__(cls, **named: Any) -> None:
        """Nothing."""


def _guard(rule: Rule, passing: Passing, own: tuple[str, ...]) -> Rule:
    """The rule, of a class that guards what Hostler reads of it; ``own``: methods that only the rule itself has."""
    kind = type(rule)
    if kind is not unguarded(kind):
        return rule
    guards: dict[str, Any] = {}
    for name, defined in _contract(kind).items():
        kept = (HostlerError, MemoryError, *passing.get(name, ()))
        by = next(each for each in kind.__mro__ if name in vars(each))
        if name in own:
            guards[name] = _Own(_name(kind), name, kept)
        elif _is_own(by):
            continue
        elif inspect.isfunction(defined):
            guards[name] = _method(_name(kind), name, vars(by)[name], kept)
        elif hasattr(type(vars(by)[name]), "__get__"):
            settable = hasattr(type(vars(by)[name]), "__set__")
            guards[name] = (_Settable if settable else _Value)(_name(kind), name, kept, vars(by)[name])
    if not guards:
        return rule
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__slots__": ()}
    content = {**names, **guards, "__reduce_ex__": _reduced, "_guards": kind, "_guarding": (dict(passing), own)}
    meta: Any = type(kind)
    try:
        order = {"mro": lambda made: [made, _Quiet, *kind.__mro__]}
        quiet: Any = type.__new__(type(meta), meta.__name__, (meta,), order)
        make = (
            quiet if meta in (type, ABCMeta) else functools.partial(type.__new__, quiet)
        )  # one of others is not asked
        object.__setattr__(rule, "__class__", make(kind.__name__, (kind,), content))
    except Exception as error:
        raise failed(_name(kind), "__class__", error) from error
    return rule


def _call(rule: str, name: str, kept: tuple[type[Exception], ...], work: Callable[[], Any]) -> Any:
    try:
        return work()
    except kept:
        raise
    except Exception as error:
        raise failed(rule, name, error) from error


def _method(rule: str, name: str, found: Any, kept: tuple[type[Exception], ...]) -> Callable[..., Any]:
    """A method that calls ``found`` as a method: it may be a function, a classmethod, or any callable."""
    read = _READ.get(name, _as_it_is)
    if inspect.isfunction(found):

        @functools.wraps(found)
        def function(*given: Any, **named: Any) -> Any:
            try:
                return read(found(*given, **named))
            except kept:
                raise
            except Exception as error:
                raise failed(rule, name, error) from error

        return function

    def bound(self: Any, *given: Any, **named: Any) -> Any:
        def work() -> Any:
            bind = getattr(type(found), "__get__", None)
            return read((found if bind is None else bind(found, self, type(self)))(*given, **named))

        return _call(rule, name, kept, work)

    return bound


class _Value:
    """A guarded property, or another descriptor whose value the rule may replace by one of its own."""

    def __init__(self, rule: str, name: str, kept: tuple[type[Exception], ...], found: Any = None) -> None:
        self._rule, self._name, self._kept, self._found = rule, name, kept, found

    def __get__(self, rule: Any, kind: Any = None) -> Any:
        if rule is None:
            return self
        return _call(self._rule, self._name, self._kept, lambda: self._found.__get__(rule, type(rule)))


class _Settable(_Value):
    """One that takes what the rule is to have."""

    def __set__(self, rule: Any, value: Any) -> None:
        self._found.__set__(rule, value)

    def __delete__(self, rule: Any) -> None:
        self._found.__delete__(rule)


class _Own(_Value):
    """A method that a rule has made for itself, in place of that of its class."""

    def __get__(self, rule: Any, kind: Any = None) -> Any:
        if rule is None:
            return self
        return _method(self._rule, self._name, _Plain(vars(rule)[self._name]), self._kept).__get__(rule)

    def __set__(self, rule: Any, value: Any) -> None:
        vars(rule)[self._name] = value

    def __delete__(self, rule: Any) -> None:
        raise AttributeError(f"{self._name} of {self._rule} is guarded, it cannot be taken away")


class _Plain:
    """A callable that is called without the rule."""

    def __init__(self, found: Callable[..., Any]) -> None:
        self.found = found

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.found(*given, **named)


__all__ = ["check_judges_singly", "failed", "made", "unguarded"]
