"""A request as filters and weighers read it: what is asked for now, and what the volume is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .request import Retry, VolumeSpec

InstanceHost = Callable[[str], str | None]
"""Compute service host of an instance, None for one that is not known."""


def _nowhere(uuid: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilterProperties:
    """``requested_gb`` is what a pool must have room for: the size, or the growth of an extend. ``exists_on``: the pool
    that holds the volume already. ``type_specs`` are the extra specs CapabilitiesFilter reads: the volume type's, or
    the group type's."""

    spec: VolumeSpec
    requested_gb: int
    type_specs: Mapping[str, str | None]
    operation: str = "create_volume"
    exists_on: str | None = None
    retry: Retry | None = None
    project_id: str = ""
    user_id: str = ""
    instance_host: InstanceHost = _nowhere
    properties: Mapping[str, Any] = field(default_factory=dict)
    """The scope ``volume`` of expressions."""

    @classmethod
    def of(
        cls,
        spec: VolumeSpec,
        *,
        project_id: str = "",
        user_id: str = "",
        requested_gb: int | None = None,
        type_specs: Mapping[str, str | None] | None = None,
        **others: Any,
    ) -> FilterProperties:
        """The request for a spec."""
        properties = {
            "size": spec.size_gb,
            "availability_zone": spec.availability_zone,
            "qos_specs": spec.qos_specs,
            "metadata": spec.metadata,
            "attach_status": spec.attach_status,
            "user_id": user_id,
            "project_id": project_id,
            **spec.properties,
        }
        return cls(
            spec=spec,
            requested_gb=spec.size_gb if requested_gb is None else requested_gb,
            type_specs=spec.extra_specs if type_specs is None else type_specs,
            project_id=project_id,
            user_id=user_id,
            properties=properties,
            **others,
        )
