"""Hooks by which schedulers of other platforms ask Hostler over HTTP and JSON; each translates to Hostler's own
questions and keeps no state."""
