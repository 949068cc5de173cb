"""Runs filters and weighers that were written for Cinder, unchanged, on pools.

A filter is a class without constructor arguments that has ``backend_passes(backend_state, filter_properties)`` (or the
older ``host_passes``), a weigher one with ``_weigh_object(backend_state, weight_properties)`` and maybe
``weight_multiplier()``. They receive the attributes of Cinder's pool state and its dictionary of filter properties, to
be read only; there is no ``context``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...types.errors import LONGEST, HostlerError, InvalidValue, RuleFailed, said
from ...types.guarded import check_judges_singly, failed
from ...types.limits import MAX_RAW
from .filter_properties import FilterProperties
from .filters.base import ERRORS, REQUEST, PoolFilter
from .view import attribute, attribute_names
from .weighers.base import Draw, PoolWeigher, Rows, Weights

if TYPE_CHECKING:
    from .options import StorageOptions
    from .pools import Pools


class BackendState:
    """One pool under the attributes of Cinder's PoolState; AttributeError for others."""

    __slots__ = ("_pools", "_row")

    def __init__(self, pools: Pools, row: int) -> None:
        self._pools, self._row = pools, row

    def __getattr__(self, name: str) -> Any:
        if name not in attribute_names():
            raise AttributeError(f"a pool has no attribute {name!r}")
        return attribute(self._pools, self._row, name)


def properties_of(asked: FilterProperties) -> dict[str, Any]:
    """The request as Cinder 29 passes it to filters and weighers. O(size)."""
    spec = asked.spec
    known = spec.volume_type
    named = {} if known is None else {"name": known.name, "id": known.id}
    kind = {**named, "extra_specs": dict(asked.type_specs)} if named or asked.type_specs else {}
    retry = asked.retry
    found = {
        "request_spec": {
            "volume_properties": dict(asked.properties),
            "volume_type": kind,
            "availability_zones": list(spec.availability_zones) or None,
            "operation": asked.operation,
            "resource_properties": dict(asked.properties),
        },
        "size": spec.size_gb,
        "volume_type": kind,
        "resource_type": kind,
        "qos_specs": None if spec.qos_specs is None else dict(spec.qos_specs),
        "availability_zone": spec.availability_zone,
        "metadata": dict(spec.metadata),
        "user_id": asked.user_id,
        "scheduler_hints": dict(spec.scheduler_hints),
        "context": None,
    }
    if asked.operation == "extend_volume":
        found["new_size"] = spec.size_gb + asked.requested_gb
    if asked.exists_on is not None:
        found["vol_exists_on"] = asked.exists_on
    if retry is not None:
        found["retry"] = {"num_attempts": retry.num_attempts, "backends": list(retry.tried), "hosts": list(retry.hosts)}
    return found


def _failed(name: str, error: Exception) -> RuleFailed:
    return RuleFailed(f"the rule {name} of the policy raised {said(error)}"[:LONGEST], field="storage")


class CinderFilterAdapter(PoolFilter):
    """Base of adapted filters; ``CinderFilterAdapter.of(cinder_class)`` makes one. ``ERRORS`` that the class raises
    refuse the pool, any other exception the request."""

    reads: ClassVar[str] = REQUEST
    cinder_class: ClassVar[type[Any]]

    @classmethod
    def of(cls, cinder_class: type[Any]) -> type[PoolFilter]:
        """A filter class with the name and behaviour of ``cinder_class``. InvalidValue if that is no filter."""
        if not any(callable(getattr(cinder_class, name, None)) for name in ("backend_passes", "host_passes")):
            problem = f"{cinder_class!r} is not a Cinder filter: it has no method backend_passes"
            raise InvalidValue(problem, field="storage.scheduler_default_filters")
        check_judges_singly(cinder_class, "BaseFilter", "filter_all")
        return type(cinder_class.__name__, (cls,), {"name": cinder_class.__name__, "cinder_class": cinder_class})

    def __init__(self, options: StorageOptions) -> None:
        super().__init__(options)
        rule = self.cinder_class()
        # Cinder 29 BaseBackendFilter: the older method goes first where a class has it.
        one = getattr(rule, "host_passes", None) or rule.backend_passes
        self._passes = getattr(rule, "_filter_one", one)

    def pool_passes(self, pools: Pools, filter_properties: FilterProperties, row: int) -> bool:
        try:
            return bool(self._passes(BackendState(pools, row), properties_of(filter_properties)))
        except (HostlerError, MemoryError, *ERRORS):
            raise
        except Exception as error:
            raise _failed(self.name, error) from error

    def why(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str:
        return f"is refused by {self.name}"


class CinderWeigherAdapter(PoolWeigher):
    """Base of adapted weighers; ``CinderWeigherAdapter.of(cinder_class)`` makes one. A pool for which the class raises
    one of ``ERRORS``, or gives no number, is refused."""

    refuses: ClassVar[bool] = True
    cinder_class: ClassVar[type[Any]]

    @classmethod
    def of(cls, cinder_class: type[Any]) -> type[PoolWeigher]:
        """A weigher class with the name and behaviour of ``cinder_class``. InvalidValue if that is no weigher."""
        if not callable(getattr(cinder_class, "_weigh_object", None)):
            problem = f"{cinder_class!r} is not a Cinder weigher: it has no method _weigh_object"
            raise InvalidValue(problem, field="storage.scheduler_default_weighers")
        check_judges_singly(cinder_class, "BaseWeigher", "weigh_objects")
        for bound in ("minval", "maxval"):
            if getattr(cinder_class, bound, None) is not None:
                problem = f"{cinder_class.__name__} sets {bound}, which is not supported"
                raise InvalidValue(problem, field="storage.scheduler_default_weighers")
        return type(cinder_class.__name__, (cls,), {"name": cinder_class.__name__, "cinder_class": cinder_class})

    def __init__(self, options: StorageOptions) -> None:
        super().__init__(options)
        self._rule = self.cinder_class()

    @property
    def multiplier(self) -> float:
        given = getattr(self._rule, "weight_multiplier", None)
        try:
            number = 1.0 if given is None else float(given())
        except (HostlerError, MemoryError):
            raise
        except Exception as error:
            raise failed(self.name, "weight_multiplier", error) from error
        if abs(number) <= MAX_RAW:
            return number
        problem = f"{self.name}.weight_multiplier returned {number!r}, which is not a finite number"
        raise InvalidValue(problem, field=self.name)

    def raw(self, pools: Pools, filter_properties: FilterProperties, rows: Rows, draw: Draw) -> Weights:
        properties = properties_of(filter_properties)
        return np.array([self._weigh(pools, properties, row)[0] for row in rows.tolist()], np.float64)

    def _weigh(self, pools: Pools, properties: dict[str, Any], row: int) -> tuple[float, str | None]:
        """(weight, None), or (NaN, why there is none)."""
        try:
            weight = float(self._rule._weigh_object(BackendState(pools, row), properties))
        except (HostlerError, MemoryError):
            raise
        except ERRORS as error:
            return np.nan, f"{self.name} cannot weigh it: {str(error) or type(error).__name__:.120}"
        except Exception as error:
            raise _failed(self.name, error) from error
        return (weight, None) if abs(weight) <= MAX_RAW else (np.nan, f"{self.name} gives it no finite number")

    def refusal(self, pools: Pools, filter_properties: FilterProperties, row: int) -> str | None:
        return self._weigh(pools, properties_of(filter_properties), row)[1]
