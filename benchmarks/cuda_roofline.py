"""What a sequence takes about on an H100, reckoned: `python -m benchmarks.cuda_roofline`.

Predicted from a program's arithmetic, the fetches and meetings of a step (`rsref_fast.cuda.choice`), and what leaves
the loop; not measured. docs/cuda.md has the published times of others beside it.
"""

from __future__ import annotations

import argparse

from benchmarks.cuda_static import layer_of
from rsref_fast.cuda.choice import choose, outside_seconds, step_seconds
from rsref_fast.cuda.inspection import ARCHITECTURES, built
from rsref_fast.cuda.tile import USUAL
from rsref_fast.program import Program

HEAD = """| cell | batch, steps, units | strategy | forward, ms | forward and backward, ms |
| --- | --- | --- | --- | --- |"""


WAYS = (("persistent", "tiles"), ("alternating", "tiles"), ("alternating", "auto"))
WITH = {"tiles": "", "auto": ", with cuBLAS"}


def seconds(
    program: Program, mixes: bool, batch: int, steps: int, strategy: str, products: str
) -> tuple[float, str]:  # fmt: skip
    """Return about what a program takes, and how it is spread."""
    choice = choose(program, mixes, batch, ARCHITECTURES["sm_90"], USUAL, strategy, products=products)
    each = step_seconds(program, batch, choice, USUAL) + outside_seconds(program, batch, choice, USUAL)
    return steps * each, f"{choice.strategy}, {choice.team}{WITH[choice.products]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="LSTM,GRU,RHN,LayerNormLSTM")
    parser.add_argument("--sizes", default="64x128x64,16x1024x768,64x128x1024", help="batch x steps x units")
    options = parser.parse_args()
    print(HEAD)
    for cell in options.cells.split(","):
        for size in options.sizes.split(","):
            batch, steps, units = map(int, size.split("x"))
            compiled = built(layer_of(f"{cell}Cell", units).recurrence)
            for way in WAYS:
                forward, how = seconds(compiled.forward, compiled.mixes, batch, steps, *way)
                backward, _ = seconds(compiled.backward, compiled.mixes, batch, steps, *way)
                print(
                    f"| {cell} | {batch}, {steps}, {units} | {how} | {1e3 * forward:.1f} | "
                    f"{1e3 * (forward + backward):.1f} |"
                )


if __name__ == "__main__":
    main()
