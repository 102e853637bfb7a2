"""How calls touch memory, and which touches of two calls disturb each other.

Many calls go through rows of `units` elements, of which a thread computes its part: of a memory they touch elements of
which the place modulo `units` is in that part. Two such calls need no meeting in between: a unit's gates are computed,
and its states from them, by the same thread. Nor do two that one thread makes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from rsref_fast.views import Buffer, Space

ALONE = 0
"""In place of units: what one thread touches that makes a call alone."""

ROWS = -1
"""In place of units: what a thread touches that computes whole rows, those whose places modulo the team are its own."""

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

Pair = tuple[str, Touch]
"""A memory, and how it is touched."""


def touched_by(
    units: Mapping[Buffer, int | None], written: Collection[Buffer], lined: Collection[Buffer] = ()
) -> Touched:
    """Return how a step's call touches memory, from the buffers that a function is given. lined: rows of a line."""
    return _joined((b.memory or b.name, Touch(own, b in written, b.space, b in lined)) for b, own in units.items())


def anywhere(touched: Touched) -> Touched:
    """Return the same, whichever rows it is."""
    return _each(touched, lambda touch: replace(touch, rows=None))


def _joined(pairs: Iterable[tuple[str, Touch]]) -> Touched:
    found: dict[str, frozenset[Touch]] = {}
    for name, touch in pairs:
        found[name] = found.get(name, frozenset()) | {touch}
    return found


def _each(touched: Touched, change: Callable[[Touch], Touch]) -> Touched:
    return {name: frozenset(map(change, own)) for name, own in touched.items()}


def changed(known: Mapping[str, Touched], change: Callable[[Touch], Touch]) -> dict[str, Touched]:
    return {line: _each(touched, change) for line, touched in known.items()}


def everywhere(known: Mapping[str, Touched]) -> dict[str, Touched]:
    return changed(known, lambda touch: Touch(None, touch.written))


class Numbered:
    """Sets of touches as whole numbers, a bit for each touch of a memory: joined, compared and met at once.

    every: what any call touches.
    """

    def __init__(self, every: Iterable[Touched]):
        found = list(dict.fromkeys(pair for touched in every for pair in _pairs(touched)))
        place = {pair: i for i, pair in enumerate(found)}

        def images(pair: Pair, rows: Iterable[Space | None]) -> int:
            """Return the touches of other rows of the same memory, numbering them if they are new."""
            bits = 0
            for other in rows:
                image = pair if other is pair[1].rows else (pair[0], replace(pair[1], rows=other))
                if image not in place:
                    place[image] = len(found)
                    found.append(image)
                bits |= 1 << place[image]
            return bits

        self._place = place
        self._anywhere: list[int] = []
        self._later: list[int] = []
        for pair in found:  # which grows
            self._anywhere.append(images(pair, [None]))
            self._later.append(images(pair, MOVING.get(pair[1].rows, (pair[1].rows,))))
        of: dict[str, list[Pair]] = {}
        for pair in found:
            of.setdefault(pair[0], []).append(pair)
        self._disturbing = [sum(1 << place[o] for o in of[name] if touch.disturbs(o[1])) for name, touch in found]
        self.anywhere = cache(lambda touched: _union(touched, self._anywhere))
        self.a_step_later = cache(lambda touched: _union(touched, self._later))

    def of(self, touched: Touched) -> int:
        """Return the set of what a call touches."""
        return sum(1 << self._place[pair] for pair in _pairs(touched))

    def disturbing(self, touched: int) -> int:
        """Return the set of all touches that others disturb, or are disturbed by."""
        return _union(touched, self._disturbing)


def _pairs(touched: Touched) -> Iterable[Pair]:
    return ((name, touch) for name, own in touched.items() for touch in own)


def _union(touched: int, images: Sequence[int]) -> int:
    """Return all that the members of a set stand for. images: what each one does."""
    found = 0
    while touched:
        last = touched.bit_length() - 1
        found |= images[last]
        touched ^= 1 << last
    return found
