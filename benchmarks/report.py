"""Tables and pictures of what was measured: `python -m benchmarks.report` makes docs/performance.md of all results."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import goals
from benchmarks.rows import RESULTS, by_case, by_suite, engines_of, is_own, suites_of, summary

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
TITLES = {
    "forward": "Forward",
    "training": "Training step: forward and all gradients",
    "custom": "Drawn cells, training step",
    "stream": "Stream: one step at a time, batch 1, states kept",
    "lengths": "Sequences of several lengths, training step",
    "memory": "Memory of a training step",
    "shop": "Recurrent Shop's own speed test: an epoch of 4 batches with Keras's fit",
}

FROZEN, PACKING = "rsref_fast frozen", "onnxruntime"
"""Engines that pack weights before the calls."""

LIKE_WITH_LIKE = "Like with like, ours with packed weights beside ONNX Runtime and without beside the others:"

IN_SHORT = {
    "forward": "forward",
    "training": "training",
    "custom": "drawn cells",
    "stream": "streams",
    "lengths": "sequences of several lengths",
    "shop": "Keras's fit",
}

COLOURS = {
    "rsref_fast": "black",
    "rsref_fast checkpoint": "dimgray",
    "rsref_fast frozen": "dimgray",
    "bridge jax": "black",
    "bridge tensorflow": "dimgray",
    "bridge torch": "darkgray",
    "torch": "C0",
    "torch padded": "C9",
    "loop torch": "C0",
    "compiled torch": "C9",
    "onnxruntime": "C1",
    "jax scan": "C2",
    "keras jax": "C3",
    "drawn jax": "C3",
    "keras tensorflow": "C4",
    "drawn tensorflow": "C4",
    "keras torch": "C5",
}
"""Ours are black and gray."""

INTRODUCTION = """# Performance

