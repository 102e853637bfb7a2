"""Kernels of these tests are compiled into a folder of their own, shared by the test processes of one run."""

import os

import pytest
from numba.core import types
from numba.core.typing.context import BaseContext

from tests.sparing import kernel_folder, spare

spare(BaseContext, types.Dispatcher)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    folder = kernel_folder(tmp_path_factory)
    os.environ["RSREF_FAST_CACHE"] = str(folder)
    return folder
