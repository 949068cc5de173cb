"""Whether a host's compute service is enabled and alive. Source: Nova 33 ComputeFilter, db service group driver."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState, Service
from ..types.request import Request
from .base import Bound, Filter


class ComputeFilter(Filter):
    """Passes a host whose service is enabled, not forced down, and was last seen (else created) at most
    ``service_down_time`` seconds from now, before or after it. Without a time no heartbeat is judged."""

    name: ClassVar[str] = "ComputeFilter"
    once_per_request: ClassVar[bool] = True

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"service"})

    def key(self, request: Request) -> Hashable:
        return request.now, self.options.default.service_down_time

    def bounds(self, request: Request) -> tuple[Bound, ...] | None:
        """Column form: the fleet updates ``service_up`` whenever its clock passes the end of a heartbeat's validity."""
        return (Bound("service_up", low=1),)

    def host_passes(self, host: HostState, request: Request) -> bool:
        service = host.service
        return not service.disabled and not service.forced_down and not self._is_silent(service, request)

    def reason(self, host: HostState, request: Request) -> str:
        service = host.service
        if service.disabled:
            return f"service disabled: {service.disabled_reason or 'no reason given'}"
        if service.forced_down:
            return "service forced down"
        return (
            f"service last seen {_silence_s(service, request):.12g} s from now, "
            f"more than service_down_time {self.options.default.service_down_time} s"
        )

    def _is_silent(self, service: Service, request: Request) -> bool:
        silence_s = _silence_s(service, request)
        return silence_s is not None and silence_s > self.options.default.service_down_time


def _silence_s(service: Service, request: Request) -> float | None:
    """Seconds between now and the last heartbeat; a clock that runs ahead counts like one that is late."""
    seen = service.created_at if service.last_seen_up is None else service.last_seen_up
    return None if seen is None or request.now is None else abs(request.now - seen)
