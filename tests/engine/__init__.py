"""The specification of the engine: a slow, obvious scheduler beside it, and what it says and refuses."""
