"""The weighers: which of the hosts that fit is best."""

from __future__ import annotations

from typing import Final

from .base import Weigher
from .build_failure import BuildFailureWeigher
from .cpu import CPUWeigher
from .cross_cell import CrossCellWeigher
from .disk import DiskWeigher
from .hypervisor_version import HypervisorVersionWeigher
from .image_properties import ImagePropertiesWeigher
from .io_ops import IoOpsWeigher
from .metrics import MetricsWeigher
from .num_instances import NumInstancesWeigher
from .pci import PCIWeigher
from .ram import RAMWeigher
from .server_group import ServerGroupSoftAffinityWeigher, ServerGroupSoftAntiAffinityWeigher

BUILTIN_WEIGHERS: Final[dict[str, type[Weigher]]] = {
    weigher.name: weigher
    for weigher in (
        ServerGroupSoftAffinityWeigher,
        ServerGroupSoftAntiAffinityWeigher,
        BuildFailureWeigher,
        CPUWeigher,
        CrossCellWeigher,
        DiskWeigher,
        HypervisorVersionWeigher,
        ImagePropertiesWeigher,
        IoOpsWeigher,
        MetricsWeigher,
        NumInstancesWeigher,
        PCIWeigher,
        RAMWeigher,
    )
}
"""Nova's 13 weighers by name, in the default order of addition (Nova's module name, then class name)."""
