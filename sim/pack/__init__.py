"""Offline vector bin packing: the fewest equal hosts for a set of guests that are all there at once."""
