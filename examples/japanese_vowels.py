"""Train a recurrent layer drawn in a dozen lines on real speech, check its gradients three ways, and draw the result.

`python examples/japanese_vowels.py` (KERAS_BACKEND=jax). `--seeds 10` gives mean and spread of the test accuracy over
seeds instead. How the settings were chosen, without the test data: examples/japanese_vowels_search.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import Input
from keras.layers import Dense, concatenate, multiply
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_bridge import RecurrentModel

FOLDER = Path(__file__).resolve().parent
CLASSES = 9
PARTS = "train", "test"


def draw_step(features, units):
    """Draw one timestep of a minimal gated unit (Zhou 2016): its input, its old state and its new state."""
    x_t = Input((features,))
    h_tm1 = Input((units,))
    gate = Dense(units, activation="sigmoid")(concatenate([x_t, h_tm1]))
    candidate = Dense(units, activation="tanh")(concatenate([x_t, multiply([gate, h_tm1])]))
    h_t = h_tm1 + gate * (candidate - h_tm1)
    return x_t, h_tm1, h_t


@dataclass(frozen=True)
class Settings:
    """What was chosen on a validation part of the training data (examples/japanese_vowels_search.py)."""

    units: int = 64
    noise: float = 0.6
    dropout: float = 0.3
    members: int = 3
    epochs: int = 100
    batch: int = 32
    learning_rate: float = 5e-3


@dataclass(frozen=True)
class Data:
    """Utterances (n, time, 12), standardised with the training part's figures and padded with zeros; speakers (n,)."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load(path: Path = FOLDER / "data" / "japanese_vowels.npz") -> Data:
    """Read the data; SystemExit with a sentence if the file is missing or damaged."""
    if not path.is_file():
        raise SystemExit(f"the data file {path} is missing: it is part of the checkout, see examples/data/README.md")
    try:
        with np.load(path) as file:
            arrays = {f"{part}_{name}": file[f"{part}_{name}"] for part in PARTS for name in ("x", "lengths", "y")}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise SystemExit(f"the data file {path} is damaged or another one ({type(error).__name__}: {error})") from error
    mean, deviation = arrays["train_x"].mean(axis=0), arrays["train_x"].std(axis=0)
    longest = max(arrays[f"{part}_lengths"].max() for part in PARTS)

    def padded(part: str) -> np.ndarray:
        ends = np.cumsum(arrays[f"{part}_lengths"])
        x = np.zeros((len(ends), longest, arrays[f"{part}_x"].shape[1]), np.float32)
        for i, (end, length) in enumerate(zip(ends, arrays[f"{part}_lengths"])):
            x[i, :length] = (arrays[f"{part}_x"][end - length : end] - mean) / deviation
        return x

    return Data(padded("train"), arrays["train_y"], padded("test"), arrays["test_y"])


def split(y: np.ndarray, seed: int, every: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a training and a validation part that hold each speaker in the same proportion."""
    order = np.random.default_rng(seed).permutation(len(y))
    held = np.concatenate([order[y[order] == speaker][::every] for speaker in range(CLASSES)])
    return np.setdiff1d(order, held), held


def build(settings: Settings, features: int = 12) -> keras.Model:
    """Return a classifier: members that run the drawn layer in both directions and average the valid steps."""
    inputs = Input((None, features))
    masked = keras.layers.Masking()(inputs)
    answers = []
    for _ in range(settings.members):
        x_t, h_tm1, h_t = draw_step(features, settings.units)
        layer = RecurrentModel(input=x_t, initial_states=h_tm1, output=h_t, final_states=h_t, return_sequences=True)
        noisy = keras.layers.GaussianNoise(settings.noise)(masked)
        both = keras.layers.Bidirectional(layer)(noisy)
        mean = keras.layers.GlobalAveragePooling1D()(both)
        dropped = keras.layers.Dropout(settings.dropout)(mean)
        answers.append(Dense(CLASSES, activation="softmax")(dropped))
    return keras.Model(inputs, answers)


def probabilities(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Return the members' mean probabilities (n, speakers)."""
    answers = model.predict(x, verbose=0, batch_size=len(x))
    return np.mean(answers if isinstance(answers, list) else [answers], axis=0)


class Bar(keras.callbacks.Callback):
    """A progress bar that moves an epoch at a time."""

    def __init__(self, title: str):
        super().__init__()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.progress = Progress(*columns, console=Console())
        self.title = title

    def on_train_begin(self, logs=None):
        self.progress.start()
        self.task = self.progress.add_task(self.title, total=self.params["epochs"])

    def on_epoch_end(self, epoch, logs=None):
        self.progress.advance(self.task)

    def on_train_end(self, logs=None):
        self.progress.stop()


def train(settings: Settings, x, y, seed: int, validation=None, title: str = "training"):
    """Return a trained classifier and Keras's history of its training."""
    keras.utils.set_random_seed(seed)
    model = build(settings, x.shape[-1])
    steps = settings.epochs * -(-len(x) // settings.batch)
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    losses = [keras.losses.SparseCategoricalCrossentropy() for _ in range(settings.members)]
    model.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), losses)
    history = model.fit(
        x,
        [y] * settings.members,
        epochs=settings.epochs,
        batch_size=settings.batch,
        validation_data=None if validation is None else (validation[0], [validation[1]] * settings.members),
        callbacks=[Bar(title)],
        verbose=0,
    )
    return model, history.history


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of utterances given to the right speaker."""
    return float((probabilities(model, x).argmax(axis=-1) == y).mean())


def main() -> int:
    """Train, check, draw; the exit status is 1 if the gradients disagree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--seed", type=int, default=0)
    how.add_argument("--seeds", type=int, metavar="N", help="mean and spread of the test accuracy over N seeds")
    parser.add_argument("--output", type=Path, default=FOLDER / "output", help="folder of the picture")
    arguments = parser.parse_args()
    if arguments.seeds is not None and arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1; got {arguments.seeds}")
    if arguments.seed < 0:
        parser.error(f"--seed must not be negative; got {arguments.seed}")
    if keras.backend.backend() != "jax":
        parser.error(f"the gradient check needs Keras's JAX backend: KERAS_BACKEND=jax; got {keras.backend.backend()}")
    data, settings = load(), Settings()
    if arguments.seeds:
        found = []
        for seed in range(arguments.seeds):
            model, _ = train(settings, data.train_x, data.train_y, seed, title=f"seed {seed}")
            found.append(accuracy(model, data.test_x, data.test_y))
            print(f"seed {seed}: {found[-1]:.3f}", flush=True)
        print(f"test accuracy over {len(found)} seeds: mean {np.mean(found):.4f}, deviation {np.std(found):.4f}")
        return 0
    from vowels.gradient_check import check_gradients
    from vowels.picture import draw

    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output must be a folder: {error}")
    fitted, held = split(data.train_y, arguments.seed)
    validation = data.train_x[held], data.train_y[held]
    _, history = train(
        settings, data.train_x[fitted], data.train_y[fitted], arguments.seed, validation, "four fifths, validated"
    )
    model, _ = train(settings, data.train_x, data.train_y, arguments.seed, title="all training data")
    agree = check_gradients(model, draw_step, settings.units, data.test_x[:16], Console())
    predicted = probabilities(model, data.test_x).argmax(axis=-1)
    score = float((predicted == data.test_y).mean())
    print(f"test accuracy: {score:.3f}")
    print(f"picture: {draw(history, data.test_y, predicted, score, arguments.output)}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
