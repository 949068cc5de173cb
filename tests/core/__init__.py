"""Tests of the service around the engine."""
