"""Workloads: read from traces and journals, or made after them."""
