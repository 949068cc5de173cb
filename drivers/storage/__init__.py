"""Drivers of storage back ends, a file each."""
