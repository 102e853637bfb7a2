"""How Numba's passes are run over a kernel, for any machine: only those that kernels need, and without listeners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Few:
    """A mixin before one of Numba's pass managers. It runs passes one after the other.

    Numba tells listeners of each, and analyses a function anew after most of them; those that need an analysis make it
    themselves.
    """

    _analysis: Any

    def _runPass(self, index: int, step: Any, state: Any) -> None:
        step.analysis = self._analysis
        step.run_pass(state)


def pipeline(manager: Any, kinds: Sequence[Any]) -> list[Any]:
    """Return the one pipeline of some passes, as Numba's compilers want it. manager: the class of what runs them."""
    passes = manager("kernel")
    for kind in kinds:
        passes.add_pass(kind, kind.__name__)
    passes.finalize()
    return [passes]