Made by `python -m benchmarks.report` from `benchmarks/results/*.json`, which `python -m benchmarks --json FILE` (extra
`bench`) writes. Cases are batch, steps, features, units; times are milliseconds, float32, two threads, every engine in
a process of its own. They take turns of a quarter of a second, and the median of an engine's best turn counts: who
shares a machine only ever slows it down.
Every engine's answer is compared with the reference engine's before it is timed (memory: of 50 steps; Keras's fit: the
prediction and a step of SGD). The drawn cells' peers compute a step as it is drawn, but for the attention decoder's
keys, which depend on no step and are computed before their loops, as our compiler does by itself. Later turns leave out
peers that took more than 1.5 times as long as the fastest in the first one (where a goal names Keras's backends, as the
fastest of these): they decide nothing. Ratios above 1: ours is faster than the fastest peer. The limit is the longest
of three times: the products at the best rate that anything reached in the run; the exponentials and the like, each
once, at the best rate of NumPy, PyTorch or our own kernels, and what gradients need of them once more, read from memory
or computed again, whichever is faster; and reading the recurrent weights once a step at the speed of the memory that
they fit into. All are counted from the drawn step; what depends on no step
counts once a call. "Frozen": weights are packed once, before the calls, as those of ONNX Runtime's sessions are. Read
ratios, not times: machines are shared."""


def cells(rows: Sequence[Any], engines: Sequence[str]) -> list[str]:
    """Return what a table says of a case: milliseconds of each engine, the ratio to the fastest peer, the limit."""
    place = {row["engine"]: row for row in rows}
    own, ratio = summary(rows)
    times = [_milliseconds(place[e]["seconds"]) if e in place else "-" for e in engines]
    near = (f"{own['gflops']:.0f}", f"{own['ratio_to_limit']:.2f}") if own else ("-", "-")
    return [*times, "-" if ratio is None else f"{ratio:.2f}", *near]


def _milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def line(rows: Sequence[Any]) -> str:
    """Return what is said of a case as soon as it is measured."""
    engines = engines_of(rows)
    *times, ratio, _, near = cells(rows, engines)
    shown = ", ".join(f"{engine} {time}" for engine, time in zip(engines, times))
    return f"{rows[0]['case']}: {shown} ms; times the fastest peer {ratio}, of the limit {near}"


def table(suite: str, rows: Sequence[Any]) -> Table:
    """Return a table with colours."""
    engines = engines_of(rows)
    drawn = Table(title=f"{TITLES[suite]}: milliseconds, two threads, float32")
    for head in ("case", *engines, "times the fastest peer", "GFLOP/s", "of the limit"):
        drawn.add_column(head, justify="left" if head == "case" else "right")
    for case, own in by_case(rows).items():
        shown = cells(own, engines)
        _, ratio = summary(own)
        if ratio is not None:
            shown[-3] = f"[{'green' if ratio >= 1 else 'red'}]{shown[-3]}"
        drawn.add_row(case, *shown)
    return drawn


def picture(rows: Sequence[Any], path: Path) -> None:
    """Draw the speed of every engine as bars, a group for each case, and the limit as a line; write it to a file.

    The memory suite has its peak memory beside it, lower being better.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    suites = by_suite(rows)
    panels = [(suite, own, "ratio_to_limit") for suite, own in suites.items()]
    panels += [("memory", suites["memory"], "bytes")] if "memory" in suites else []
    figure, axes = plt.subplots(len(panels), 1, figsize=(12, 4.2 * len(panels)), squeeze=False, layout="constrained")
    for axis, (suite, own, what) in zip(axes[:, 0], panels):
        heights = _bars(axis, own, what)
        axis.set_title(TITLES[suite] + (": peak memory" if what == "bytes" else ""))
        axis.set_ylim(0, 1.2 * max(heights))
        if what == "bytes":
            axis.set_ylabel("peak memory, MiB")
            continue
        axis.set_ylabel("speed, 1 is the limit")
        if max(heights) > 0.5:  # else the limit is out of sight
            axis.axhline(1, color="gray", linewidth=1)
            axis.set_ylim(0, 1.25)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axis: Any, rows: Sequence[Any], what: str) -> list[float]:
    """Draw a column of the rows as bars, a group for each case; return their heights."""
    cases, engines, unit = by_case(rows), engines_of(rows), 2**20 if what == "bytes" else 1
    width, few = 0.8 / len(engines), len(cases) * len(engines) <= 12
    heights = []
    for i, engine in enumerate(engines):
        found = {k: r[what] / unit for k, group in enumerate(cases.values()) for r in group if r["engine"] == engine}
        bars = axis.bar(
            [k + i * width for k in found],
            list(found.values()),
            width,
            align="edge",
            label=engine,
            color=_colour(engine),
        )
        if few:
            axis.bar_label(bars, fmt=_short, fontsize=7, padding=1)
        heights += list(found.values())
    names = [re.sub(r" (?=\d+,)", "\n", case) if few else case for case in cases]
    axis.set_xticks([k + 0.4 for k in range(len(cases))], names, fontsize=8)
    if not few:
        axis.tick_params("x", rotation=45)
        for label in axis.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.2, len(cases))
    axis.legend(fontsize=7, ncols=len(engines), loc="upper left")
    return heights


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _colour(engine: str) -> str:
    """Return an engine's colour, the same in every picture."""
    return COLOURS.get(engine, "C7")


def page(folder: Path) -> str:
    """Return the page of all results: those of a folder, and in folders inside it those of other machines."""
    others = sorted(path for path in folder.iterdir() if any(path.glob("*.json")))
    machines = [(folder, "", "../benchmarks/results")]
    machines += [(other, f" ({other.name})", f"../benchmarks/results/{other.name}") for other in others]
    lines = [
        INTRODUCTION,
        "",
        _in_short(folder),
        "",
        *(line for path, name, where in machines for line in _machine(path, name, where)),
    ]
    return "\n".join(lines) + "\n"


def _in_short(folder: Path) -> str:
    """Return a sentence on how many times the fastest peer our engine does what each suite does."""
    means = []
    for suite, name in IN_SHORT.items():
        rows = by_suite(json.loads((folder / f"{suite}.json").read_text()))[suite]
        means.append(f"{name} {_mean(_ratios(rows)):.2f}")
    return f"In short, times the fastest peer in the geometric mean, on the first machine: {', '.join(means)}."


