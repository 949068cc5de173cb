"""Runs a third-party Nova weigher, unchanged, as a Hostler weigher in host form.

Such a weigher is a class without constructor arguments that has ``_weigh_object(host_state, request_spec)`` and maybe
Nova's ``weight_multiplier(host_state)``, ``minval`` and ``maxval``. It receives read-only objects with the attributes
of Nova's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..filters.adapter import NovaHostState, calling, nova_request_spec, time_of
from ..filters.host_attributes import FIELDS
from ..types.errors import InvalidValue
from ..types.guarded import check_judges_singly
from ..types.host import Host, HostState
from ..types.request import Request
from .base import Weigher

if TYPE_CHECKING:
    from ..types.options import Options

_NO_HOST: Final = Host(host="", vcpus_total=0, total_usable_ram_mb=0)


class NovaWeigherAdapter(Weigher):
    """Base of adapted weighers; ``NovaWeigherAdapter.of(nova_class)`` makes one that can be registered like any other.

    The raw value counts as depending on every host field, the multiplier on the host's aggregates.
    """

    option: ClassVar[str] = ""
    nova_class: ClassVar[type[Any]]
    stands_for: ClassVar[frozenset[str]] = frozenset()
    """Names of the Nova rules that the class derives from: what these judge is judged."""

    @classmethod
    def of(cls, nova_class: type[Any]) -> type[NovaWeigherAdapter]:
        """A weigher class with the name and behaviour of ``nova_class``. Raises InvalidValue if that is not a Nova
        weigher."""
        if not callable(getattr(nova_class, "_weigh_object", None)):
            raise InvalidValue(
                f"{nova_class!r} is not a Nova weigher: it has no method _weigh_object", field="nova_weighers"
            )
        check_judges_singly(nova_class, "BaseWeigher", "weigh_objects")
        attributes = {
            "__doc__": nova_class.__doc__,
            "name": nova_class.__name__,
            "minval": getattr(nova_class, "minval", None),
            "maxval": getattr(nova_class, "maxval", None),
            "nova_class": nova_class,
            "stands_for": frozenset(each.__name__ for each in nova_class.__mro__ if each is not object),
        }
        return type(nova_class.__name__, (cls,), attributes)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._nova_weigher = self.nova_class()

    def configured(self) -> float:
        """What the Nova class answers for a host in no aggregate; 1.0 (Nova's default) if it has no such method."""
        return self.host_multiplier(_NO_HOST)

    def host_multiplier(self, host: HostState) -> float:
        """What the Nova class answers. Raises InvalidValue if that is no finite number."""
        method = getattr(self._nova_weigher, "weight_multiplier", None)
        if method is None:
            return 1.0
        with calling(self.name, "", None):
            answer = method(NovaHostState(host))
        return self._number("weight_multiplier", answer)

    def fields(self, request: Request) -> frozenset[str]:
        return FIELDS

    def key(self, request: Request) -> Hashable:
        return request

    def raw(self, host: HostState, request: Request) -> float:
        """What the Nova class answers. Raises InvalidValue if that is no finite number."""
        with calling(self.name, host.host, time_of(host, request)):
            answer = self._nova_weigher._weigh_object(NovaHostState(host), nova_request_spec(request, host))
        return self._number("_weigh_object", answer)

    def _number(self, method: str, answer: object) -> float:
        if isinstance(answer, int | float) and math.isfinite(answer):
            return float(answer)
        raise InvalidValue(f"{self.name}.{method} returned {answer!r}, which is not a finite number", field=self.name)
