"""The process around the service: settings, lifetime, health, metrics, logs and audit."""
