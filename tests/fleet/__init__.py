"""Tests of placement/fleet.py, of its parts, and of loading and saving fleets."""
