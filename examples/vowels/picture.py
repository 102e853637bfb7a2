"""The picture of the demo: learning curve beside confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw(history: dict[str, Any], truth: np.ndarray, predicted: np.ndarray, accuracy: float, folder: Path) -> Path:
    """Write learning curve and confusion matrix of the test utterances to a PNG file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    left.plot(range(1, len(history["loss"]) + 1), history["loss"], label="training (four fifths)")
    left.plot(range(1, len(history["val_loss"]) + 1), history["val_loss"], label="validation (one fifth)")
    left.set(xlabel="epoch", ylabel="cross-entropy, summed over members", title="Learning curve", yscale="log")
    left.grid(alpha=0.3, which="both")
    left.legend()
    speakers = int(truth.max()) + 1
    counts = np.zeros((speakers, speakers), int)
    np.add.at(counts, (truth, predicted), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    image = right.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        if count:
            right.text(j, i, str(count), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    ticks = range(speakers)
    right.set(xlabel="predicted speaker", ylabel="true speaker", title="Test utterances", xticks=ticks, yticks=ticks)
    right.set_xticks(ticks, [str(i + 1) for i in ticks])
    right.set_yticks(ticks, [str(i + 1) for i in ticks])
    figure.colorbar(image, ax=right, label="share of the speaker's utterances")
    figure.suptitle(f"Japanese Vowels, a drawn minimal gated unit: test accuracy {accuracy:.3f}")
    path = folder / "japanese_vowels.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
