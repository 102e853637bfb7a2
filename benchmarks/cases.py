"""What is measured: suites of cases (cell, batch, steps, features, units), and who takes part in each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SIZES = [
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
QUICK = [(1, 100, 256, 256), (16, 100, 64, 128), (32, 100, 128, 256), (256, 100, 64, 64)]
CUSTOM_SIZES = [(16, 100, 64, 128), (32, 100, 128, 256), (256, 100, 64, 64), (64, 100, 512, 512)]
CUSTOM_CELLS = ("RHNCell", "LayerNormLSTMCell", "PeepholeLSTMCell", "RWACell")
STOCK = ("rsref_fast", "torch", "onnxruntime", "jax scan", "keras jax", "keras tensorflow", "keras torch")
ENGINES = {
    "forward": STOCK,
    "training": tuple(name for name in STOCK if name != "onnxruntime"),
    "custom": ("rsref_fast", "drawn jax", "drawn tensorflow", "drawn torch"),
}


@dataclass(frozen=True)
class Case:
    """suite: "forward", or "training" and "custom", which also compute all gradients."""

    suite: str
    cell: str
    batch: int
    steps: int
    features: int
    units: int

    @property
    def training(self) -> bool:
        return self.suite != "forward"

    def __str__(self) -> str:
        return f"{self.cell.removesuffix('Cell')} {self.batch},{self.steps},{self.features},{self.units}"

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def cases_of(suite: str, quick: bool) -> list[Case]:
    """Return the cases of a suite; quick: those that take a minute in all."""
    if suite == "custom":
        sizes = CUSTOM_SIZES[:1] if quick else CUSTOM_SIZES
        return [Case(suite, cell, *size) for cell in CUSTOM_CELLS for size in sizes]
    return [Case(suite, "LSTMCell", *size) for size in (QUICK if quick else SIZES)]
