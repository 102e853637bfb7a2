"""Misuse of layers and cells, in a step that is being drawn: see test_errors."""

import pytest

from rsref import Activation, Dense, Dropout, Embedding, GRUCell, Input, LayerNormalization, Subtract

x_t, h_tm1 = Input((3,)), Input((4,))

MISUSES = {
    **{
        f"two tensors for {layer.name}": (
            lambda layer=layer: layer([x_t, h_tm1]),
            ValueError,
            [f"{layer.name} takes 1 tensors; got 2"],
        )
        for layer in (Dense(4), Activation("elu"), LayerNormalization(), Dropout(0.5), Embedding(2, 3))
    },
    "three tensors to subtract": (lambda: Subtract()([x_t] * 3), ValueError, ["subtract.* takes 2 tensors; got 3"]),
    "no tensor for a layer": (lambda: Dense(4)([]), ValueError, ["takes 1 tensors; got 0"]),
    "no tensor for a cell": (lambda: GRUCell(4)([]), ValueError, ["an input and its states; got no tensors"]),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_answered(name):
    misuse, kind, words = MISUSES[name]
    with pytest.raises(kind) as caught:
        misuse()
    for word in words:
        assert caught.match(word)
