"""What lies inside concatenations, as the GPU's kernels have it: one layout places it for them and for the CPU's."""

import pytest

from rsref.testing import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.splitting import Split
from tests.cuda.kernels import Emulated
from tests.fast.agreement import check
from tests.fast.test_stages import joining_reshapes
from tests.fast.test_sums import begun, begun_before_it, begun_in_the_loop

STEPS = {
    "read after the sum": lambda: begun(begun_before_it),
    "read by backward": lambda: begun(begun_in_the_loop),
    "reshaped": joining_reshapes,
}


@pytest.mark.parametrize("step", STEPS)
def test_against_the_oracle(step):
    own = STEPS[step]()
    check(own, random_arguments(own, batch=3, steps=4), engine=FastEngine(own, Emulated), split=Split(1, 1))
