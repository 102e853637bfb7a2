"""The demo's task on real recordings, smaller: both engines learn it alike, from padded sequences and a mask."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_bridge as kb
from tests.covering import examples

DATA = Path(__file__).resolve().parents[2] / "examples" / "data" / "japanese_vowels.npz"


def load(part, longest=29):
    file = np.load(DATA)
    lengths, ends = file[f"{part}_lengths"], np.cumsum(file[f"{part}_lengths"])
    flat = (file[f"{part}_x"] - file["train_x"].mean(0)) / file["train_x"].std(0)
    x = np.zeros((len(lengths), longest, flat.shape[1]), "float32")
    for row, (end, length) in enumerate(zip(ends, lengths)):
        x[row, :length] = flat[end - length : end]
    return x, file[f"{part}_y"]


def trained(engine, epochs):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, 12))
    cell = kb.MinimalGatedCell(24).get_layer(return_sequences=True, engine=engine)
    y = layers.Bidirectional(cell)(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.Dense(9, activation="softmax")(layers.GlobalAveragePooling1D()(y)))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(*load("train"), epochs=epochs, batch_size=30, verbose=0, shuffle=False).history["loss"]
    loss, accuracy = model.evaluate(*load("test"), verbose=0)
    return history, loss, accuracy


def test_engines_learn_the_recordings_alike():
    epochs = examples(3, 1)
    first, loss, accuracy = trained("keras", epochs)
    second, other_loss, other_accuracy = trained("reference", epochs)
    assert abs(accuracy - other_accuracy) < 0.01
    assert loss == pytest.approx(other_loss, rel=0.02)
    assert first == pytest.approx(second, rel=0.02)
