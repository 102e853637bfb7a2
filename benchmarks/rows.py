"""What was measured, as rows of plain data: one for each engine on a case; `python -m benchmarks` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Suites = dict[str, dict[str, list[Any]]]
"""Rows by suite and case."""


def is_own(engine: str) -> bool:
    return engine.startswith(("rsref_fast", "bridge"))


def summary(rows: Sequence[Any]) -> tuple[Any, float | None]:
    """Return our own row of a case, the fastest, and how many times faster it is than the fastest peer."""
    own = min((r for r in rows if is_own(r["engine"])), key=lambda r: r["seconds"], default=None)
    peers = [r["seconds"] for r in rows if not is_own(r["engine"])]
    return own, (min(peers) / own["seconds"] if own and peers else None)


def limit_of(row: Any) -> float:
    """Return the least time of a row's case: that of its longest part, as if all others could be done beside it."""
    return max(row["products_seconds"], functions_of(row), row["reading_seconds"])


def functions_of(row: Any) -> float:
    """Return the least time of a row's functions and of what their gradients need, if the row tells that."""
    least: float = row["functions_seconds"] + row.get("again_seconds", 0.0)
    return least


def in_series(row: Any) -> float:
    """Return the least time of a row's case if nothing is done beside anything else.

    A step's products need the functions of the step before, its functions need its products, and the same parts of a
    core compute both. Of one sample two cores share each step, and tell each other once a step, or one core does it.
    All begins with a call from Python, or is a part of Keras's fit. What earlier rows do not tell is left out.
    """
    step = max(row["stepped_seconds"], row["reading_seconds"]) + row.get("attended_seconds", 0.0) + functions_of(row)
    handover = row["handover_seconds"]
    if handover:
        step = min(step + handover, 2 * step)
    once: float = (
        row["products_seconds"] - row["stepped_seconds"] + row.get("fit_seconds", row.get("call_seconds", 0.0))
    )
    return once + step


def by_case(rows: Iterable[Any]) -> dict[str, list[Any]]:
    return _grouped(rows, lambda row: row["case"])


def by_suite(rows: Iterable[Any]) -> dict[str, list[Any]]:
    return _grouped(rows, lambda row: row["suite"])


def replaced(rows: Iterable[Any], new: Iterable[Any], others: bool = False) -> list[Any]:
    """Return rows in their order, with those of some cases measured again. others: keep other engines' of these."""
    found, again = (_grouped(some, lambda row: (row["suite"], row["case"])) for some in (rows, new))
    for case, own in again.items() if others else ():
        place = {row["engine"]: row for row in (*found.get(case, []), *own)}
        again[case] = list(place.values())
    return [row for case in {**found, **again} for row in again.get(case, found.get(case, []))]


def engines_of(rows: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(row["engine"] for row in rows))


def suites_of(rows: Iterable[Any]) -> Suites:
    return {suite: by_case(own) for suite, own in by_suite(rows).items()}


def own_rows(cases: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    """Return our fastest row of each case."""
    for case, rows in cases.items():
        own, _ = summary(rows)
        if own is not None:
            yield case, own


def answered(case: str) -> int:
    """Return the bytes of y and the gradient of x, which every engine holds in the end."""
    batch, steps, features, units = sizes_of(case)
    return 4 * batch * steps * (features + units)


def sizes_of(case: str) -> list[int]:
    """Return batch, steps, features and units of a case's name."""
    sizes = next(part for part in case.split() if part.count(",") == 3)
    return [int(size) for size in sizes.split(",")]


def steps_of(case: str) -> int:
    return sizes_of(case)[1]


def _grouped(rows: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found
