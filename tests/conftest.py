"""How long a test takes says nothing about the code: machines are slow, shared, or instrumented."""

from hypothesis import HealthCheck, settings

settings.register_profile("hostler", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hostler")
