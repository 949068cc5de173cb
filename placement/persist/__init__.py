"""A whole fleet as one file and back, to the bit."""
