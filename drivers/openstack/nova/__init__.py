"""Hostler inside nova-scheduler: Nova's objects to Hostler's values, a kept fleet, and the manager class."""
