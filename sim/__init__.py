"""Capacity planning: traces, replay, sweeps and reports, fed to the same engine that serves."""
