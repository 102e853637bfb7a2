"""What TensorFlow alone has: gradients as it hands them over (none for whole numbers, rows alone), ids."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_bridge as kb
from tests.tolerances import assert_close

X = np.random.default_rng(0).standard_normal((3, 4, 2)).astype("float32")


def counting(engine):
    """A step with an output of bool and a state that counts."""
    x, h, count = keras.Input((2,)), keras.Input((2,)), keras.Input((), dtype="int32")
    new = ops.tanh(x + h)
    return kb.RecurrentModel(x, [new, new > 0], [h, count], [new, count + 1], engine=engine, return_sequences=True)


def gradients(loss, around=lambda function: function):
    """Return the gradient of loss(first output) by the sequence, of an engine and as the "keras" engine has it."""
    found = []
    for engine in ("reference", "keras"):
        layer, x = counting(engine), tf.constant(X)
        run = around(layer)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = loss(run(x)[0])
        found.append(tape.gradient(total, x).numpy())
    return found


def test_a_tape_outside_a_function_that_answers_whole_numbers_too():
    assert_close(*gradients(lambda y: tf.reduce_sum(y * y), tf.function), "float32")


def test_a_gradient_of_some_rows():
    found, expected = gradients(lambda y: tf.reduce_sum(tf.gather(y, [0, 2])))
    assert found[0].any()
    assert_close(found, expected, "float32")


@pytest.mark.parametrize("around", [lambda function: function, tf.function], ids=["eager", "compiled"])
def test_a_second_derivative_is_refused(around):
    """As in a penalty on gradients: none at all would be taken for zero."""
    layer, x = counting("reference"), tf.constant(X)

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x)[0])
        return total, tape.gradient(total, x)

    def of_penalty(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total, found = slope(x)
            penalized = total + tf.reduce_sum(found * found)
        return tape.gradient(penalized, x)

    with tf.GradientTape():  # which asks nothing
        found = around(slope)(x)[1]
    assert_close(found, gradients(tf.reduce_sum)[1], "float32")
    with pytest.raises((NotImplementedError, tf.errors.UnimplementedError), match='engine="keras" has further ones'):
        around(of_penalty)(x)


@pytest.mark.parametrize("engine", ["keras", "auto"])
def test_a_stack_reads_ids_as_they_are(engine):
    """Which float32 has not: those above 2^24."""
    ids = np.array([[1, 7, 2**24 + 1, 2**25 + 3]])
    for layer in (keras.layers.Hashing(1000), keras.layers.IntegerLookup(vocabulary=ids[0].tolist())):
        stack = kb.RecurrentSequential([layer], return_sequences=True, engine=engine)
        np.testing.assert_array_equal(ops.convert_to_numpy(stack(ids)), ops.convert_to_numpy(layer(ids)))
