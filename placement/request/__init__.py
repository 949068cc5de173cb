"""Conversion of a request to a Placement query, as Nova's scheduler does it."""
