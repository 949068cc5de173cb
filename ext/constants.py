"""Numbers that the kernels and their callers share. The .pxd files have the kernels' copies; a test compares them."""

from typing import Final

# Raw value of a term: a host column, by host class, one per row, factor * members of the guest's server group, or a
# formula of vector packing.
SOURCE_COLUMN: Final = 0
SOURCE_CLASS: Final = 1
SOURCE_ROW: Final = 2
SOURCE_GROUP: Final = 3
SOURCE_PACKING: Final = 4

# Formulas of vector packing; vector_fit.py says what they are.
DOT_PRODUCT: Final = 0
L2_NORM: Final = 1
COSINE: Final = 2
DELTA_PERP: Final = 3

TERMS: Final = 24
"""Most weighers of one ranking."""

STAGES: Final = 256
NOT_A_HOST: Final = 255
"""Stage of rows that are never candidates; 0 is the stage of rows that pass."""

# Consumer flags.
BUILDING: Final = 1
"""Counted among its host's io operations."""
REPORTED: Final = 2
"""Known from a host report; holds no allocation."""
SEEN: Final = 4
"""Named by a host report since it was claimed."""
UNCOUNTED: Final = 8
"""Holds an allocation that the figures of its host do not include."""
NOT_INSTANCE: Final = 16
"""A migration, a volume or another consumer that is not counted among its host's instances."""

# Policies of server groups.
NO_POLICY: Final = 0
AFFINITY: Final = 1
ANTI_AFFINITY: Final = 2
SOFT_AFFINITY: Final = 3
SOFT_ANTI_AFFINITY: Final = 4

# Rows of the host column block that the kernels know; placement/fleet/columns.py names all rows.
FREE_RAM_MB: Final = 0
FREE_VCPUS: Final = 1
FREE_DISK_MB: Final = 2
NUM_IO_OPS: Final = 3
NUM_INSTANCES: Final = 4
FAILED_BUILDS: Final = 5
HYPERVISOR_VERSION: Final = 6
PCI_WEIGHT: Final = 7
VCPUS_USED: Final = 8
VCPUS_TOTAL: Final = 9
CPU_ALLOCATION_RATIO: Final = 10
SERVICE_UP: Final = 11
TOTAL_USABLE_RAM_MB: Final = 12
RAM_ALLOCATION_RATIO: Final = 13
LAST_SEEN_UP: Final = 17
"""NaN if unknown; no other column has NaN."""
