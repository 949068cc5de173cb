"""The service around the engine: ordering, journal, tenants, quotas, RPC, HTTP, metrics, configuration and commands."""
