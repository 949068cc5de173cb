"""Tenancy: domains, projects, users, roles, tokens, quotas and resource pools, and who may do what."""
