"""What the engines of all targets share: a step compiled for each set of inner shapes, and what there is to tell of."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from rsref.engine import ReferenceEngine
from rsref.plain_data import check_same
from rsref.recurrence import Recurrence
from rsref_fast.numbered import as_one_sample, batch_of, leaves_of, picks_samples
from rsref_fast.program import Compiled, build

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised

Own = TypeVar("Own", bound="Compiling[Any]")
Parts = TypeVar("Parts")


def shapes_of(sequences: Sequence[Any], constants: Sequence[Any], states: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return the shapes that one step sees of arrays of a call."""
    return [s.shape[:1] + s.shape[2:] for s in sequences] + [a.shape for a in (*constants, *states)]


class Compiling(abc.ABC, Generic[Parts]):
    """Compiles a recurrence's step for what it is called with.

    options: of `rsref_fast.program.build`.
    picks: whether the step picks samples by their number; then code is compiled for each size of the batch.
    """

    def __init__(self, recurrence: Recurrence, **options: bool):
        self.recurrence = recurrence
        self.reference = ReferenceEngine(recurrence)
        self.picks = picks_samples(recurrence.graph)
        self._options = options
        self._special: dict[Any, Specialised] = {}

    @property
    @abc.abstractmethod
    def parted(self) -> Parts | None:
        """Two engines for training, `first` and `step`, if what depends on no step is worth going back through once."""

    @abc.abstractmethod
    def special_of(self, compiled: Compiled, dtype: np.dtype[Any], batch: int | None = None) -> Specialised:
        """Return programs as the target runs them. batch: the samples that are one of theirs, if they are."""

    def specialised(self, shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]) -> Specialised:
        """Return the step compiled for sequences, constants and states of these shapes (see `shapes_of`)."""
        key = (dtype, *(shape if self.picks else shape[1:] for shape in shapes))
        if key not in self._special:
            graph, batch = self.recurrence.graph, None
            if self.picks:
                graph = as_one_sample(graph, dict(zip(leaves_of(graph), shapes)))
                batch, shapes = shapes[0][0], [(1, *shape) for shape in shapes]
            compiled = build(graph, dict(zip(leaves_of(graph), shapes)), **self._options)
            self._special[key] = self.special_of(compiled, dtype, batch)
        return self._special[key]

    def check_tape(self, tape: Any) -> None:
        """TypeError for a tape of another recurrence."""
        check_same(tape.special.recurrence, self.recurrence)

    def check(self) -> None:
        """Generate the source, so that what cannot be compiled is refused early, if the step's lengths are known.

        So must be the batch, for a step that picks samples by their number: else the first call refuses it.
        Errors: NotImplementedError, naming it.
        """
        if not self._open():
            for special in self.compiled().values():
                special.sources()

    def _open(self) -> str:
        """Return what has to be known before anything can be compiled; nothing if all is."""
        graph = self.recurrence.graph
        if self.picks and batch_of(graph) is None:
            return "the step picks samples by their number, and it is not known of how many"
        return "the step leaves lengths open" if any(n is None for t in leaves_of(graph) for n in t.shape[1:]) else ""

    def compiled(self) -> dict[Any, Specialised]:
        """Return what is compiled, by dtype and shapes; if nothing is, for float32 and the lengths that are known.

        Errors: ValueError if nothing is compiled yet and lengths are unknown (or a batch that must be known).
        """
        if not self._special:
            if missing := self._open():
                raise ValueError(f"{missing}: call the engine once first")
            graph = self.recurrence.graph
            batch = batch_of(graph) or 1
            self.specialised(
                [(batch, *(n or 0 for n in leaf.shape[1:])) for leaf in leaves_of(graph)], np.dtype(np.float32)
            )
        return self._special

    @property
    def source(self) -> str:
        """The generated source of all that is compiled."""
        every = [s for _, engine in self.known() for s in engine.compiled().values()]
        return "\n\n".join(source.text for s in every for source in s.sources())

    def known(self: Own) -> list[tuple[str, Own]]:
        """Return what there is to tell of, with titles: this engine, and those of a step's two parts."""
        every = [("", self)]
        if self.parted is not None:
            every += [("in two parts, what depends on no step: ", self.parted.first)]
            every += [("in two parts, the steps: ", self.parted.step)]
        return [pair for pair in every if pair[1]._special or not pair[1]._open()] or [("", self)]
