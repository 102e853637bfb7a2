"""Which goals hold: `python -m benchmarks.goals` says so of each, row by row, from `benchmarks/results/*.json`.

A goal is "beyond the limit" where reaching it would need less time than the row's own limit, or less memory than the
answers alone take, "beyond the series" where it would need less time than the row's parts one after the other, and no
engine has taken less; it is computed, not claimed. Only our fastest engine of a case counts.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cases import ENGINES, KERAS, cases_of
from benchmarks.rows import (
    RESULTS,
    Suites,
    answered,
    in_series,
    is_own,
    own_rows,
    sizes_of,
    steps_of,
    suites_of,
    summary,
)

INTRODUCTION = """What was aimed at, and what was seen. The limit is the longest part of a case, as if all else could be
done beside it. In series all parts follow each other: products (or reading weights) and functions of a step need one
another and the same parts of a core; what can be computed for all steps at once comes before or after; a memory that a
step attends to is read at every step, as weights are; of a single sample two cores share each step and tell each other
once, or one core does it alone; and all begins with a call from Python, or is done inside Keras's fit, whose own time
is that of a model with next to nothing to compute. What gradients need of exp, tanh and the like is kept or computed
once more, whichever is faster. "Beyond" means that the goal would take less time than that, or less memory than the
answers. Where an engine took less than the parts in series, its time counts; a limit "which ours set" is no proof,
since nothing else came so near: neither that a goal cannot be reached nor, where the goal is to be near the limit, that
it is."""

WORDS = ("reached", "beyond the limit", "beyond the series", "missed")


@dataclass(frozen=True)
class Against:
    """Ours is so many times faster than the fastest peer in every case, and in the geometric mean."""

    suite: str
    every: float
    mean: float | None = None
    keras: bool = False

    @property
    def peers(self) -> tuple[str, ...]:
        return KERAS if self.keras else tuple(e for e in ENGINES[self.suite] if not is_own(e))

    def __str__(self) -> str:
        return f"{self.suite}: times {'the fastest of Keras' if self.keras else 'the fastest peer'}"


AGAINST = (
    Against("forward", 1.0, 1.3),
    Against("training", 1.15, 1.5),
    Against("training", 3.0, keras=True),
    Against("custom", 1.0, 3.0),
    Against("shop", 3.0, keras=True),
    Against("stream", 2.0),
    Against("lengths", 1.5),
)


@dataclass(frozen=True)
class Verdict:
    """What a goal needs, and what was seen: at least so much, or at most.

    best: what would be seen at the limit. series: with all parts in series, or None where the goal is no time.
    near: whether the goal is to be near the limit.
    """

    goal: str
    case: str
    needed: float
    seen: float
    best: float
    at_most: bool = False
    series: float | None = None
    near: bool = False

    @property
    def word(self) -> str:
        tries = (self.seen, True), (self.best, False), (self.series, False)
        found = (value is not None and self._enough(value) is good for value, good in tries)
        return next((word for word, right in zip(WORDS, found) if right), WORDS[-1])

    def _enough(self, value: float) -> bool:
        return value <= self.needed if self.at_most else value >= self.needed

    @property
    def by_own_limit(self) -> bool:
        """Whether it is reached only in that nobody came nearer to what is taken for the limit."""
        return self.near and self.word == WORDS[0] and math.isclose(self.seen, self.best, rel_tol=1e-3, abs_tol=1e-3)

    @property
    def need(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.needed:.4g}"

    @property
    def cells(self) -> list[str]:
        series = "-" if self.series is None else f"{self.series:.3g}"
        decides = {WORDS[1]: self.best, WORDS[2]: self.series}.get(self.word)
        alone = ", which ours set" if decides is not None and math.isclose(self.seen, decides, rel_tol=1e-3) else ""
        return [self.goal, self.case, self.need, f"{self.seen:.4g}", f"{self.best:.3g}", series, self.word + alone]


def verdicts(suites: Suites) -> list[Verdict]:
    """Return what is to be said of every goal in every case that was measured."""
    found = [verdict for goal in AGAINST for verdict in against(goal, suites.get(goal.suite, {}))]
    found += throughput(suites)
    for kind in (overhead, memory, growth, recomputing):
        found += kind(suites)
    return found + [verdict for suite in suites for verdict in nearness(suite, suites[suite])]


def against(goal: Against, cases: dict[str, list[Any]]) -> Iterator[Verdict]:
    """Ours beside the fastest peer of some."""
    found = []
    for case, rows in cases.items():
        own, ratio = summary([r for r in rows if is_own(r["engine"]) or r["engine"] in goal.peers])
        if own is None or ratio is None:
            continue
        found.append((ratio, ratio / own["ratio_to_limit"], ratio / explained(rows)))
        seen, best, series = found[-1]
        yield Verdict(str(goal), case, goal.every, seen, best, series=series)
    if found and goal.mean is not None:
        seen, best, series = (math.exp(sum(map(math.log, some)) / len(some)) for some in zip(*found))
        yield Verdict(str(goal), "geometric mean", goal.mean, seen, best, series=series)


def throughput(suites: Suites) -> Iterator[Verdict]:
    """Drawn cells beside our own LSTM of the same sizes, in the same turns (earlier rows: in the training suite)."""
    cases = suites.get("custom", {})
    for case, own in own_rows(cases):
        lstm = dict(own_rows(suites.get("training", {}))).get(f"LSTM {case.split()[1]}", {}).get("gflops")
        lstm = own.get("lstm_gflops", lstm)
        if lstm is not None:
            seen = own["gflops"] / lstm
            goal = "custom: GFLOP/s beside our LSTM's"
            series = seen / explained(cases[case])
            yield Verdict(goal, case, 0.8, seen, seen / own["ratio_to_limit"], series=series)


def overhead(suites: Suites) -> Iterator[Verdict]:
    """What a call of a stream takes besides its arithmetic."""
    cases = suites.get("stream", {})
    for case, own in own_rows(cases):
        over = 1e6 * (own["seconds"] - own["limit_seconds"])
        series = over - 1e6 * own["seconds"] * (1 - explained(cases[case]))
        yield Verdict("stream: microseconds over the limit", case, 5, over, 0, True, series, near=True)


def memory(suites: Suites) -> Iterator[Verdict]:
    """Our peak beside PyTorch's, for a thousand steps."""
    for case, rows in suites.get("memory", {}).items():
        held = {row["engine"]: row["bytes"] for row in rows}
        if steps_of(case) == 1000 and {"rsref_fast", "torch"} <= held.keys():
            best = answered(case) / held["torch"]
            yield Verdict("memory: peak beside torch's", case, 0.6, held["rsref_fast"] / held["torch"], best, True)


