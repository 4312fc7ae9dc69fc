"""Hypothesis profiles: HYPOTHESIS_PROFILE=nightly runs 1000 random graphs, ci (the default) the same 100 every time."""

import os

from hypothesis import HealthCheck, settings

CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, suppress_health_check=CHECKS)
settings.register_profile("nightly", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=CHECKS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
