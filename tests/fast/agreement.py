"""Whether a compiled engine answers what the oracle does: values and gradients, on one run."""

import numpy as np

import rsref_fast
from rsref.engine import ReferenceEngine
from tests.tolerances import TOLERANCES

GROUPS = ("sequences", "constants", "states", "parameters")


def assert_agree(name, own, expected, tolerance, least=0.0):
    if own is None or expected is None:
        assert own is expected, f"{name}: {type(own)} against {type(expected)}"
        return
    assert own.shape == expected.shape, f"{name}: shape {own.shape} against {expected.shape}"
    assert own.dtype.kind == expected.dtype.kind, f"{name}: {own.dtype} against {expected.dtype}"
    if own.dtype.kind != "f":
        np.testing.assert_array_equal(own, expected, err_msg=name)
        return
    np.testing.assert_array_equal(np.isnan(own), np.isnan(expected), err_msg=f"{name}: where it is not a number")
    size = max(least, float(np.max(np.abs(expected), initial=0, where=np.isfinite(expected)))) or 1.0
    infinite = ~np.isfinite(expected)
    np.testing.assert_array_equal(own[infinite], expected[infinite], err_msg=name)
    error = float(np.max(np.abs(own - expected), initial=0, where=~infinite)) / size
    assert error <= tolerance, f"{name}: relative error {error:.1e}"


def check(
    recurrence, arguments, *, target="interpreter", threads=1, dtype=np.float64, engine=None, split=None,
    inference=True, sparse=False, least=0.0,
):  # fmt: skip
    """Compare outputs, final states and all gradients with the oracle's, which always computes in float64.

    dtype: that of floats; a step that is given none answers float32. inference: whether a run that keeps nothing for
    backward is compared too. sparse: whether a tenth of the outputs and final states, others for other shapes, get no
    gradient. least: as in `assert_close`, for random steps, in which numbers may cancel each other.
    """
    if all(array.dtype.kind != "f" for array in arguments.arrays()):
        dtype = np.float32
    tolerance = TOLERANCES[np.dtype(dtype).name]
    oracle = ReferenceEngine(recurrence)
    exact = arguments.cast(dtype).cast(np.float64)
    ys, ends, tape = exact.forward(oracle)
    engine = engine or rsref_fast.compile(recurrence, target=target, threads=threads)
    engine.split = split
    own_ys, own_ends, own_tape = arguments.cast(dtype).forward(engine)
    for i, (own, expected) in enumerate(zip((*own_ys, *own_ends), (*ys, *ends), strict=True)):
        assert_agree(f"value {i}", own, expected, tolerance, least)
    if inference:
        again = arguments.cast(dtype)
        given = (getattr(again, name) for name in GROUPS)
        only = engine.forward(*given, mask=again.mask, steps=again.steps, taped=False)
        assert only[2] is None
        for i, (own, expected) in enumerate(zip((*only[0], *only[1]), (*ys, *ends), strict=True)):
            assert_agree(f"value {i}, without a tape", own, expected, tolerance, least)
    rng = np.random.default_rng([n for v in (*ys, *ends) for n in v.shape])

    def weights(values):
        drawn = [rng.normal(size=v.shape).astype(dtype) if v.dtype.kind == "f" else None for v in values]
        return [None if sparse and rng.random() < 0.1 else w for w in drawn]

    d_ys, d_ends = weights(ys), weights(ends)
    own = engine.backward(own_tape, d_ys, d_ends)
    expected = oracle.backward(
        tape, *([None if d is None else d.astype(np.float64) for d in g] for g in (d_ys, d_ends))
    )
    for group in GROUPS:
        for i, (a, b) in enumerate(zip(getattr(own, group), getattr(expected, group), strict=True)):
            assert_agree(f"gradient of {group} {i}", a, b, tolerance, least)
    return engine
