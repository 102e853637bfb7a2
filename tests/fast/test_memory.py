"""What engines keep between calls: enough to be fast, and not for ever."""

import copy
import sys
from collections import deque

import numpy as np
import pytest

import rsref_fast
from rsref import Input, ops
from rsref.graph import StepGraph
from rsref.recurrence import Recurrence
from rsref.testing.arguments import random_arguments
from rsref_fast.cpu import gradients, memory
from tests.fast.agreement import check
from tests.fast.made import MASK, recurrence_of


def waiting():
    return sorted(lent.bytes.size for lent in memory._waiting)


def test_memory_that_nobody_takes_again_is_given_back(monkeypatch):
    monkeypatch.setattr(memory, "_waiting", deque(maxlen=memory.KEPT))
    large = [memory.Arena(1 << 24) for _ in range(memory.KEPT + 2)]
    del large
    assert waiting() == [1 << 24] * memory.KEPT
    small = memory.Arena(100)  # the newest is kept, in place of the oldest
    kept = small.bytes
    del small
    assert waiting() == [100, *[1 << 24] * (memory.KEPT - 1)]
    for _ in range(memory.TURNS + 2 * memory.OFTEN):
        assert memory.Arena(90).bytes is kept
    assert waiting() == [100]


def test_an_interrupt_is_not_lost_where_memory_is_given_back(monkeypatch):
    """Python only reports what is raised in functions that it calls then: none is called."""
    called = []
    monkeypatch.setattr(memory, "_waiting", deque(maxlen=memory.KEPT))
    arena = memory.Arena(5000)
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        del arena
    finally:
        sys.setprofile(None)
    assert (called, waiting()) == ([], [5000])


def test_a_copied_arena_has_memory_of_its_own():
    arena = memory.Arena(5000)
    arena.bytes[:] = 7
    copied = copy.deepcopy(arena)
    arena.bytes[:] = 8
    assert (copied.bytes[:5000] == 7).all()
    assert memory.address_of(copied.bytes) % memory.ALIGNMENT == 0


def test_plans_are_kept_for_sizes_and_not_for_masks():
    """The second of two masks of one shape, each with as many steps."""
    engine = rsref_fast.compile(recurrence_of("SimpleRNNCell"), target="interpreter")
    for mask in (MASK, MASK[::-1]):
        check(engine.recurrence, random_arguments(engine.recurrence, batch=3, steps=5, mask=mask), engine=engine)
    for rows in (MASK[:, ::-1], MASK & [True, True, False, True, False]):
        check(engine.recurrence, random_arguments(engine.recurrence, batch=3, steps=5, mask=rows), engine=engine)


def test_memory_begins_on_cache_lines():
    small, large = ((np.dtype(kind), length) for kind, length in (("u1", 3), ("f8", 1000)))
    for parts in ([], [small], [small, large, small]):
        cut = memory.frame((f"m{i}", length, dtype) for i, (dtype, length) in enumerate(parts))
        ends = [*cut.offsets[1:], cut.total]
        assert cut.offsets[:1] == (0,) * bool(parts)
        assert all(offset % memory.ALIGNMENT == 0 for offset in (*cut.offsets, cut.total))
        assert all(end - start >= n * d.itemsize for start, end, (d, n) in zip(cut.offsets, ends, parts))
    for make in (np.empty, np.zeros):
        for shape in ((1000, 3), (7,), (0, 5), ()):
            made = memory.maker(shape, np.dtype(np.float32), make)()
            assert (made.shape, made.dtype) == (shape, np.float32)
            assert not made.any() or make is np.empty
            assert made.nbytes < memory.SMALL or memory.address_of(made) % memory.ALIGNMENT == 0


def test_checks_of_many_sizes_are_not_all_remembered(monkeypatch):
    monkeypatch.setattr("rsref_fast.cpu.engine.REMEMBERED", 3)
    engine = rsref_fast.compile(recurrence_of("SimpleRNNCell"), target="interpreter")
    for steps in (1, 2, 3, 4, 5, 1):
        ys, _, _ = random_arguments(engine.recurrence, batch=1, steps=steps).forward(engine)
        assert np.isfinite(ys[0]).all()
        assert len(engine._checked) <= 3


def test_gradients_are_written_whole(monkeypatch):
    """Also those that nothing flows into, of each shard's samples; fresh memory is often zero by chance."""
    monkeypatch.setattr(gradients, "maker", lambda shape, dtype, make: lambda: np.full(shape, np.nan, dtype))
    x, z, c, n, h = Input((2,)), Input((2,)), Input((2,)), Input((2,), dtype="int"), Input((2,))
    new = ops.tanh(h + ops.cast(ops.less(c, z), "float") * ops.cast(n, "float"))
    own = Recurrence(StepGraph(sequences=[x, z], constants=[c, n], states=[h], outputs=[new], new_states=[new]))
    check(own, random_arguments(own, batch=3, steps=4), threads=2)


@pytest.mark.parametrize("truncate", [None, 2])
@pytest.mark.parametrize("mixes", [False, True])
def test_gradients_are_written_whole_whatever_a_mask_leaves(monkeypatch, mixes, truncate):
    """By kernels that leave masked steps out, and where each step's are added up."""

    def full(shape, dtype, make):
        return lambda: make(shape, dtype) if make is np.zeros else np.full(shape, np.nan, dtype)

    monkeypatch.setattr(gradients, "maker", full)
    x, c, h = Input((2,)), Input((2,)), Input((2,))
    mean = ops.mean(x, 0, keepdims=True) if mixes else 0.5
    new = ops.tanh(h + mean * c * x)
    own = Recurrence(
        StepGraph(sequences=[x], constants=[c], states=[h], outputs=[new], new_states=[new]), truncate=truncate
    )
    for target, checkpoint in (("interpreter", False), ("cpu", False), ("interpreter", True)):
        engine = rsref_fast.compile(own, target=target, checkpoint=checkpoint, threads=2)
        check(own, random_arguments(own, batch=3, steps=5, mask=MASK), engine=engine)
