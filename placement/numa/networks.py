"""Whether a guest's host cells are near the networks that it is attached to. Source: Nova 34 hardware.py
``_numa_cells_support_network_metadata``."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..types.host import NumaCell
from ..types.networks import NetworkMetadata


def supports(cells: Sequence[NumaCell], chosen: Collection[int], wanted: NetworkMetadata | None) -> bool:
    """True if the cells whose ids are ``chosen`` are near all ``wanted`` networks that any of ``cells`` is near to. A
    network that no cell is near to may be anywhere. O(cells)."""
    if wanted is None:
        return True
    near = [cell.network_metadata for cell in cells if cell.id in chosen and cell.network_metadata is not None]
    far = [cell.network_metadata for cell in cells if cell.network_metadata is not None]
    missing = wanted.physnets.difference(*(networks.physnets for networks in near))
    if any(missing & networks.physnets for networks in far):
        return False
    if not wanted.tunneled or any(networks.tunneled for networks in near):
        return True
    return not any(networks.tunneled for networks in far)
