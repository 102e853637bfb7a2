"""What all tests share: profiles, seeds, `tests.*` importable behind whatever is installed, and which run."""

import gc
import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# At the end of the path: the installed rsref is tested if there is one, the checkout's otherwise.
sys.path.append(str(Path(__file__).resolve().parent.parent))

import rsref
from tests import covering

# Python's collector looks through all of a compiler, or a backend, again and again.
gc.set_threshold(1_000_000, 20, 50)

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser):
    parser.addoption("--every", action="store_true", help="run all that tests/covering.py leaves out")


def pytest_configure(config):
    covering.EVERY = config.getoption("--every")
    config.addinivalue_line("markers", "covering(what): by default run enough for all 'values', or all 'pairs' of them")


def pytest_collection_modifyitems(config, items):
    out = set() if config.getoption("--every") else covering.left_out(items)
    if out:
        config.hook.pytest_deselected(items=[item for item in items if item in out])
        items[:] = [item for item in items if item not in out]


def pytest_runtest_setup(item):
    """What is drawn at random is the same in each run, and whichever tests ran before."""
    rsref.set_random_seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
