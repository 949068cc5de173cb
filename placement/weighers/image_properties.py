"""Images that a host already runs. Source: Nova 33 ImagePropertiesWeigher.

raw = sum over the properties of the request's image of (instances on the host whose image has the same value) * ratio;
ratio = 1 for all, or image_props_weight_setting's ratio of the property (0 if not named); raw = 0 if the configured
image_props_weight_multiplier (0.0) is 0
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from ..types.host import HostState
from ..types.image_properties import canonical
from ..types.request import Request
from .base import Weigher


class ImagePropertiesWeigher(Weigher):
    """Packs instances of similar images together; a negative multiplier spreads them."""

    name: ClassVar[str] = "ImagePropertiesWeigher"
    option: ClassVar[str] = "image_props_weight_multiplier"

    def applies(self, request: Request) -> bool:
        return bool(self._wanted(request))

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"instances"})

    def key(self, request: Request) -> Hashable:
        return tuple(self._wanted(request).items())

    def raw(self, host: HostState, request: Request) -> float:
        """O(instances on the host * properties)."""
        wanted = self._wanted(request)
        counts = _count(wanted, host.instances) if wanted else {}
        total = 0.0
        for name, count in counts.items():
            total += count * self._ratio(name)
        return total

    def describe(self, host: HostState, request: Request, best: float | None = None) -> str:
        counts = _count(self._wanted(request), host.instances)
        terms = [f"{count} with {name} * {self._ratio(name):.15g}" for name, count in counts.items()]
        text = f"instances of alike images {self.raw(host, request):.15g} ({', '.join(terms) or 'none are weighed'})"
        return text if best is None else f"{text} of best {best:.15g}"

    def _ratio(self, name: str) -> float:
        setting = self.options.filter_scheduler.image_props_weight_setting
        return setting.get(name, 0.0) if setting else 1.0

    def _wanted(self, request: Request) -> dict[str, str]:
        return {} if self.configured() == 0.0 else _words(request.image_properties)


def _words(properties: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in canonical(properties).items()}


def _count(wanted: Mapping[str, str], instances: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Property -> how many instances have the wanted value of it."""
    found = [_words(properties) for properties in instances.values()]
    return {name: sum(words.get(name) == value for words in found) for name, value in wanted.items()}
