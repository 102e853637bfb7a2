"""What all tests share: hypothesis profiles, and `tests.*` importable behind whatever is installed."""

import gc
import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# At the end of the path: the installed rsref is tested if there is one, the checkout's otherwise.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# Python's collector looks through all of a compiler, or a backend, again and again.
gc.set_threshold(1_000_000, 20, 50)

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
