"""Hostler inside cinder-scheduler: Cinder's pool states to kept pools, and the scheduler class."""
