"""Where the threads of a team must meet: before a call that needs, or spoils, what others have touched since.

Found out for a whole entry, through its loops and branches, by the names of memory. All threads take the same branches.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rsref_fast.cpu.text import INDENT

TARGETS = {"copy_rows": 3, "gather_rows": 4, "gather_previous": 6, "zero": 1, "cut_rows": 3, "add_part": 2}
"""Which argument of the runtime's own functions is written."""


@dataclass(frozen=True)
class Touched:
    """Names of memory that calls have read or written, and written, since all threads met."""

    all: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.all | other.all, self.written | other.written)

    def conflicts(self, later: Touched) -> bool:
        return bool(self.written & later.all or self.all & later.written)


def ordered(lines: Sequence[str], written: Mapping[str, frozenset[str]], memory: Collection[str]) -> list[str]:
    """Return an entry's lines with `meet(N)` where it is needed.

    written: for calls of generated functions what they write. memory: the names of what changes during the entry.
    """
    own = frozenset(memory)

    def touched(line: str) -> Touched:
        words = frozenset(re.findall(r"\w+", line)) & own
        target = TARGETS.get(line.split("(")[0])
        if target is not None:
            return Touched(words, frozenset(re.findall(r"\w+", _arguments(line)[target])) & own)
        return Touched(words, written.get(line, words))

    def walk(block: Sequence[str], before: Touched) -> tuple[list[str], Touched]:
        """Return a block with its meetings, and what is touched after it."""
        found: list[str] = []
        i = 0
        while i < len(block):
            line = block[i]
            end = i + 1
            while end < len(block) and block[end].startswith(INDENT):
                end += 1
            if line.endswith(":"):
                body = [inner.removeprefix(INDENT) for inner in block[i + 1 : end]]
                inside, after = walk(body, before)
                if line.startswith(("for ", "while ")):
                    inside, after = walk(body, before | after)
                    inside, after = walk(body, before | after)
                found += [line, *(INDENT + inner for inner in inside)]
                before = before | after
            else:
                now = touched(line)
                if before.conflicts(now):
                    found.append("meet(N)")
                    before = Touched()
                found.append(line)
                before = before | now
            i = end
        return found, before

    return walk(lines, Touched())[0]


def _arguments(call: str) -> list[str]:
    """Return the arguments of a call, as text."""
    found, depth = [""], 0
    for letter in call[call.index("(") + 1 : -1]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return found
