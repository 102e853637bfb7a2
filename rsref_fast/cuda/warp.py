"""What a warp does of a product with held weights on its tensor core: the text of it, a function for each width.

Results are one variable each, for they must stay in registers; so the text is made for each number of eights of
columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rsref_fast.cuda.holding import ACROSS, PITCH
from rsref_fast.cuda.templates import filled

AHEAD = {1: 5, 2: 3, 3: 3, 4: 2}
SPARING = {1: 3, 2: 2, 3: 2, 4: 1}
"""By eights of columns, sixteens of terms that a thread asks for before it needs the first: what registers allow, in
programs of one such product, and in those of several."""

SUMS = {
    1: (("ca", "da", "ea"), ("cb", "db", "eb")), 2: (("c", "d", "e"),) * 2, 3: (("c", "d", "d"),) * 2,
    4: (("c", "d", "d"),) * 2,
}  # fmt: skip
"""By eights of columns, in which sums the three products of eight terms go, for the first eight of sixteen and the
second: a tensor core takes several products to answer one, so for few columns there are more."""

WORK = '''
def {name}(tiles, whole, begin, left, upper, lower, depth_step, depth, right, found):
    """Compute a piece's results from some sixteens of terms, and put them down. tiles: eights of columns there are.

    begin, left: the first sixteen, and how many. upper, lower: a thread's two rows.
    """
    lane = remainder(thread(), 32)
    near = begin * 16 + remainder(lane, 4) * 4
    right = at(right, lane * 4)
    {columns}
    {clear}
    {fetch}
    while left > 0:
        {turns}
        left -= {ahead}
        near += {ahead} * 16
        upper, lower, right = at(upper, {ahead} * {step}), at(lower, {ahead} * {step}), at(right, {ahead} * 128)
    found = at(found, quotient(lane, 4) * {pitch} + remainder(lane, 4) * 2)
    {spread}
'''


def work(tiles: int, fours: bool, ahead: int) -> str:
    """Return the text of what a warp does for so many eights of columns.

    ahead: sixteens of terms that are asked for before the first is needed. fours: whether terms are in sixteens, each
    thread's four of them side by side. If not, of the eights of columns those that are not there are computed from
    others' weights, for nobody.
    """
    across = range(tiles)
    results = [f"{kind}{t}" for kind in dict.fromkeys(itertools.chain(*SUMS[tiles])) for t in across]
    names = {
        "name": work_name(tiles, fours), "pitch": PITCH, "ahead": ahead, "step": "16" if fours else "16 * depth_step",
    }  # fmt: skip
    blocks = {
        "columns": [f"place{t} = {t if fours else f'min({t}, tiles - 1)'} * whole * 128" for t in across],
        "clear": [f"{_four(f'{name}_')} = F(0), F(0), F(0), F(0)" for name in results],
        "fetch": [line for m in range(ahead) for line in _fetch(m, m, fours)],
        "turns": [line for m in range(ahead) for line in _turn(m, tiles, ahead, fours)],
        "spread": [
            f"put_two(found, {8 * low * PITCH + t * 8}, {_added(t, tiles, 2 * low)}, {_added(t, tiles, 2 * low + 1)})"
            for t in across
            for low in range(2)
        ],
    }  # fmt: skip
    return filled(WORK, blocks, names)


def work_name(tiles: int, fours: bool) -> str:
    return f"work_{tiles}" if fours else "work_any"


def _added(tile: int, tiles: int, i: int) -> str:
    """Return the sum of a result's sums, those of the rests first."""
    kinds = dict.fromkeys(itertools.chain(*SUMS[tiles]))
    return " + ".join(f"{kind}{tile}_{i}" for kind in sorted(kinds, key=lambda kind: kind[0] == "c"))


def _fetch(m: int, ahead: int, fours: bool) -> list[str]:
    """Return the lines that ask for sixteen terms of a thread's two rows."""
    lines = []
    for name, side in (("x", "upper"), ("y", "lower")):
        if fours:
            lines.append(f"{_four(f'{name}{m}_')} = four_at({side}, {ahead * 16})")
            continue
        for i in range(4):
            place = ahead * 16 + i
            value = f"{side}[{place} * depth_step] if near + {place} < depth else F(0)"
            lines.append(f"{name}{m}_{i} = {value}")
    empty = [f"{_four(f'{name}{m}_')} = F(0), F(0), F(0), F(0)" for name in "xy"] if ahead == m else []
    return [*empty, f"if left > {ahead}:", *(f"    {line}" for line in lines)]


def _turn(m: int, tiles: int, ahead: int, fours: bool) -> list[str]:
    """Return the lines that multiply sixteen terms, and ask for others in their place."""
    across = range(tiles)
    inner = [f"{_four(f'w{t}_')} = four_at(right, place{t} + {m * 128})" for t in across]
    for name in "xy":
        inner += [f"{name}h{i} = rounded({name}{m}_{i})" for i in range(4)]
        inner += [f"{name}l{i} = {name}{m}_{i} - {name}h{i}" for i in range(4)]
    inner += _fetch(m, m + ahead, fours)
    for t in across:
        inner += [f"wh{t}_{i} = rounded(w{t}_{i})" for i in range(4)]
        inner += [f"wl{t}_{i} = w{t}_{i} - wh{t}_{i}" for i in range(4)]
    for pair in range(2):
        for kind, left, right in zip(SUMS[tiles][pair], "hlh", "hhl"):
            for t in across:
                names = _four(f"{kind}{t}_")
                rows = ", ".join(f"{row}{left}{2 * pair + k}" for k in range(2) for row in "xy")
                terms = ", ".join(f"w{right}{t}_{2 * pair + k}" for k in range(2))
                inner.append(f"{names} = multiply_add({names}, {rows}, {terms})")
    return [f"if left > {m}:", *(f"    {line}" for line in inner)]


def _four(name: str) -> str:
    return ", ".join(f"{name}{i}" for i in range(4))


def works(several: bool) -> Iterator[str]:
    """Yield the functions. several: whether a program has more than one such product."""
    yield work(ACROSS, False, 1)
    for tiles, ahead in (SPARING if several else AHEAD).items():
        yield work(tiles, True, ahead)
