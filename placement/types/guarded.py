"""Rules of others, made so that whatever they raise is a HostlerError that names the rule: they may fail in any way. It
knows no filters or weighers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from .errors import HostlerError, RuleFailed

Rule = TypeVar("Rule")
_OWN: Final = __name__.partition(".")[0]


def made(
    kind: type[Rule],
    options: object,
    field: str,
    passing: Mapping[str, tuple[type[Exception], ...]] = {},
) -> Rule:
    """A rule of a policy's option ``field``. RuleFailed if its class cannot be instantiated, as from then on for
    each of its methods that Hostler does not define itself; ``passing``: exceptions of methods that are let through,
    as they have a meaning. O(methods)."""
    try:
        rule = kind(options)  # type: ignore[call-arg]  # a rule takes the policy's options
    except (HostlerError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        problem = f"{field}: {_name(kind)} cannot be instantiated ({reason})"
        raise RuleFailed(problem[:500], field=field) from error
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        if name.startswith("__") or not _is_of_others(kind, name):
            continue
        if isinstance(method, property):
            _guarded(_name(kind), name, method.fget or len, ())(rule)  # it cannot be guarded later
        elif inspect.isfunction(method):
            guard = _guarded(_name(kind), name, getattr(rule, name), passing.get(name, ()))
            try:
                object.__setattr__(rule, name, guard)
            except AttributeError:
                break  # a class with __slots__
    return rule


def failed(rule: str, what: str, error: Exception) -> RuleFailed:
    """The error of a rule of others."""
    return RuleFailed(f"{rule}.{what} failed: {type(error).__name__}: {error}"[:500], field=rule)


def _name(kind: type[Any]) -> str:
    given = getattr(kind, "name", None)
    return given if isinstance(given, str) else kind.__qualname__


def _is_of_others(kind: type[Any], name: str) -> bool:
    """Whether a method is defined by a class that is not Hostler's."""
    defines = next(each for each in kind.__mro__ if name in vars(each))
    return defines.__module__.partition(".")[0] != _OWN


def _guarded(
    rule: str, name: str, method: Callable[..., Any], passing: tuple[type[Exception], ...]
) -> Callable[..., Any]:
    kept: tuple[type[Exception], ...] = (HostlerError, MemoryError, *passing)

    @functools.wraps(method)
    def guard(*given: Any, **named: Any) -> Any:
        try:
            return method(*given, **named)
        except kept:
            raise
        except Exception as error:
            raise failed(rule, name, error) from error

    return guard


__all__ = ["failed", "made"]
