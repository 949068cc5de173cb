"""The specification, as tests; not installed."""
