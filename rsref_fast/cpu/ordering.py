"""Where the threads of a team must meet: before a call that needs, or spoils, what others have touched since.

Found out for a whole entry, through its loops and branches, by the names of memory. All threads take the same branches.

Many calls go through rows of `units` elements, of which a thread computes its part: of a memory they touch elements of
which the place modulo `units` is in that part. Two such calls need no meeting in between: a unit's gates are computed,
and its states from them, by the same thread. Nor do two that one thread makes alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from rsref_fast.cpu.text import INDENT, nested
from rsref_fast.views import Buffer, Space

TARGETS = {"copy_rows": 3, "gather_rows": 4, "gather_previous": 6, "zero_rows": 2, "cut_rows": 3, "add_part": 2}
"""Which argument of the runtime's own functions is written."""

WIDTHS = {"copy_rows": 1, "gather_rows": 1, "gather_previous": 2, "zero_rows": 1, "cut_rows": 1}
"""Which one says of how many elements the rows are, of which threads have parts."""

ALONE = 0
"""In place of units: what one thread touches that makes a call alone."""

ROWS = -1
"""In place of units: what a thread touches that computes whole rows, those whose places modulo the team are its own."""

MEETINGS = ("meet(N)", "line(N)", "near(N)")
"""Where all threads of a team meet, those of a line of it, and those of which nothing is known who touches what."""

MOVING: dict[Space | None, tuple[Space | None, ...]] = {
    Space.BLOCK: (),
    Space.PACKED: (),
    Space.PREVIOUS: (None,),
    Space.CURRENT: (None,),
    Space.FLOW_IN: (Space.FLOW_OUT,),
    Space.FLOW_OUT: (Space.FLOW_IN,),
}
"""Which rows the next step names that one has touched: it has others of the memory that holds those of many steps."""


@dataclass(frozen=True)
class Touch:
    """How a call touches a memory.

    units: see above; None if a thread touches more than its part. rows: which ones, as a step sees them; None for any.
    line: whether they are those of samples that a line of the team has for itself, and others need not be waited for.
    """

    units: int | None
    written: bool
    rows: Space | None = None
    line: bool = False

    def disturbs(self, other: Touch) -> bool:
        apart = self.rows is not None and other.rows is not None and self.rows is not other.rows
        own = (self.line and other.line) or (self.units is not None and self.units == other.units)
        return not apart and not own and (self.written or other.written)


Touched = Mapping[str, frozenset[Touch]]
"""By the name of a memory."""


def touched_by(
    units: Mapping[Buffer, int | None], written: Collection[Buffer], lined: Collection[Buffer] = ()
) -> Touched:
    """Return how a step's call touches memory, from the buffers that a function is given. lined: rows of a line."""
    return _joined((b.memory or b.name, Touch(own, b in written, b.space, b in lined)) for b, own in units.items())


def anywhere(touched: Touched) -> Touched:
    """Return the same, whichever rows it is."""
    return {name: frozenset(replace(touch, rows=None) for touch in own) for name, own in touched.items()}


def _a_step_later(touched: Touched) -> Touched:
    return {
        name: frozenset(replace(t, rows=rows) for t in own for rows in MOVING.get(t.rows, (t.rows,)))
        for name, own in touched.items()
    }


def _joined(pairs: Iterable[tuple[str, Touch]]) -> Touched:
    found: dict[str, frozenset[Touch]] = {}
    for name, touch in pairs:
        found[name] = found.get(name, frozenset()) | {touch}
    return found


def _both(one: Touched, other: Touched) -> Touched:
    nothing: frozenset[Touch] = frozenset()
    return {name: one.get(name, nothing) | other.get(name, nothing) for name in (*one, *other)}


def _conflict(earlier: Touched, later: Touched) -> bool:
    """Whether threads must meet between calls that have touched memory and others that will."""
    return any(touch.disturbs(other) for name, own in later.items() for other in earlier.get(name, ()) for touch in own)


def spread(lines: Sequence[str], known: Mapping[str, Touched], memory: Collection[str]) -> list[str]:
    """Return an entry's lines as `ordered` does, if all threads make each call, for elements all over the memory."""
    return ordered(lines, _everywhere(known), memory, alone=False, sparing=False)


