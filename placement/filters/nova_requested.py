"""The parts of Nova's RequestSpec that say what is asked besides a flavor, for third-party rules: image properties,
request groups and networks. Those that a request leaves out have the values that Nova gives them when they are read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Self

from ..types.image_properties import canonical
from ..types.networks import NetworkMetadata
from ..types.request import Image, RequestGroup, RequestSpec
from . import nova_objects


class NovaObject(SimpleNamespace):
    """A Nova object as filters read it: attributes, ``name in obj``, ``obj.get(name, default)``, ``obj_clone``."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute ``name``, or ``default`` if it is not set."""
        return getattr(self, name, default)

    def obj_clone(self) -> Self:
        """A copy that shares nothing with the object."""
        return copy.deepcopy(self)

    def obj_attr_is_set(self, name: str) -> bool:
        """Whether the attribute ``name`` is set."""
        return hasattr(self, name)


def image_properties(image: Image) -> dict[str, Any]:
    """An image's properties as Nova's ImageMetaProps has them, without those that Nova does not know. O(properties)."""
    traits = [name[6:] for name in image.properties if name.startswith("trait:")]
    listed = image.properties.get("traits_required")
    traits += [each for each in listed if each not in traits] if isinstance(listed, list | tuple) else []
    found: dict[str, Any] = canonical(image.properties)
    return found | ({"traits_required": traits} if traits else {})


def parts(spec: RequestSpec) -> dict[str, Any]:
    """What is asked of networks, ports and devices; ``retry`` and ``limits``, which no request here has. O(parts)."""
    level = spec.request_level_params
    return {
        "network_metadata": nova_objects.network_metadata(spec.network_metadata or NetworkMetadata()),
        "requested_resources": [_group(each) for each in spec.requested_resources],
        "request_level_params": NovaObject(
            root_required=set(level.root_required if level else ()),
            root_forbidden=set(level.root_forbidden if level else ()),
            same_subtree=[list(each) for each in level.same_subtree] if level else [],
        ),
        "requested_networks": [
            NovaObject(
                network_id=each.network_id,
                port_id=each.port_id,
                arq_uuid=each.arq_uuid,
                device_profile=each.device_profile,
            )
            for each in spec.requested_networks
        ],
        "security_groups": [],
        "retry": None,
        "limits": NovaObject(numa_topology=None, vcpu=None, disk_gb=None, memory_mb=None),
    }


def _group(group: RequestGroup) -> NovaObject:
    return NovaObject(
        use_same_provider=group.use_same_provider,
        resources=dict(group.resources),
        required_traits=set(group.required_traits),
        forbidden_traits=set(group.forbidden_traits),
        aggregates=[sorted(each) for each in group.aggregates],
        forbidden_aggregates=set(group.forbidden_aggregates),
        requester_id=group.requester_id,
        provider_uuids=[],
        in_tree=group.in_tree,
    )
