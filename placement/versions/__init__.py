"""Undo, redo and forks of one mutable state; knows no fleet."""
