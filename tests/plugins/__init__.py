"""Filters and weighers of one's own: every form decides as the host form does, and bad ones are refused."""
