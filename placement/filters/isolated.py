"""Hosts set apart for certain images, and images set apart for certain hosts. Source: Nova 33 IsolatedHostsFilter.

Which hosts are left, by the options ``isolated_images`` and ``restrict_isolated_hosts_to_isolated_images``:

    isolated_images   restrict...   image isolated     only these hosts
    empty             yes           -                  those not isolated
    empty             no            -                  all
    set               yes           yes / no           isolated / those not isolated
    set               no            yes / no           isolated / all
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..types.host import HostState
from ..types.request import Request
from .base import Filter


class IsolatedHostsFilter(Filter):
    """Keeps isolated images on isolated hosts and, with ``restrict_isolated_hosts_to_isolated_images``, others off
    them. Names are compared exactly."""

    name: ClassVar[str] = "IsolatedHostsFilter"
    once_per_request: ClassVar[bool] = True
    runs_on_rebuild: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        if self._image_isolated(request):
            return True
        options = self.options.filter_scheduler
        return bool(options.restrict_isolated_hosts_to_isolated_images and options.isolated_hosts)

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"host"})

    def key(self, request: Request) -> Hashable:
        return self._image_isolated(request)

    def host_passes(self, host: HostState, request: Request) -> bool:
        host_isolated = host.host in self.options.filter_scheduler.isolated_hosts
        if self.options.filter_scheduler.restrict_isolated_hosts_to_isolated_images:
            return self._image_isolated(request) == host_isolated
        return host_isolated or not self._image_isolated(request)

    def reason(self, host: HostState, request: Request) -> str:
        if self._image_isolated(request):
            image_id = request.image.id if request.image is not None else None
            return f"image {image_id} may only run on isolated_hosts, and {host.host} is none of them"
        return f"{host.host} is one of isolated_hosts, and the image is none of isolated_images"

    def _image_isolated(self, request: Request) -> bool:
        return request.image is not None and request.image.id in self.options.filter_scheduler.isolated_images
