"""Allocation candidates over all provider trees, lazily, in a defined order."""
