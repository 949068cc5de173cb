"""NUMA: what a flavor asks for, where on a host it fits, what it takes there and why it does not fit. Source: Nova 33
hardware.py.

The rules as plain values in, plain values out; ``numa_table`` holds the same state for many hosts in a kernel.
"""

from ._numa_cores import free_pcpus, has_threads
from ._numa_derive import derive
from ._numa_explain import explain
from ._numa_fit import FittedCell, FittedNuma, Limits, fit, in_order
from ._numa_usage import settled, usage

__all__ = [
    "FittedCell",
    "FittedNuma",
    "Limits",
    "derive",
    "explain",
    "fit",
    "free_pcpus",
    "has_threads",
    "in_order",
    "settled",
    "usage",
]
