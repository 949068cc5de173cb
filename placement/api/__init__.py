"""The operations of OpenStack's Placement API on a fleet: commands that change it, queries that read it; no HTTP."""
