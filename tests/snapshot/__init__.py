"""The snapshot file: what is written is read, and what was damaged is refused."""
