"""Strategies for Watcher. It imports Watcher, which brings its own environment."""
