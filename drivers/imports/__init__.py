"""Imports of a fleet from the files that platforms export: read by content, reported line by line."""
