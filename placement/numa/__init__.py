"""Rules of one host for NUMA cells (Nova 33 hardware.py): what a flavor asks for, where on a host it fits, what it
takes there and why it does not fit. Values in, values out; ``fleet.numa_table`` holds the same state for many hosts."""
