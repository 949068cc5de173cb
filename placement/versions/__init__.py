"""Undo, redo and forks of one mutable state. Independent of the fleet."""
