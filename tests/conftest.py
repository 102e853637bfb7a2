"""What all tests share: hypothesis profiles, and `tests.*` importable behind whatever is installed."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# At the end of the path: the installed rsref is tested if there is one, the checkout's otherwise.
sys.path.append(str(Path(__file__).resolve().parent.parent))

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
