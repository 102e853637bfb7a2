"""Kernels of these tests are compiled into a folder of their own, shared by the test processes of one run."""

import os

import pytest
from numba.core import types
from numba.core.typing.context import BaseContext

from tests.sparing import spare

spare(BaseContext, types.Dispatcher)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root
    os.environ["RSREF_FAST_CACHE"] = str(shared / "kernels")
    return shared / "kernels"
