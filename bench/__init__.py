"""Benchmarks and parity runs: Hostler beside its rivals and beside its own past."""
