"""Bulk loading of hosts into a fleet. All input is checked before anything changes."""