def _ratios(rows: Sequence[Any]) -> list[float]:
    """Return how many times the fastest peer our engine does each case that both have."""
    return [ratio for own in by_case(rows).values() if (ratio := summary(own)[1]) is not None]


def _like_with_like(rows: Sequence[Any]) -> list[float]:
    """Return how many times the fastest peer ours is, packed weights counting beside those of ONNX Runtime alone."""
    found = []
    for own in by_case(rows).values():
        times = {row["engine"]: row["seconds"] for row in own}
        peers = {name: seconds for name, seconds in times.items() if not is_own(name)}
        packed = peers.pop(PACKING, None)
        beside = [] if packed is None else [packed / times[FROZEN]]
        found.append(min(min(peers.values()) / times["rsref_fast"], *beside))
    return found


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _machine(folder: Path, name: str, where: str) -> list[str]:
    """Return notes, goals and tables of one machine's results.

    name: of the machine, behind every heading; none for the first. where: the folder, as the page names it.
    """
    files = [file for suite in TITLES if (file := folder / f"{suite}.json").exists()]
    stored = [json.loads(file.read_text()) for file in files]
    level = "###" if name else "##"
    lines = ["", f"## Another machine{name}", ""] if name else []
    lines += [(folder / "notes.md").read_text().rstrip(), ""]
    lines += _goals([row for found in stored for row in found], f"{level} Goals{name}", told=bool(name))
    for file, found in zip(files, stored):
        for suite, rows in by_suite(found).items():
            lines += ["", f"{level} {TITLES[suite]}{name}", "", *markdown(rows), ""]
            if suite == "memory":
                lines += _memory(rows)
            about = dict.fromkeys(row["machine"] for row in rows)
            commits = dict.fromkeys(row["commit"] for row in rows if "commit" in row)
            lines.append(f"{'; '.join(about)}{', commit ' if commits else ''}{', '.join(commits)}.")
        if file.with_suffix(".png").exists():
            lines += ["", f"![{TITLES[file.stem]}: speed of each engine beside the limit]({where}/{file.stem}.png)"]
    return lines


def markdown(rows: Sequence[Any]) -> list[str]:
    """Return a table's lines, and the geometric mean of the ratios below it."""
    engines = engines_of(rows)
    heads = ["case", *engines, "times the fastest peer", "GFLOP/s", "of the limit"]
    lines = _lines(heads, [[case, *cells(own, engines)] for case, own in by_case(rows).items()])
    if ratios := _ratios(rows):
        lines += ["", f"Geometric mean {_mean(ratios):.2f}, least {min(ratios):.2f}, times the fastest peer."]
    if FROZEN in engines:
        alike = _like_with_like(rows)
        lines[-1] += f" {LIKE_WITH_LIKE} {_mean(alike):.2f} and {min(alike):.2f}."
    return lines


def _memory(rows: Sequence[Any]) -> list[str]:
    """Return a table of how much more memory each engine held at most than before its first call."""
    engines, shown = engines_of(rows), []
    for case, own in by_case(rows).items():
        held = {r["engine"]: f"{r['bytes'] / 2**20:.0f}" for r in own}
        shown.append([case, *(held.get(e, "-") for e in engines)])
    return ["Peak memory, MiB:", "", *_lines(["case", *engines], shown), ""]


def _goals(rows: Sequence[Any], heading: str, told: bool) -> list[str]:
    """Return a section on the goals. told: whether the page has said before what they are."""
    suites = suites_of(rows)
    lines = [heading, "", *([] if told else [goals.INTRODUCTION, ""])]
    for heads, shown in goals.tables(suites):
        lines += [*_lines(heads, shown), ""]
    return [*lines, goals.unmeasured(suites)]


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__).parse_args()
    PAGE.write_text(page(RESULTS))


if __name__ == "__main__":
    main()
