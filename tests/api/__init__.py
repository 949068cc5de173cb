"""Tests of Placement's operations on a fleet."""
