"""Frozen parameters against the oracle: weights are packed once for all calls, of whatever sizes."""

from dataclasses import replace
from threading import Thread

import numpy as np
import pytest

import rsref_fast
from rsref import Input, RecurrentModel, cells, ops, set_random_seed
from rsref.engine import ReferenceEngine
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.splitting import Split
from tests.fast.attending import attending
from tests.fast.picking import recurrence_of


def lstm():
    set_random_seed(0)
    layer = cells.LSTMCell(6).get_layer()
    layer.build((None, None, 4))
    return layer.recurrence


STEPS = {"lstm": lstm, "attending": attending, "a step that mixes samples": lambda: recurrence_of("rolled")}
SIZES = [
    (3, 4, None),
    (2, 9, "mask"),
    (7, 5, None),
    (3, 4, None),
    (1, 1, None),
    (7, 5, "mask"),
    (0, 3, None),
    (2, 0, None),
]
"""Samples and steps of calls that follow each other: larger ones need more memory, smaller ones use that."""


def agree(frozen, own, arguments, atol=1e-12):
    expected, ends, _ = arguments.forward(ReferenceEngine(own))
    given = arguments.sequences, arguments.constants, arguments.states
    outputs, states = frozen(*given, mask=arguments.mask, steps=arguments.steps)
    for a, b in zip([*outputs, *states], [*expected, *ends], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def arguments_of(own, batch, steps, masked=None, seed=0):
    mask = np.random.default_rng(batch).random((batch, steps)) < 0.6 if masked else None
    return random_arguments(own, batch=batch, steps=steps, seed=seed, mask=mask)


@pytest.mark.covering("values")
@pytest.mark.parametrize("split", [None, Split(2, 2), Split(2, 1, 2)], ids=str)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_calls_of_all_sizes(step, target, split):
    own = STEPS[step]()
    engine = rsref_fast.compile(own, target=target)
    engine.split = split
    frozen = engine.freeze(arguments_of(own, 1, 1).parameters)
    for seed, size in enumerate(SIZES):
        if 0 not in size or step == "lstm":
            agree(frozen, own, arguments_of(own, *size, seed=seed))


@pytest.mark.parametrize("target", ["interpreter", "cpu"])
def test_weights_are_packed_once(target, monkeypatch):
    own = lstm()
    engine = rsref_fast.compile(own, target=target)
    prepares, execute = [], engine.kernels.execute

    def counted(kernels, plan, arrays):
        prepares.append(plan.prepares)
        execute(kernels, plan, arrays)

    monkeypatch.setattr(engine.kernels, "execute", counted)
    monkeypatch.setattr("rsref_fast.cpu.memory._taken", lambda size: np.zeros(size, np.uint8))  # no byte more
    frozen = engine.freeze(arguments_of(own, 1, 1).parameters)
    for size in ((5, 8), (5, 8), (2, 3), (5, 8, "mask"), (5, 8)):
        agree(frozen, own, arguments_of(own, *size))
    assert prepares == [True, False, False, False, False]
    prepares.clear()
    for size in ((1, 96), (90, 1), (1, 96), (90, 1)):  # the one needs more scratch memory, the other more of a tape's
        agree(frozen, own, arguments_of(own, *size))
    assert prepares == [True, True, False, False]


def test_later_changes_are_not_seen():
    own = lstm()
    arguments = arguments_of(own, 2, 3)
    given = replace(arguments, parameters=[p.copy() for p in arguments.parameters])
    frozen = rsref_fast.compile(own).freeze(given.parameters)
    for p in given.parameters:
        p[...] = np.nan
    agree(frozen, own, arguments)
    agree(frozen, own, arguments)


def test_both_precisions_and_an_engine_with_checkpoints():
    own = lstm()
    arguments = arguments_of(own, 3, 20)
    single = arguments.cast(np.float32)
    for given, atol in ((arguments, 1e-12), (single, 2e-5)):
        frozen = rsref_fast.compile(own, checkpoint=True).freeze(given.parameters)
        agree(frozen, own, given, atol)
        assert frozen(given.sequences, [], given.states)[0][0].dtype == given.sequences[0].dtype


def test_threads_may_call_at_once():
    own = lstm()
    frozen = rsref_fast.compile(own).freeze(arguments_of(own, 1, 1).parameters)
    faults = []

    def calls(seed):
        try:
            for k in range(20):
                agree(frozen, own, arguments_of(own, 1 + (seed + k) % 4, 3, seed=seed))
        except BaseException as error:
            faults.append(error)

    threads = [Thread(target=calls, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.parametrize("target", ["cpu", "interpreter"])
def test_an_index_out_of_range_is_refused_and_the_next_call_is_right(target):
    x, h = Input((), dtype="int"), Input((2,))
    new = h + ops.take(np.arange(6.0).reshape(3, 2), x, 0)
    frozen = rsref_fast.compile(RecurrentModel(x, new, h, new).recurrence, target=target).freeze([])
    for _ in range(2):
        with pytest.raises(IndexError, match="index 3 is out of range for an axis of size 3"):
            frozen([np.array([[3]])], [], [np.zeros((1, 2))])
        np.testing.assert_array_equal(frozen([np.array([[2]])], [], [np.zeros((1, 2))])[1][0], [[4.0, 5.0]])


def test_results_that_are_bools_stay_so():
    """Kernels have bytes for them, also at a second call."""
    x, on = Input((2,)), Input((2,), dtype="bool")
    own = RecurrentModel(x, [x, on], on, ops.logical_not(on)).recurrence
    frozen = rsref_fast.compile(own, target="interpreter").freeze([])
    for _ in range(2):
        (_, seen), (end,) = frozen([np.ones((1, 3, 2))], [], [np.array([[True, False]])])
        assert seen.dtype == end.dtype == bool
        assert (seen.tolist(), end.tolist()) == ([[[True, False], [False, True], [True, False]]], [[False, True]])


def test_faults_have_names():
    own = lstm()
    engine, parameters = rsref_fast.compile(own, target="interpreter"), arguments_of(own, 1, 1).parameters
    with pytest.raises(TypeError, match="parameters must be a list; got None"):
        rsref_fast.compile(own, target="interpreter").freeze(None)
    with pytest.raises(ValueError, match=f"{len(parameters)} parameter arrays are needed; got 1"):
        engine.freeze(parameters[:1])
    with pytest.raises(ValueError, match=r"does not accept an array of shape \(2,\)"):
        engine.freeze([np.zeros(2), *parameters[1:]])
    with pytest.raises(TypeError, match="kernels compute with float32 or float64; got complex128"):
        engine.freeze([p * 1j for p in parameters])
    with pytest.raises(TypeError, match=r"states\[0\] must be a NumPy array; got builtins.list"):
        engine.freeze(parameters)([np.zeros((1, 2, 4))], [], [[[0.0] * 6], np.zeros((1, 6))])
    with pytest.raises(ValueError, match="2 state arrays are needed; got 0"):
        engine.freeze(parameters)([np.zeros((1, 2, 4))], [], [])
