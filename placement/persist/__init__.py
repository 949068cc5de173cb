"""Saves a whole fleet to one file and loads it, bit for bit."""
