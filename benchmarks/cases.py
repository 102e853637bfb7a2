"""What is measured: suites of cases (cell, batch, steps, features, units), and who takes part in each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

Sizes = list[tuple[int, int, int, int]]
SIZES: Sizes = [
    (1, 100, 64, 64),
    (1, 100, 256, 256),
    (1, 100, 512, 1024),
    (4, 100, 256, 256),
    (16, 100, 64, 128),
    (32, 100, 128, 256),
    (64, 100, 512, 512),
    (128, 50, 1024, 1024),
    (256, 100, 64, 64),
]
CUSTOM_SIZES: Sizes = [(16, 100, 64, 128), (32, 100, 128, 256), (256, 100, 64, 64), (64, 100, 512, 512)]
CUSTOM = ("RHN", "LayerNormLSTM", "PeepholeLSTM", "RWA", "AttentionDecoder", "Nested", "Readout")
KERAS = ("keras jax", "keras tensorflow", "keras torch")
ENGINES = {
    "forward": ("rsref_fast", "rsref_fast frozen", "torch", "onnxruntime", "jax scan", *KERAS),
    "training": ("rsref_fast", "torch", "jax scan", *KERAS),
    "custom": ("rsref_fast", "drawn jax", "drawn tensorflow", "loop torch", "compiled torch"),
    "stream": ("rsref_fast", "torch", "onnxruntime"),
    "lengths": ("rsref_fast", "torch", "torch padded", *KERAS),
    "memory": ("rsref_fast", "rsref_fast checkpoint", "torch", "jax scan"),
    "shop": ("bridge jax", "bridge tensorflow", "bridge torch", *KERAS),
}
"""Who takes part; our own engine is the first, or those whose name begins with "bridge"."""


@dataclass(frozen=True)
class Case:
    """One problem. All suites but "forward" and "stream" compute gradients too.

    cell: a cell of rsref without "Cell"; "LSTM x3" for three of them; "Nested" and "Readout" are drawn in `problems`.
    lengths: "" for whole sequences, "vowels" or "uniform" for sequences of several lengths, padded.
    """

    suite: str
    cell: str
    batch: int
    steps: int
    features: int
    units: int
    lengths: str = ""

    @property
    def training(self) -> bool:
        return self.suite not in ("forward", "stream")

    @property
    def stock(self) -> str:
        """LSTM or GRU, if it is a stack of those."""
        return self.cell.split()[0] if self.cell.split()[0] in ("LSTM", "GRU") else ""

    @property
    def layers(self) -> int:
        return 3 if self.cell.endswith("x3") else 1

    @property
    def batches(self) -> int:
        """How many of them one timed call computes: Keras's fit, an epoch."""
        return 4 if self.suite == "shop" else 1

    def __str__(self) -> str:
        sizes = f"{self.batch},{self.steps},{self.features},{self.units}"
        return " ".join(part for part in (self.cell, sizes, self.lengths) if part)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def beside(case: Case) -> dict[str, tuple[str, Case]]:
    """Return what has turns beside the engines of a case to be compared with: by its name, an engine and a case.

    Drawn cells: our own LSTM of the same sizes. Keras's fit: that of a model with next to nothing to compute.
    """
    if case.suite == "custom":
        return {"rsref_fast LSTM": ("rsref_fast", replace(case, cell="LSTM"))}
    return {f"idle {name.split()[1]}": (f"idle {name.split()[1]}", case) for name in KERAS if case.suite == "shop"}


def cases_of(suite: str, quick: bool) -> list[Case]:
    """Return the cases of a suite; quick: those that take a minute in all."""
    if suite in ("forward", "training"):
        if quick:
            return [Case(suite, "LSTM", *SIZES[1]), Case(suite, "GRU", *SIZES[4])]
        stacked = Case(suite, "LSTM x3", 32, 100, 256, 256)
        return [*(Case(suite, cell, *size) for cell in ("LSTM", "GRU") for size in SIZES), stacked]
    if suite == "custom":
        if quick:
            return [Case(suite, "LayerNormLSTM", *CUSTOM_SIZES[0])]
        return [Case(suite, cell, *size) for cell in CUSTOM for size in CUSTOM_SIZES]
    if suite == "stream":
        return [Case(suite, "LSTM", 1, 1, units, units) for units in ((64, 256) if quick else (64, 256, 1024))]
    if suite == "lengths":
        vowels = Case(suite, "LSTM", 64, 29, 12, 256, "vowels")
        return [vowels] if quick else [vowels, Case(suite, "LSTM", 64, 200, 64, 256, "uniform")]
    if suite == "memory":
        return [Case(suite, "LSTM", 64, steps, 256, 256) for steps in ((250,) if quick else (250, 1000, 4000))]
    return [Case(suite, "LSTM x3", 10, 200 if quick else 1000, 10, 10)]
