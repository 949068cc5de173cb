"""Hosts in bulk into a fleet, checked whole before anything changes."""
