"""Settings of hypothesis: machines that are busy with other work must not fail a test for being slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("rapid", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rapid")
