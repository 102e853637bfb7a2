"""Each test draws the same weights, alone or after others, and no test compiles into the user's own cache."""

import os
from importlib.util import find_spec

import pytest

from rsref import set_random_seed


@pytest.fixture(autouse=True)
def seeded():
    set_random_seed(0)


if find_spec("numba"):
    from numba.core import types
    from numba.core.typing.context import BaseContext

    from rsref_fast.cpu import crew
    from tests.sparing import kernel_folder, spare

    spare(BaseContext, types.Dispatcher)

    @pytest.fixture(scope="session", autouse=True)
    def teams():
        """Tests of teams run by teams, however busy the machine is."""
        crew.keep_teams(True)

    @pytest.fixture(scope="session", autouse=True)
    def cache_folder(tmp_path_factory):
        """A folder for kernels, shared by the test processes of one run."""
        folder = kernel_folder(tmp_path_factory)
        os.environ["RSREF_FAST_CACHE"] = str(folder)
        return folder
