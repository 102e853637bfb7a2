"""torch.func on the engines: gradients, Jacobians and maps over samples are those of PyTorch through Keras's ops."""

import keras
import numpy as np
import pytest
import torch
from keras import ops
from torch.func import grad, jacrev, jvp, vmap

import keras_bridge as kb
from tests.tolerances import assert_close

X = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4, 5)).astype("float32"))


def with_a_counter(**options):
    """A step whose int state, an answer too, has no gradient."""
    x, h, n = keras.Input((5,)), keras.Input((3,)), keras.Input((1,), dtype="int32")
    new = keras.layers.Dense(3, "tanh")(keras.layers.concatenate([x, h])) + ops.cast(n, "float32") / 8
    return kb.RecurrentModel(x, new, [h, n], [new, n + 1], return_sequences=True, **options)


LAYERS = {
    "GRU": lambda **options: kb.GRUCell(3).get_layer(return_sequences=True, return_state=True, **options),
    "a counter": lambda **options: with_a_counter(return_state=True, **options),
}


def pair(kind, engine):
    """Two layers with the same weights, one on Keras's own ops."""
    layers = [LAYERS[kind](engine=name) for name in ("keras", engine)]
    for layer in layers:
        layer(X)
    layers[0].set_weights(layers[1].get_weights())
    return layers


def energy(layer, x, weights):
    y, h, *_ = layer.stateless_call(weights, [], x)[0]
    return (y**2).sum() + h.sum()


CASES = {
    "gradient": lambda layer, w: grad(lambda x: energy(layer, x, w))(X),
    "of each sample": lambda layer, w: vmap(grad(lambda w, x: energy(layer, x[None], w)), (None, 0))(w, X),
    "mapped": lambda layer, w: vmap(lambda x: layer(x)[:2], in_dims=1)(torch.stack([X, 2 * X], 1)),
    "Jacobians, mapped": lambda layer, w: vmap(jacrev(lambda x: layer(x[None])[0].sum(2)))(X),
    "mapped twice": lambda layer, w: vmap(vmap(lambda x: layer(x[None])[0]))(torch.stack([X, 2 * X])),
    "weights, mapped": lambda layer, w: vmap(lambda w: energy(layer, X, w))([torch.stack([v, 2 * v]) for v in w]),
}


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize("kind", LAYERS)
def test_transforms(kind, engine):
    layers = pair(kind, engine)
    for case in CASES.values():
        expected, found = (
            torch.utils._pytree.tree_leaves(case(layer, [v.value.detach() for v in layer.trainable_variables]))
            for layer in layers
        )
        for a, b in zip(found, expected, strict=True):
            assert_close(a.detach().numpy(), b.detach().numpy(), "float32")


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_many_at_once(kind, engine):
    """As PyTorch has them without torch.func, in tensors of another sort."""
    layers = pair(kind, engine)
    found, expected = (
        torch.autograd.functional.jacobian(lambda x, layer=layer: layer(x)[0], X, vectorize=True) for layer in layers
    )
    assert_close(found.numpy(), expected.numpy(), "float32")
    x = X.clone().requires_grad_()
    again = torch.autograd.functional.jacobian(lambda x: layers[1](x)[0], x, vectorize=True, create_graph=True)
    assert_close(again.detach().numpy(), expected.numpy(), "float32")
    with pytest.raises(RuntimeError, match="first derivatives only"):
        again.sum().backward()


@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_what_engines_cannot_is_said(engine):
    layer = LAYERS["GRU"](engine=engine)
    layer(X)
    with pytest.raises(RuntimeError, match=r'first derivatives only; engine="keras" has further ones'):
        grad(lambda x: grad(lambda z: (layer(z)[0] ** 2).sum())(x).sum())(X)
    with pytest.raises(NotImplementedError, match="jvp"):
        jvp(lambda x: layer(x)[0], (X,), (X,))
