"""Run by test_numpy_backend.py under KERAS_BACKEND=numpy: inference on every case, on both engines, against rsref."""

import keras
import numpy as np

from rsref.graph import as_list
from tests.cross.cases import CASES
from tests.cross.kits import KERAS, RSREF, parameter_key


def error(case, engine):
    layer, ours = case.draw(KERAS, engine=engine, **case.options), case.draw(RSREF, **case.options)
    x = case.x
    call = {k: v for k, v in case.call.items() if k not in ("training", "ground_truth")}
    layer.build([a.shape for a in x] if isinstance(x, list) else x.shape)
    ours.build(*(a.shape for a in as_list(x)))
    place = {parameter_key(v.path): v for v in layer.weights}
    rng = np.random.default_rng(0)
    for parameter in ours.weights:
        value = rng.standard_normal(parameter.shape).astype("float32")
        parameter.assign(value)
        place[parameter_key(parameter.name)].assign(value)
    found, right = as_list(layer(x, **call)), as_list(ours(x, **call))
    errors = []
    for a, b in zip(found, right, strict=True):
        assert np.shape(a) == b.shape, f"{np.shape(a)} against {b.shape}"
        errors.append(np.abs(np.asarray(a) - b).max() / (np.abs(b).max() or 1))
    return float(np.max(errors))  # NaN if one is


def main():
    assert keras.backend.backend() == "numpy"
    worst = {(name, e): error(case, e) for name, case in CASES.items() for e in ("keras", "reference")}
    wrong = {key: value for key, value in worst.items() if not value < 1e-5}
    assert not wrong, wrong
    print(len(worst), "agree; largest error", max(worst.values()))


if __name__ == "__main__":
    main()
