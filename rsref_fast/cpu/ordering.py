"""Where the threads of a team must meet: before a call that needs, or spoils, what others have touched since.

Found out for a whole entry, through its loops and branches, by the names of memory (see `touches`). All threads take
the same branches.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from rsref_fast.cpu.text import INDENT, nested
from rsref_fast.cpu.touches import ALONE, Numbered, Touch, Touched, changed, everywhere

TARGETS = {
    "copy_rows": 3, "gather_rows": 4, "rows_at": 4, "gather_previous": 6, "previous_at": 6, "zero_rows": 2,
    "cut_rows": 3, "add_part": 2,
}  # fmt: skip
"""Which argument of the runtime's own functions is written."""

WIDTHS = {
    "copy_rows": 1, "gather_rows": 1, "rows_at": 1, "gather_previous": 2, "previous_at": 2, "zero_rows": 1,
    "cut_rows": 1,
}  # fmt: skip
"""Which one says of how many elements the rows are, of which threads have parts."""

ON_TIME, LATE = "N, 0", "N, 1"
"""What a product is given that begins when the threads have met, and what if it waits for the others by itself."""

MEETINGS = ("meet(N)", "line(N)", "near(N)")
"""Where all threads of a team meet, those of a line of it, and those of which nothing is known who touches what."""

NOTHING: Mapping[str, Touched] = MappingProxyType({})

Block = tuple[tuple[str, "Block"], ...]
"""Lines, each with those that are indented below it."""


def spread(
    lines: Sequence[str], known: Mapping[str, Touched], memory: Collection[str], early: Mapping[str, Touched] = NOTHING
) -> list[str]:
    """Return an entry's lines as `ordered` does, if all threads make each call, for elements all over the memory.

    early: nothing, since a GPU's products wait for all that they read.
    """
    return ordered(lines, everywhere(known), memory, alone=False, sparing=False)


def shared_out(
    lines: Sequence[str], known: Mapping[str, Touched], memory: Collection[str], early: Mapping[str, Touched] = NOTHING
) -> list[str]:
    """Return an entry's lines as `ordered` does, if each thread of the team is a block of threads, and lines have some.

    They all make each call. Lines share out the samples, so those of a line meet by `line(N)` where all need not; and
    those of a block, among which nothing is known of who touches what, by `near(N)` wherever no others need.
    early: nothing, as in `spread`.
    """
    lines = ordered(lines, known, memory, alone=False)
    inside = changed(known, lambda touch: replace(touch, line=False))
    lines = ordered(lines, inside, memory, alone=False, word="line(N)")
    return ordered(lines, everywhere(known), memory, alone=False, sparing=False, word="near(N)")


def ordered(
    lines: Sequence[str], known: Mapping[str, Touched], memory: Collection[str],
    early: Mapping[str, Touched] = NOTHING, alone: bool = True, sparing: bool = True, word: str = "meet(N)",
) -> list[str]:  # fmt: skip
    """Return an entry's lines with `meet(N)` where it is needed.

    known: how calls of generated functions touch memory. memory: the names of what changes during the entry.
    early: what some calls touch before they wait for the others, if they are told to do so. Where that is nothing that
    others may still disturb, they are, and the thread says by `arrive(N)` that it is there.
    alone: whether calls that do not take a thread's rank are made by one; else all make each call. sparing: whether
    steps had better not wait for what is rarely done. word: in place of `meet(N)`; of those that go further than it
    does some are there.
    """
    own = frozenset(memory)

    def words_of(text: str) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", text)) & own

    def touched_by(line: str) -> tuple[Touched, bool]:
        """Return what a line touches, and whether one thread runs it alone."""
        function = line.split("(")[0].split(" = ")[-1]
        words = words_of("" if function == "room_at" else line)  # which says where memory is, and touches none
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

    block = _tree(lines)
    calls = {line: touched_by(line) for line in _calls(block)}
    starts = {line: {name: found for name, found in parts.items() if name in own} for line, parts in early.items()}
    touches = Numbered([*(touched for touched, _ in calls.values()), *starts.values()])
    sets = {line: touches.of(touched) for line, (touched, _) in calls.items()}
    disturbing = {line: touches.disturbing(touched) for line, touched in sets.items()}
    begun = {line: touches.disturbing(touches.of(touched)) for line, touched in starts.items()}

    def walk(block: Block, before: int) -> tuple[list[str], int]:
        """Return a block's lines with their meetings, and what is touched after it."""
        found: list[str] = []
        aside = False
        for line, body in block:
            if line in MEETINGS:
                found.append(line)
                before, aside = 0, False
                continue
            if body:
                if line.startswith(("for ", "while ")):
                    steps = line.startswith("for s ")
                    inside, after = turns(body, before, steps)
                    alike, later = from_nothing(body, steps) if sparing else (inside, after)
                    if alike != inside:  # only what comes before the loop must be waited for
                        found.append(word)
                        before, inside, after = 0, alike, later
                    after = touches.anywhere(after)
                    if steps:  # a block has at least one step: what threads waited for is over
                        before = 0
                else:
                    inside, after = walk(body, before)
                    if sparing and after != before:  # rarely taken: others must not wait for it
                        inside, after = inside if inside[-1] in MEETINGS else [*inside, word], 0
                found += [line, *(INDENT + inner for inner in inside)]
                before, aside = before | after, False
                continue
            only, text = calls[line][1], line
            if before & disturbing[line]:
                late = line in begun and not before & begun[line]
                found.append("arrive(N)" if late else word)
                text = line.replace(ON_TIME, LATE) if late else line
                before, aside = 0, False
            if only and not aside:
                found.append("if rank == 0:")
            found.append(INDENT + text if only else text)
            before, aside = before | sets[line], only
        return found, before

    def turns(body: Block, before: int, steps: bool) -> tuple[list[str], int]:
        """Return a loop's body with its meetings, the same at each turn, and what is touched after one.

        A meeting that is found missing may make another one needless, which was all that kept what is touched before it
        from the next turn. So a body is right only if what it leaves is what it was made for; where that takes too
        long, it is made for all that any of them left.
        """
        again = touches.a_step_later if steps else touches.anywhere
        known = before
        for attempt in itertools.count():
            inside, after = walk(body, known)
            left = before | again(after)
            if known | left == known:
                break
            known = left if attempt < 3 else known | left
        return inside, after

    @cache
    def from_nothing(body: Block, steps: bool) -> tuple[list[str], int]:
        return turns(body, 0, steps)

    return walk(block, 0)[0]


def _tree(lines: Sequence[str]) -> Block:
    return tuple((line, _tree(body)) for line, body in nested(lines))


def _calls(block: Block) -> Iterator[str]:
    """Yield the lines that have none below them."""
    for line, body in block:
        if body:
            yield from _calls(body)
        else:
            yield line


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