def growth(suites: Suites) -> Iterator[Verdict]:
    """The power of the steps with which a checkpointed peak grows, without what is answered: that is linear anyway."""
    held = {
        case: row["bytes"] - answered(case)
        for case, rows in suites.get("memory", {}).items()
        for row in rows
        if row["engine"] == "rsref_fast checkpoint"
    }
    for few, many in pairwise(sorted(held, key=steps_of)):
        power = math.log(max(held[many], 1) / max(held[few], 1)) / math.log(steps_of(many) / steps_of(few))
        case = f"{few} to {steps_of(many)} steps"
        yield Verdict("memory: power of the steps, checkpointed", case, 0.5, power, 0, True)


def recomputing(suites: Suites) -> Iterator[Verdict]:
    """The time of a checkpointed training step beside that of a plain one."""
    for case, rows in suites.get("memory", {}).items():
        place = {row["engine"]: row for row in rows}
        if {"rsref_fast", "rsref_fast checkpoint"} <= place.keys():
            plain, own = place["rsref_fast"]["seconds"], place["rsref_fast checkpoint"]
            best = 4 / 3 * own["limit_seconds"] / plain  # forward once more
            goal = "memory: time of checkpointed beside plain"
            yield Verdict(goal, case, 1.4, own["seconds"] / plain, best, True)


def nearness(suite: str, cases: dict[str, list[Any]]) -> Iterator[Verdict]:
    """How near ours is to the limit; large problems must be nearer."""
    for case, own in own_rows(cases):
        batch, *_, units = sizes_of(case)
        needed = 0.85 if batch >= 32 and units >= 256 else 0.6
        seen = own["ratio_to_limit"]
        yield Verdict(
            f"{suite}: of the limit", case, needed, seen, 1.0, series=seen / explained(cases[case]), near=True
        )


def explained(rows: list[Any]) -> float:
    """Return how much of our time a case takes with all parts in series, or the fastest engine, if that took less."""
    own, _ = summary(rows)
    return min(in_series(own), *(row["seconds"] for row in rows)) / own["seconds"]


def tables(suites: Suites) -> list[tuple[list[str], list[list[str]]]]:
    """Return heads and lines of two tables: how many cases reach each goal, and those that do not."""
    found = verdicts(suites)
    goals: dict[str, list[Verdict]] = {}
    for verdict in found:
        goals.setdefault(verdict.goal, []).append(verdict)
    tally = []
    for goal, own in goals.items():
        counts = Counter(verdict.word for verdict in own)
        needs = dict.fromkeys(verdict.need for verdict in own)
        numbers = [str(counts[word]) for word in WORDS]
        if by_own := sum(verdict.by_own_limit for verdict in own):
            numbers[0] += f" ({by_own} by a limit which ours set)"
        tally.append([goal, ", ".join(needs), *numbers])
    rest = [verdict.cells for verdict in found if verdict.word != WORDS[0]]
    heads = ["goal", "case", "needed", "seen", "at the limit", "in series", "verdict"]
    return [(["goal", "needed", *WORDS], tally), (heads, rest)]


def unmeasured(suites: Suites) -> str:
    """Return a sentence on the cases that have no row of ours."""
    lacking = {
        suite: [str(case) for case in cases_of(suite, False) if str(case) not in dict(own_rows(suites.get(suite, {})))]
        for suite in ENGINES
    }
    parts = [
        f"{suite} ({'; '.join(cases) if suite in suites else 'all cases'})" for suite, cases in lacking.items() if cases
    ]
    return f"Not measured: {', '.join(parts)}." if parts else "All cases were measured."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description=__doc__)
    machines = sorted(folder.name for folder in RESULTS.iterdir() if folder.is_dir())
    parser.add_argument("machine", nargs="?", choices=machines, help="another machine than the first one's results")
    folder = RESULTS / (parser.parse_args().machine or "")
    files = [folder / f"{suite}.json" for suite in ENGINES]
    suites = suites_of([row for file in files if file.exists() for row in json.loads(file.read_text())])
    console = Console(width=160)
    for heads, lines in tables(suites):
        drawn = Table()
        for head in heads:
            drawn.add_column(head, justify="left" if head in ("goal", "case", "verdict") else "right")
        for line in lines:
            drawn.add_row(*line)
        console.print(drawn)
    console.print(unmeasured(suites))


if __name__ == "__main__":
    main()
