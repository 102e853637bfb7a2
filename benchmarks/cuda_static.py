"""What kernels become on GPUs that are not there: `python -m benchmarks.cuda_static [--units 64,256] [--cells LSTM]`.

For every cell, size and architecture the registers, shared memory, spills and instructions of the programs' kernels,
compiled by NVVM and nvJitLink; and, for an H100, what a step takes at least. Written to
benchmarks/results/cuda_static.json, which keeps what other runs have put there. Instructions are counted where
nvdisasm is installed. `--show` prints what has been written as docs/cuda.md shows it, and compiles nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from rsref import cells
from rsref_fast.cuda.inspection import ARCHITECTURES, Inspection, inspect
from rsref_fast.explain import flops_a_row, tape_bytes_a_row

RESULTS = Path(__file__).parent / "results" / "cuda_static.json"
CELLS = [name for name in cells.__all__ if name.endswith("Cell") and name not in ("RNNCell", "LayerCell")]
COUNTED = ("FFMA", "DFMA", "LDL", "STL", "MUFU", "LDS", "LDG", "BAR")


def layer_of(name: str, units: int) -> Any:
    """Return a built layer of a cell, with as many features as units; images of 8 x 8 for a convolution."""
    options = {"decode": True, "output_length": 3} if name == "AttentionDecoderCell" else {}
    layer = getattr(cells, name)(units).get_layer(**options)
    shapes = {"AttentionDecoderCell": (None, 8, units), "ConvLSTMCell": (None, None, 8, 8, 8)}
    layer.build(shapes.get(name, (None, None, units)))
    return layer


@cache
def disassembler() -> str | None:
    from cuda.pathfinder import find_nvidia_binary_utility

    return find_nvidia_binary_utility("nvdisasm")


def instructions(image: bytes) -> dict[str, int]:
    """Return how often some instructions stand in a kernel's machine code; nothing without a disassembler."""
    program = disassembler()
    if program is None:
        return {}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(image)
        file.flush()
        text = subprocess.run([program, "-c", file.name], capture_output=True, text=True, check=True).stdout
    # the runtime's own functions, which grid syncs bring along, stand in sections of their own names
    own = "".join(
        part for part in re.split(r"(?=//-+ \.text)", text) if not re.search("cudart|__nv_static", part[:200])
    )  # fmt: skip
    found = Counter(re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?(\w+)", own, re.M))
    return {name: found[name] for name in COUNTED if found[name]}


def rows_of(name: str, units: int, arch: str) -> list[dict[str, Any]]:
    """Return a row for each kernel of a cell's time loop."""
    found = inspect(layer_of(name, units), arch, programs=("forward", "backward"), entries=("shard",))
    return [
        {
            "cell": name.removesuffix("Cell"), "units": units, "arch": arch, "program": k.program, "team": k.team,
            "registers": k.registers, "shared": k.shared, "spilled": k.spilled, "float64": k.doubles,
            "blocks_a_multiprocessor": k.blocks, "instructions": instructions(k.image), **_work(found),
        }
        for k in found.kernels
    ]  # fmt: skip


def _work(found: Inspection) -> dict[str, Any]:
    return {
        "flops_forward": flops_a_row(found.compiled.forward),
        "flops_backward": flops_a_row(found.compiled.backward),
        "tape_bytes": tape_bytes_a_row(found.compiled, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", default="64,256,1024")
    parser.add_argument("--cells", default=",".join(name.removesuffix("Cell") for name in CELLS))
    parser.add_argument("--archs", default=",".join(ARCHITECTURES))
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    if options.show:
        print(shown(json.loads(RESULTS.read_text())))
        return
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in options.cells.split(","):
        for units in map(int, options.units.split(",")):
            for arch in options.archs.split(","):
                new = rows_of(f"{name}Cell", units, arch)
                kept = [row for row in kept if (row["cell"], row["units"], row["arch"]) != (name, units, arch)] + new
                worst = max(row["registers"] for row in new), max(row["spilled"] for row in new)
                _write(kept)
                print(f"{name} {units} {arch}: at most {worst[0]} registers, {worst[1]} bytes spilled", flush=True)


def shown(rows: list[dict[str, Any]]) -> str:
    """Return a table of the most registers and shared memory that any kernel of a cell needs. Errors: SystemExit."""
    wrong = [row for row in rows if row["spilled"] or row["float64"]]
    if wrong:
        raise SystemExit(f"spills, or float64 instructions: {wrong}")
    archs = list(ARCHITECTURES)
    lines = [f"| cell | units | {' | '.join(archs)} | shared memory, bytes |", "| --- " * (len(archs) + 3) + "|"]
    for cell, units in sorted({(row["cell"], row["units"]) for row in rows}):
        own = [row for row in rows if (row["cell"], row["units"]) == (cell, units)]
        most = [max(row["registers"] for row in own if row["arch"] == arch) for arch in archs]
        lines.append(f"| {cell} | {units:,} | {' | '.join(map(str, most))} | {max(row['shared'] for row in own):,} |")
    return "\n".join(lines)


def _write(rows: list[dict[str, Any]]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    kept = sorted(rows, key=lambda row: (row["cell"], row["units"], row["arch"], row["program"], row["team"]))
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n")


if __name__ == "__main__":
    main()
