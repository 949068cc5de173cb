"""Tests of placement/fleet/fleet.py, of its parts, and of loading and saving fleets."""
