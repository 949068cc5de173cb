"""Frozen values that callers write and read, their errors and checks of single values; imports nothing of Hostler."""
