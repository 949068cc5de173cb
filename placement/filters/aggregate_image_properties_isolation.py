"""Whether a host's aggregates admit an image's properties. Source: Nova 33 AggregateImagePropertiesIsolation."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types import image_properties as image_meta
from ..types.host import HostState
from ..types.request import Request
from .aggregate_metadata import listed_values, shown
from .base import Filter


class AggregateImagePropertiesIsolation(Filter):
    """Passes a host unless an aggregate's metadata names an image property that the image has with another value.

    Metadata that is not an image property known to Nova is ignored. With a namespace configured only keys that start
    with the namespace and the separator count; the key, prefix included, is the property's name.
    """

    name: ClassVar[str] = "AggregateImagePropertiesIsolation"
    once_per_request: ClassVar[bool] = True
    runs_on_rebuild: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        return bool(self._properties(request))

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"aggregates"})

    def key(self, request: Request) -> Hashable:
        return tuple(sorted(self._properties(request).items()))

    def host_passes(self, host: HostState, request: Request) -> bool:
        return self._first_conflict(host, request) is None

    def reason(self, host: HostState, request: Request) -> str:
        name = self._first_conflict(host, request)
        if name is None:
            return super().reason(host, request)
        admitted = shown(listed_values(host)[name])
        return f"aggregate metadata {name}={admitted} does not admit the image's {self._properties(request)[name]!r}"

    def _first_conflict(self, host: HostState, request: Request) -> str | None:
        admitted = listed_values(host)
        asked = self._properties(request)
        return next((name for name, value in asked.items() if value not in admitted.get(name, {value})), None)

    def _properties(self, request: Request) -> dict[str, str]:
        """The image's properties that aggregates may restrict, as text. Empty values, 0 and False restrict nothing."""
        known = image_meta.canonical(request.image_properties)
        return {name: str(value) for name, value in known.items() if value and name.startswith(self._prefix())}

    def _prefix(self) -> str:
        options = self.options.filter_scheduler
        namespace = options.aggregate_image_properties_isolation_namespace
        return f"{namespace}{options.aggregate_image_properties_isolation_separator}" if namespace else ""
