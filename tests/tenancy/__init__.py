"""Tests of tenancy: who may do what, quotas, tokens."""
