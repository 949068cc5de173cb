"""Tenancy: domains, projects, users, roles, tokens, quotas and resource pools, and access rights."""
