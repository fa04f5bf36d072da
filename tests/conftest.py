"""What holds for every test."""

from hypothesis import HealthCheck, settings

# How long an example takes, and how long it takes to think one up, depends on what else the machine does.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
