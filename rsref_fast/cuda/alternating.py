"""A program cut into launches: each call of the time loop a kernel of its own, which a host calls in the same order.

Between two launches of a stream everything has been written, so nothing meets inside them. A kernel is told which step
it is (A), or the first step of its block, and the other end of that (B); what else it must know follows from `off`, as
in the program it is cut from. Where a library computes products, each of these is a piece of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rsref_fast.cpu.ordering import MEETINGS
from rsref_fast.cpu.text import INDENT, nested
from rsref_fast.cuda.products import PACKING, products_in

GUARDS = {"if not taped and last < steps:": "untaped", "if cutting != 0:": "cutting"}
"""Branches that are the same for a whole call; others may be taken where the number of rows changes."""


@dataclass(frozen=True)
class Piece:
    """A kernel of some calls. when: "always", or what must be so: "untaped", "cutting", "changing" rows.

    product: whether it is one product, which a library may compute instead.
    """

    entry: str
    when: str
    product: bool = False


@dataclass
class Pieces:
    """The launches of a program in their order: before the blocks; of each block, and its steps; after all.

    how: it was cut, by a name.
    products: names of functions that are one product, if each is a piece of its own. unpacked: whether the text has an
    entry `unpacked`: what `prepare` does besides packing weights for our tiles. loop: all steps of a block as one
    piece, in whose middle the grid meets, if they are not pieces themselves.
    """

    text: str
    backward: bool
    how: str
    products: frozenset[str] = frozenset()
    unpacked: bool = False
    start: list[Piece] = field(default_factory=list)
    before: list[Piece] = field(default_factory=list)
    step: list[Piece] = field(default_factory=list)
    loop: Piece | None = None
    after: list[Piece] = field(default_factory=list)
    end: list[Piece] = field(default_factory=list)

    def launches(
        self, steps: int, block: int, taped: bool, cutting: bool, masked: bool
    ) -> Iterator[tuple[Piece, int, int]]:  # fmt: skip
        """Yield pieces with their two numbers. block: steps of a block. masked: whether the rows may change."""
        facts = {"always": True, "untaped": not taped, "cutting": cutting}

        def chosen(pieces: Sequence[Piece], a: int, b: int, last: bool = True) -> Iterator[tuple[Piece, int, int]]:
            for piece in pieces:
                if facts.get(piece.when, masked or last):
                    yield piece, a, b

        yield from chosen(self.start, 0, 0)
        if self.backward:
            for high in range(steps, 0, -block):
                low = max(0, high - block)
                yield from chosen(self.before, low, high)
                if self.loop is not None:
                    yield self.loop, low, high
                for s in range(high - 1, low - 1, -1):
                    yield from chosen(self.step, s, low, s == steps - 1)
                yield from chosen(self.after, low, high)
        else:
            for low in range(0, steps, block):
                high = min(steps, low + block)
                yield from chosen(self.before, low, high)
                if self.loop is not None:
                    yield self.loop, low, high
                for s in range(low, high):
                    yield from chosen(self.step, s, low, s == steps - 1)
                yield from chosen(self.after, low, high)
        yield from chosen(self.end, 0, 0)


LEVEL = "<level>"
LEVELS = {
    (False, "block"): ["k = A", "last = B"],
    (False, "step"): [
        "s = A", "k = B", "before = off[s - 1] if s > 0 else 0", "here = off[s]", "following = off[s + 1] - here",
    ],
    (False, "loop"): [
        "k = A", "last = B", "before = off[k - 1] if k > 0 else 0", "here = off[k]", "following = off[k + 1] - here",
    ],
    (False, "after"): ["k = A", "last = B", "n = off[last] - off[last - 1]"],
    (True, "block"): ["first = A", "k = B"],
    (True, "step"): [
        "s = A", "first = B", "slot = remainder(steps - 1 - s, 2)",
        "active = off[s + 2] - off[s + 1] if s + 1 < steps else 0", "behind = off[s + 1]", "here = off[s]",
    ],
    (True, "loop"): [
        "first = A", "k = B", "slot = remainder(steps - k, 2)", "active = off[k + 1] - off[k] if k < steps else 0",
        "behind = off[k]", "here = off[k - 1]",
    ],
    (True, "after"): ["first = A", "k = B"],
    (True, "end"): ["slot = remainder(steps, 2)", "active = off[1] - off[0] if steps > 0 else 0"],
}  # fmt: skip
"""What a kernel's two numbers are, by direction and place, and what the program's loops have carried up to there."""

CARRIED = re.compile(r"(last|first|slot|active|k) (=|\+=|-=) ")
"""Assignments that make the program's loops go on, which the host does."""


