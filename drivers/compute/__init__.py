"""Drivers of compute back ends, a file each."""
