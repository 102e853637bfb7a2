"""How the demo's settings were chosen: each candidate judged on held-out training data, never on the test data.

Every candidate is trained on four fifths of the training utterances and judged on the fifth that was held out, for
several splits, each with a seed. It takes many minutes. `python examples/japanese_vowels_search.py`
"""

from __future__ import annotations

import dataclasses

import numpy as np
from japanese_vowels import Settings, load, probabilities, split, train

START = dataclasses.replace(Settings(), noise=0.3)
CANDIDATES = [
    {},
    {"noise": 0.1},
    {"noise": 0.6},
    {"units": 32},
    {"units": 100},
    {"dropout": 0.0},
    {"learning_rate": 2e-3},
    {"epochs": 50},
    {"members": 1},
]
SPLITS = 3


def main() -> None:
    """Print validation accuracy and loss of every candidate, mean over the splits."""
    data = load()
    for change in CANDIDATES:
        settings = dataclasses.replace(START, **change)
        right, losses = [], []
        for seed in range(SPLITS):
            fitted, held = split(data.train_y, seed)
            model, _ = train(settings, data.train_x[fitted], data.train_y[fitted], seed, title=str(change))
            answers, y = probabilities(model, data.train_x[held]), data.train_y[held]
            right.append((answers.argmax(axis=-1) == y).mean())
            losses.append(-np.log(answers[np.arange(len(y)), y]).mean())
        print(f"{change!s:30} accuracy {np.mean(right):.4f}  cross-entropy {np.mean(losses):.4f}", flush=True)


if __name__ == "__main__":
    main()
