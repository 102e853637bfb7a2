"""Our own engine."""

from typing import Any

import numpy as np

import rsref_fast
from benchmarks.peers import THREADS, Run
from benchmarks.problems import Problem, answer, dy_of, given


def run(problem: Problem, checkpoint: bool = False) -> Run:
    """As some of its peers it gets sequences that lie in memory with the time first, but for masks."""
    case, (sequences, *others) = problem.case, given(problem)
    lay = time_first if sequences and problem.mask is None else np.asarray
    arrays = [[lay(s) for s in sequences], *others]
    engine = rsref_fast.compile(problem.layer.recurrence, checkpoint=checkpoint)
    rsref_fast.set_num_threads(THREADS)
    dy = lay(dy_of(problem))

    def compute() -> dict[str, Any]:
        outputs, _, tape = engine.forward(*arrays, mask=problem.mask, steps=case.steps, taped=case.training)
        gradients = engine.backward(tape, [dy], [None] * len(arrays[2])) if case.training else None
        return answer(problem, outputs, gradients)

    return compute


def frozen(problem: Problem) -> Run:
    """With weights that are packed once, as those of a session of ONNX Runtime are."""
    *arrays, parameters = given(problem)
    rsref_fast.set_num_threads(THREADS)
    frozen = rsref_fast.compile(problem.layer.recurrence).freeze(parameters)
    return lambda: answer(problem, frozen(*arrays, mask=problem.mask, steps=problem.case.steps)[0], None)


def time_first(values: np.ndarray) -> np.ndarray:
    """Return a view (batch, time, ...) of a copy that lies the other way round."""
    return np.ascontiguousarray(values.swapaxes(0, 1)).swapaxes(0, 1)


def stream(problem: Problem) -> Run:
    rsref_fast.set_num_threads(THREADS)
    _, constants, states, parameters = given(problem)
    step = rsref_fast.compile(problem.layer.recurrence).stream(constants, states, parameters)
    x = problem.x[:, 0]
    return lambda: {"y": step(x)[0]}
