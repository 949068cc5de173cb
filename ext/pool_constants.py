"""Numbers of the pools kernel: columns of the pool block in order. _pools.pyx has the kernel's copies; a test compares
them."""

from typing import Final

TOTAL: Final = 0
"""Reported capacity, GiB; 0 if it is not a number."""
FREE: Final = 1
ALLOCATED: Final = 2
PROVISIONED: Final = 3
RESERVED_PERCENTAGE: Final = 4
RATIO: Final = 5
"""max_over_subscription_ratio"""
THIN: Final = 6
"""1: can provision thinly."""
BOUNDED: Final = 7
"""1: total and free are numbers."""
UPDATED: Final = 8
"""Seconds since the epoch of the last report or placement."""
VOLUMES: Final = 9
"""Volumes known to be on the pool."""
ROOM_THIN: Final = 10
"""Greatest request in GiB that fits; -inf: none, inf: any."""
ROOM_THICK: Final = 11
VIRTUAL_THIN: Final = 12
"""Virtual free capacity, GiB; -1 where it is not bounded."""
VIRTUAL_THICK: Final = 13
ENDLESS: Final = 14
"""1: unbounded, fits any request."""
COUNTED: Final = 15
"""1: free is a number, from which is taken what is placed."""
POOL_COLUMNS: Final = 16