def shared_out(lines: Sequence[str], known: Mapping[str, Touched], memory: Collection[str]) -> list[str]:
    """Return an entry's lines as `ordered` does, if each thread of the team is a block of threads, and lines have some.

    They all make each call. Lines share out the samples, so those of a line meet by `line(N)` where all need not; and
    those of a block, among which nothing is known of who touches what, by `near(N)` wherever no others need.
    """
    lines = ordered(lines, known, memory, alone=False)
    inside = _changed(known, lambda touch: replace(touch, line=False))
    lines = ordered(lines, inside, memory, alone=False, word="line(N)")
    return ordered(lines, _everywhere(known), memory, alone=False, sparing=False, word="near(N)")


def _changed(known: Mapping[str, Touched], change: Callable[[Touch], Touch]) -> dict[str, Touched]:
    return {
        line: {name: frozenset(map(change, own)) for name, own in touched.items()} for line, touched in known.items()
    }


def _everywhere(known: Mapping[str, Touched]) -> dict[str, Touched]:
    return _changed(known, lambda touch: Touch(None, touch.written))


def ordered(
    lines: Sequence[str], known: Mapping[str, Touched], memory: Collection[str], alone: bool = True,
    sparing: bool = True, word: str = "meet(N)",
) -> list[str]:  # fmt: skip
    """Return an entry's lines with `meet(N)` where it is needed.

    known: how calls of generated functions touch memory. memory: the names of what changes during the entry.
    alone: whether calls that do not take a thread's rank are made by one; else all make each call. sparing: whether
    steps had better not wait for what is rarely done. word: in place of `meet(N)`; of those that go further than it
    does some are there.
    """
    own = frozenset(memory)

    def words_of(text: str) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", text)) & own

    @cache
    def touched(line: str) -> tuple[Touched, bool]:
        """Return what a line touches, and whether one thread runs it alone."""
        words, function = words_of(line), line.split("(")[0]
        only = alone and bool(words) and not re.search(r"\brank, size\b", line)
        if function in TARGETS:
            arguments = _arguments(line)
            written = words_of(arguments[TARGETS[function]])
            units = int(arguments[WIDTHS[function]]) if alone and function in WIDTHS else None
        else:
            written, units = words, None
        found = known.get(line) or {name: frozenset([Touch(units, name in written)]) for name in words}
        if only:
            found = {name: frozenset(Touch(ALONE, touch.written) for touch in every) for name, every in found.items()}
        return {name: touches for name, touches in found.items() if name in own}, only

    def walk(block: Sequence[str], before: Touched) -> tuple[list[str], Touched]:
        """Return a block with its meetings, and what is touched after it."""
        found: list[str] = []
        aside = False
        for line, body in nested(block):
            if line in MEETINGS:
                found.append(line)
                before, aside = {}, False
                continue
            if body:
                inside, after = walk(body, before)
                if sparing and line.startswith("if ") and after != before:  # rarely taken: others must not wait for it
                    inside, after = inside if inside[-1] in MEETINGS else [*inside, word], {}
                elif line.startswith(("for ", "while ")):
                    again = _a_step_later if line.startswith("for s ") else anywhere
                    inside, after = turns(body, before, again)
                    alike, later = turns(body, {}, again) if sparing else (inside, after)
                    if alike != inside:  # only what comes before the loop must be waited for
                        found.append(word)
                        before, inside, after = {}, alike, later
                    after = anywhere(after)
                    if line.startswith("for s "):  # a block has at least one step: what threads waited for is over
                        before = {}
                found += [line, *(INDENT + inner for inner in inside)]
                before, aside = _both(before, after), False
                continue
            now, only = touched(line)
            if _conflict(before, now):
                found.append(word)
                before, aside = {}, False
            if only and not aside:
                found.append("if rank == 0:")
            found.append(INDENT + line if only else line)
            before, aside = _both(before, now), only
        return found, before

    def turns(body: Sequence[str], before: Touched, again: Callable[[Touched], Touched]) -> tuple[list[str], Touched]:
        """Return a loop's body with its meetings, the same at each turn, and what is touched after one.

        A meeting that is found missing may make another one needless, which was all that kept what is touched before it
        from the next turn. So a body is right only if what it leaves is what it was made for; where that takes too
        long, it is made for all that any of them left.
        """
        known = before
        for attempt in itertools.count():
            inside, after = walk(body, known)
            left = _both(before, again(after))
            if _both(known, left) == known:
                break
            known = left if attempt < 3 else _both(known, left)
        return inside, after

    return walk(lines, {})[0]


def _arguments(call: str) -> list[str]:
    """Return the arguments of a call, as text."""
    found, depth = [""], 0
    for letter in call[call.index("(") + 1 : -1]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found
