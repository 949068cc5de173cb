"""Whether a host can run an image: architecture, hypervisor, VM mode. Source: Nova 33 ImagePropertiesFilter."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from ..types import image_properties as image_meta
from ..types.cached_texts import cached_texts
from ..types.errors import InvalidValue
from ..types.host import HostState
from ..types.request import Request
from .base import Filter

_Version = tuple[int, ...]  # without trailing zeros, so that 8.2 equals 8.2.0

_PREDICATE = re.compile(r"\s*(<=|>=|<|>|==|!=)\s*(\d+(?:\.\d+)*)\s*", re.ASCII)
_HOLDS: dict[str, Callable[[_Version, _Version], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
_VERSION_BASE = 1000  # 8002000 is 8.2.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What an image asks of a host. ``kinds``: the wanted of architecture, hypervisor type and VM mode."""

    kinds: tuple[str, ...]
    version: str | None  # a predicate like ">=6.2,<9"; only together with kinds
    address_bits: int | None


class ImagePropertiesFilter(Filter):
    """Passes a host that has a row of ``supported_instances`` with all of ``hw_architecture`` (default:
    ``image_properties_default_architecture``), ``img_hv_type`` and ``hw_vm_mode`` that are given.

    Where one of them is given, the hypervisor's version must also satisfy ``img_hv_requested_version``; alone that
    property means nothing.

    Nova 33 fails on ``hw_maxphysaddr_bits``, as it takes the text ``cpu_info`` for an object; here the host's
    ``cpu_info.maxphysaddr.bits`` must be at least as many, as for the extra spec of that name.
    """

    name: ClassVar[str] = "ImagePropertiesFilter"
    once_per_request: ClassVar[bool] = True
    runs_on_rebuild: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        wanted = self._wanted(request)
        return bool(wanted.kinds) or wanted.address_bits is not None

    def fields(self, request: Request) -> frozenset[str]:
        wanted = self._wanted(request)
        needed = {
            "supported_instances": bool(wanted.kinds),
            "hypervisor_version": wanted.version is not None,
            "cpu_info": wanted.address_bits is not None,
        }
        return frozenset(field for field, is_needed in needed.items() if is_needed)

    def key(self, request: Request) -> Hashable:
        return self._wanted(request)

    def host_passes(self, host: HostState, request: Request) -> bool:
        return self._failure(host, request) is None

    def reason(self, host: HostState, request: Request) -> str:
        return self._failure(host, request) or super().reason(host, request)

    def nova_error(self, host: HostState, request: Request) -> str | None:
        """The exception that Nova 33 raises when it judges ``host``."""
        return None if self._wanted(request).address_bits is None else "AttributeError"

    def _failure(self, host: HostState, request: Request) -> str | None:
        wanted = self._wanted(request)
        if not _supports(host, wanted.kinds):
            return f"no supported instance type has {' '.join(wanted.kinds)}"
        if wanted.version is not None and not _satisfies(host.hypervisor_version, wanted.version):
            return f"hypervisor version {_dotted(host.hypervisor_version or 0)} does not satisfy {wanted.version!r}"
        if wanted.address_bits is not None and not _has_address_bits(host.cpu_info, wanted.address_bits):
            return f"the CPU is not known to have {wanted.address_bits} physical address bits"
        return None

    def _wanted(self, request: Request) -> _Wanted:
        properties = image_meta.canonical(request.image_properties)
        kinds = (self._architecture(properties), properties.get("img_hv_type"), properties.get("hw_vm_mode"))
        given = tuple(kind for kind in kinds if kind)
        version = properties.get("img_hv_requested_version") if given else None
        return _Wanted(given, str(version) if version else None, _bits(properties))

    def _architecture(self, properties: Mapping[str, Any]) -> str | None:
        default = self.options.filter_scheduler.image_properties_default_architecture
        architecture: str | None = properties.get("hw_architecture", default)
        return image_meta.architecture(architecture) if architecture else None


def _supports(host: HostState, kinds: tuple[str, ...]) -> bool:
    return not kinds or any(all(kind in row for kind in kinds) for row in host.supported_instances)


def _satisfies(version: int | None, predicate: str) -> bool:
    """Whether a hypervisor's version satisfies a list like ">=6.2,<9"; an unknown version does."""
    conditions = _conditions(predicate)
    return not version or all(_HOLDS[sign](_number(_dotted(version)), wanted) for sign, wanted in conditions)


@cached_texts(1024)
def _conditions(predicate: str) -> tuple[tuple[str, _Version], ...]:
    matches = [_PREDICATE.fullmatch(part) for part in predicate.split(",")]
    conditions = tuple((match[1], _number(match[2])) for match in matches if match is not None)
    if len(conditions) < len(matches):
        raise InvalidValue(
            f"image property img_hv_requested_version is not a version predicate: {predicate[:200]!r}",
            field="img_hv_requested_version",
            hint="like >=6.2,<9",
        )
    return conditions


def _number(dotted: str) -> _Version:
    parts = [int(part) for part in dotted.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _dotted(version: int) -> str:
    """A version that a hypervisor reports as one number, as people write it."""
    parts = [str(version % _VERSION_BASE)]
    while version >= _VERSION_BASE:
        version //= _VERSION_BASE
        parts.append(str(version % _VERSION_BASE))
    return ".".join(reversed(parts))


def _bits(properties: Mapping[str, Any]) -> int | None:
    bits = properties.get("hw_maxphysaddr_bits")
    if bits is not None and not isinstance(bits, int):
        raise InvalidValue(
            f"image property hw_maxphysaddr_bits is not a number: {str(bits)[:200]!r}", field="hw_maxphysaddr_bits"
        )
    return bits


@lru_cache(maxsize=4096)
def _has_address_bits(cpu_info: str | None, wanted: int) -> bool:
    try:
        bits = json.loads(cpu_info or "null")["maxphysaddr"]["bits"]
        return int(bits) >= wanted
    except (LookupError, RecursionError, TypeError, ValueError):
        return False
