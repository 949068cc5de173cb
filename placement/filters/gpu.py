"""GPU models: a flavor may list the accepted ones.

passes if the flavor asks for no GPU, or names no model (extra spec hostler:gpu_models, ``A|B``), or the host has the
trait CUSTOM_GPU_<MODEL> of one of them. Hostler's own; Nova has no such filter.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from ..gpu.providers import gpu_wish, model_trait
from ..types.host import HostState
from ..types.request import Request
from .base import Filter


class GpuModelFilter(Filter):
    """Only hosts whose GPUs are of a model that the flavor names."""

    name: ClassVar[str] = "GpuModelFilter"
    spec_only: ClassVar[bool] = True

    def applies(self, request: Request) -> bool:
        return bool(gpu_wish(request.extra_specs).models)

    def fields(self, request: Request) -> frozenset[str]:
        return frozenset({"traits"})

    def key(self, request: Request) -> Hashable:
        return gpu_wish(request.extra_specs).models

    def host_passes(self, host: HostState, request: Request) -> bool:
        models = gpu_wish(request.extra_specs).models
        return not models or any(model_trait(model) in host.traits for model in models)

    def reason(self, host: HostState, request: Request) -> str:
        return f"has no GPU of model {' or '.join(gpu_wish(request.extra_specs).models)}"
