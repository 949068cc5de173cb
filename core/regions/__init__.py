"""Regions in cascade: a parent that chooses, for each request, a region by its summary, and has that region claim."""
