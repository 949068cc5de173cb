"""A request compiled, ranked or scanned, claimed and explained; the Engine."""
