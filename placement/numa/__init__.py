"""Rules of one host for NUMA cells (Nova 33 hardware.py): the topology that a flavor requests, where it fits on a host,
what it uses there, and why it does not fit. Values in, values out; ``fleet.numa_table`` holds the same state for many
hosts."""
