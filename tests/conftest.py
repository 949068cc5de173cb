"""How long a test takes says nothing about the code: machines are slow, shared, or instrumented. Random examples are
looked for by people; where ``CI`` is set they are the same each time, so that a red run is the change's."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "hostler", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("hostler")