def cut(text: str, backward: bool, apart: bool = False, whole: bool = False) -> Pieces:
    """Return the pieces of a generated program's entry `shard`: calls between which nobody meets are one.

    apart: but each product is one of its own. whole: but a block's steps are one.
    """
    start = text.index("@entry\ndef shard(")
    end = text.index("\n\n\n", start)
    body = [line.removeprefix(INDENT) for line in text[start:end].splitlines()[3:]]
    how = "looped" if whole else "apart" if apart else "joined"
    found = Pieces("", backward, how, products_in(text) if apart else frozenset())
    walk = _Walk(found, whole)
    walk.block([line for line in body if line != "return 0"], [], "start", "always", [])
    parts = [text[:start].rstrip(), *walk.kernels]
    prepare = _unpacked(text)
    if prepare:
        found.unpacked = True
        parts.append(prepare)
    found.text = "\n\n\n".join(parts) + "\n"
    return found


def _unpacked(text: str) -> str | None:
    """Return the entry `prepare` without packing, under the name `unpacked`; None if nothing else is done there."""
    start = text.index("@entry\ndef prepare(")
    lines = text[start : text.index("\n\n\n", start)].replace("def prepare(", "def unpacked(").splitlines()
    lines = [line for line in lines if not PACKING.match(line)]
    return "\n".join(lines) if any("(" in line and "meet(N)" not in line for line in lines[5:]) else None


class _Walk:
    """Makes kernels of the calls of a program."""

    def __init__(self, found: Pieces, whole: bool):
        self.found = found
        self.whole = whole
        self.kernels: list[str] = []
        self.holding: list[str] = []

    def block(self, block: Sequence[str], known: list[str], place: str, when: str, guards: list[str]) -> None:
        """Walk through a block. known: the assignments before it. guards: the branches around it."""
        known = list(known)
        calls: list[str] = []

        def finish(product: bool = False) -> None:
            if calls:
                piece = Piece(f"piece_{len(self.kernels)}", when, product)
                levels = LEVELS.get((self.found.backward, place), [])
                self.kernels.append(_kernel(piece.entry, known, levels, guards, calls))
                self._of(place).append(piece)
                calls.clear()

        for line, body in nested(block):
            if line.split("(")[0] in self.found.products and not guards:
                finish()
                calls.append(line)
                finish(product=True)
            elif line.startswith("hold("):
                self.holding.append(line)
            elif re.fullmatch(r"\w+\(.*\)", line) and line not in MEETINGS:
                calls.append(line)
            else:
                finish()
            if line.startswith("while k "):
                self.block(body, [*known, LEVEL], "block", when, guards)
                place, known = "end", [*known, LEVEL]
            elif line.startswith("for s in ") and self.whole:
                self._loop([*self.holding, line, *(INDENT + inner for inner in body)], known)
                place = "after"
            elif line.startswith("for s in "):
                self.block(body, known, "step", when, guards)
                place = "after"
            elif line.startswith("if "):
                self.block(body, known, place, GUARDS.get(line, "changing"), [*guards, line])
            elif re.match(r"\w+ = ", line) and not CARRIED.match(line):
                known.append(line)
        finish()

    def _loop(self, lines: list[str], known: list[str]) -> None:
        self.found.loop = Piece("loop", "always")
        levels = LEVELS[self.found.backward, "loop"]
        self.kernels.append(_kernel("loop", known, levels, [], lines))

    def _of(self, place: str) -> list[Piece]:
        found = self.found
        lists = {"start": found.start, "block": found.before, "step": found.step, "after": found.after}
        return lists.get(place, found.end)


def _kernel(name: str, known: Sequence[str], levels: Sequence[str], guards: Sequence[str], calls: Sequence[str]) -> str:
    """Return the text of a kernel: what it must know, and some calls."""
    whole = [part for line in known for part in (levels if line == LEVEL else [line])]
    inner = INDENT * len(guards)
    lines = [
        *_needed(whole, [*guards, *calls]),
        *(INDENT * depth + guard for depth, guard in enumerate(guards)),
        *(inner + call for call in calls),
    ]
    header = [f"@entry\ndef {name}(P, N, Q, A, B):", f'{INDENT}"""A part of the program."""']
    return "\n".join([*header, *(INDENT + line for line in lines), f"{INDENT}return 0"])


def _needed(known: Sequence[str], used: Sequence[str]) -> list[str]:
    """Return the assignments, of those before, that some lines depend on."""
    words = {word for line in used for word in re.findall(r"[A-Za-z_]\w*", line)}
    found: list[str] = []
    for line in reversed(known):
        name, value = line.split(" = ", 1)
        if name in words:
            found.append(line)
            words |= set(re.findall(r"[A-Za-z_]\w*", value))
    return found[::-1]
