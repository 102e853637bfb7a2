"""Every option of every cell changes what is computed, what its weights are or what is asked of them, or is refused."""

import numpy as np
import pytest

from rsref import activations, cells, set_random_seed
from rsref.cells.full import FullCell

OPTIONS = {
    "activation": lambda x: activations.tanh(2 * x),
    "recurrent_activation": lambda x: activations.sigmoid(2 * x),
    "use_bias": False,
    **{f"{kind}_initializer": "ones" for kind in ("kernel", "recurrent", "bias")},
    **{f"{kind}_regularizer": "l2" for kind in ("kernel", "recurrent", "bias")},
    **{f"{kind}_constraint": "non_neg" for kind in ("kernel", "recurrent", "bias")},
    "dropout": 0.5,
    "recurrent_dropout": 0.5,
}
OF_RECURRENT_KERNEL = {f"recurrent_{kind}" for kind in ("initializer", "regularizer", "constraint", "dropout")}
REFUSED = {
    "SimpleRNNCell": {"recurrent_activation"},
    "IndRNNCell": {"recurrent_activation"},
    "RWACell": {"recurrent_activation"},
    "MLSTMCell": {"activation", *OF_RECURRENT_KERNEL},
    "MinGRUCell": OF_RECURRENT_KERNEL,
    "MinLSTMCell": OF_RECURRENT_KERNEL,
}
FULL = [name for name in cells.__all__ if issubclass(getattr(cells, name), FullCell)]


def made(name, options):
    """Return what a layer of one cell computes in training, its weights' shapes and what is asked of them."""
    set_random_seed(0)
    decoding = {"decode": True, "output_length": 3} if name == "AttentionDecoderCell" else {}
    layer = getattr(cells, name)(4, **options).get_layer(**decoding)
    shape = (2, 4, 5, 3) if name == "ConvLSTMCell" else (2, 4, 3)
    y = layer(np.random.default_rng(0).standard_normal(shape), training=True)
    (cell,) = layer.layers
    asked = [(p.value.shape, p.regularizer is None, p.constraint is None) for p in cell.parameters]
    return y, asked


@pytest.mark.parametrize("name", FULL)
def test_no_option_does_nothing(name):
    y, asked = made(name, {})
    refused = REFUSED.get(name, set())
    for option in OPTIONS.keys() - refused:
        other_y, other_asked = made(name, {option: OPTIONS[option]})
        assert other_asked != asked or not np.allclose(other_y, y), option
    for option in refused:
        with pytest.raises(TypeError, match=f"{name} has no .*: {option} cannot be given"):
            made(name, {option: OPTIONS[option]})


@pytest.mark.parametrize("name", FULL)
def test_no_bias_is_none_at_all(name):
    cell = getattr(cells, name)(4, use_bias=False)
    cell.build((None, 5, 3) if name in ("ConvLSTMCell", "AttentionDecoderCell") else (None, 3))
    assert not [p.name for p in cell.parameters if "bias" in p.name]


def kind_of(name):
    """Return which options are for a weight, by its name; none for the scales of normalisation and peepholes."""
    kinds = {"recurrent_kernel": "recurrent", "kernel": "kernel", "vector": "kernel", "bias": "bias"}
    attending = name.removeprefix("attention_recurrent_")  # which reads the state, but is not the recurrent kernel
    return next((kind for part, kind in kinds.items() if part in attending), None)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("kind", ["kernel", "recurrent", "bias"])
def test_what_is_asked_of_weights_is_asked_of_all_of_a_kind_and_of_no_other(name, kind):
    if f"{kind}_initializer" in REFUSED.get(name, ()):
        return
    asked = {"initializer": lambda shape: np.full(shape, 0.25), "regularizer": "l2", "constraint": "non_neg"}
    options = {f"{kind}_{what}": value for what, value in asked.items()}
    if name == "RHNCell":
        options.update(recurrence_depth=2, transform_bias=0)
    cell = getattr(cells, name)(4, **options)
    cell.build((None, 5, 3) if name in ("ConvLSTMCell", "AttentionDecoderCell") else (None, 3))
    kinds = [kind_of(p.name.split("/")[-1]) for p in cell.parameters]
    assert kind in kinds
    for p, found in zip(cell.parameters, kinds, strict=True):
        is_asked = [p.regularizer is not None, p.constraint is not None]
        assert is_asked == [found == kind] * 2, p.name
        # more than half: the bias of forget gates has 1 more in some cells
        assert ((p.value == 0.25).mean() > 0.5) == (found == kind), p.name
