"""What a sequence takes about on an H100, reckoned: `python -m benchmarks.cuda_roofline`.

From a program's arithmetic, the fetches and meetings of a step, and what leaves the loop, with the figures of
`rsref_fast.cuda.choice`, by which strategies are chosen. docs/cuda.md has beside it what was measured.
"""

from __future__ import annotations

import argparse

from benchmarks.cuda_static import layer_of
from rsref_fast.cuda.choice import outside_seconds, step_seconds
from rsref_fast.cuda.inspection import inspect
from rsref_fast.cuda.tile import tile_for

HEAD = """| cell | batch, steps, units | strategy | forward, ms | forward and backward, ms |
| --- | --- | --- | --- | --- |"""


WAYS = (("persistent", "auto"), ("alternating", "auto"), ("alternating", "tiles"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="LSTM,GRU,RHN,LayerNormLSTM")
    parser.add_argument(
        "--sizes", default="64x128x64,64x128x256,16x1024x768,128x128x1024", help="batch x steps x units"
    )
    options = parser.parse_args()
    print(HEAD)
    tile = tile_for((9, 0))
    for cell in options.cells.split(","):
        for size in options.sizes.split(","):
            batch, steps, units = map(int, size.split("x"))
            layer = layer_of(f"{cell}Cell", units)
            for strategy, products in WAYS:
                found = inspect(layer, entries=(), products=products)
                choice = found.choice(batch, strategy)
                forward, backward = (
                    steps * (step_seconds(p, batch, choice, tile) + outside_seconds(p, batch, choice, tile))
                    for p in (found.compiled.forward, found.compiled.backward)
                )
                print(
                    f"| {cell} | {batch}, {steps}, {units} | {choice} | {1e3 * forward:.1f} | "
                    f"{1e3 * (forward + backward):.1f} |"
                )


if __name__ == "__main__":
    main()
