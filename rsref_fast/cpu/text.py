"""The text of one generated function: its pointers, its loops, and where the elements of a view are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsref.tensor import Tensor
from rsref_fast.cpu.source import Held
from rsref_fast.expressions import Expression, cast, expression, literal
from rsref_fast.lengths import Length, Varying, text_of, times
from rsref_fast.views import Buffer, Shape, View

if TYPE_CHECKING:
    from rsref_fast.layout import Section
    from rsref_fast.program import Program

INDENT = "    "

LANES = 16
"""Numbers of the widest vectors."""


@dataclass(frozen=True)
class Computed:
    """The elements of a pointwise tensor that has no memory: each is computed where it is read.

    shape: the tensor's. operands: what it is computed of, with as many axes or fewer.
    """

    tensor: Tensor
    shape: Shape
    operands: Sequence[View | Computed]


class Function:
    """A function that loops over memory. It takes `n`, the number of rows, and one pointer a buffer.

    name, comment: of the function. reassociates: whether sums may be added up in another order (vector lanes).
    shared: whether a team of threads calls it, each for its own part; else one of them does everything.
    written: the buffers among its parameters that it writes. units: for each of them the length of which a thread
    computes its part, if of the buffer it touches no more than that (see `ordering`); else None.
    inside: whether it is called in the time loop and blocks of threads have parts there. reads_first: whether all that
    an element is computed of is read before anything is computed, so that memory is waited for once. holds: weights
    that it finds in a block's memory. early: the memory of which a product multiplies rows, and of how many places each
    thread has computed its part, if that is known. lined: of which buffers a line of blocks touches the rows of its own
    samples, and no others.
    """

    inside = False
    early: tuple[Buffer, int] | None = None
    reads_first = False
    reassociates = False
    holds: Held | None = None

    def __init__(self, name: str, comment: str, values: dict[Buffer, object]):
        self.name = name
        self.comment = comment
        self.values = values
        self.parameters: dict[Buffer, str] = {}
        self.written: set[Buffer] = set()
        self.units: dict[Buffer, int | None] = {}
        self.lined: dict[Buffer, bool] = {}
        self._shared_axis: tuple[str, Length] | None = None
        self.extra: list[str] = []
        self.lines: list[str] = []
        self.depth = 1

    @property
    def shared(self) -> bool:
        return "rank" in self.extra

    def share(self) -> None:
        """Let each thread of a team compute a part: the function takes its rank and the team's size."""
        if not self.shared:
            self.extra += ["rank", "size"]

    def within(self, program: Program, section: Section) -> None:
        """Be told where it will be called."""

    def add(self, line: str) -> None:
        self.lines.append(INDENT * self.depth + line)

    @contextmanager
    def loop(self, variable: str, length: Length) -> Iterator[None]:
        self.add(f"for {variable} in range({text_of(length)}):")
        self.depth += 1
        yield
        self.depth -= 1

    def by_fours(self, variable: str, length: Length | str) -> Iterator[list[str]]:
        """Open a loop whose turns are four indices at once, then one for those that are left.

        What sums rows upon rows so reads and writes the sum once for four of them.
        """
        text = length if isinstance(length, str) else text_of(length)
        left = length % 4 if isinstance(length, int) else 1
        fours = length - left if isinstance(length, int) else f"({text}) // 4 * 4"
        if fours:
            self.add(f"for {variable} in range(0, {fours}, 4):")
            self.depth += 1
            yield [variable, *(f"({variable} + {k})" for k in (1, 2, 3))]
            self.depth -= 1
        if left or not fours:  # a loop over nothing too, or those around it would have no body
            self.add(f"for {variable} in range({fours}, {text}):")
            self.depth += 1
            yield [variable]
            self.depth -= 1

    @contextmanager
    def nest(self, shape: Shape, prefix: str = "i", axes: Sequence[int] | None = None) -> Iterator[list[str]]:
        """Open one loop an axis; the answer holds the index of each axis. Axes of length 1 need no loop."""
        chosen = range(len(shape)) if axes is None else axes
        indices = ["0"] * len(shape)
        depth = self.depth
        for axis in chosen:
            if shape[axis] == 1:
                continue
            indices[axis] = f"{prefix}{axis}"
            self.add(f"for {indices[axis]} in range({text_of(shape[axis])}):")
            self.depth += 1
        yield indices
        self.depth = depth

    def shared_nest(self, shape: Shape) -> AbstractContextManager[list[str]]:
        """Open one loop an axis as `nest` does; the innermost one is split among the threads of a team."""
        return self._innermost_split(shape)

    @contextmanager
    def _innermost_split(self, shape: Shape) -> Iterator[list[str]]:
        axes = [axis for axis, length in enumerate(shape) if length != 1]
        if not axes:
            yield ["0"] * len(shape)
            return
        self._split(f"i{axes[-1]}", shape[axes[-1]])
        with self._parted(shape, axes) as indices:
            yield indices

    @contextmanager
    def _parted(self, shape: Shape, axes: Sequence[int]) -> Iterator[list[str]]:
        """Open one loop for each of some axes, if there are any; the last one's is over a thread's part."""
        with self.nest(shape, axes=axes[:-1]) as indices:
            for axis in axes[-1:]:
                indices[axis] = f"i{axis}"
                self.add(f"for i{axis} in range(first, last):")
                self.depth += 1
            yield indices

    def shared_fours(self, shape: Shape, row: int) -> Iterator[list[list[str]]]:
        """Open loops as `shared_nest` does, once with four turns of an axis at a time and once for those left.

        The answer holds the indices of each of them. If no axis that is longer than 1 follows, nothing is split.
        """
        inner = [axis for axis, length in enumerate(shape) if axis > row and length != 1]
        if inner:
            self._split(f"i{inner[-1]}", shape[inner[-1]])
        with self.nest(shape, axes=range(row)) as outside:
            for places in self.by_fours(f"i{row}", shape[row]):
                with self._parted(shape, inner) as inside:
                    yield [[*outside[:row], place, *inside[row + 1 :]] for place in places]

    def steps_by_fours(self, shape: Shape) -> Iterator[tuple[list[str], list[list[str]]]]:
        """Open loops over samples, all axes of one, and its steps in a block: four at a time, then one by one.

        The answer holds an element's index among the samples, and its index among the block's rows for each step. The
        innermost axis is split among the threads of a team.
        """
        self.extra += ["off", "start", "end"]
        *outer, inner = [axis for axis, length in enumerate(shape) if axis and length != 1]
        self._split(f"i{inner}", shape[inner])
        with self.nest(shape, axes=[0]) as samples:
            self.add("count = 0")
            self.add("while start + count < end and off[start + count + 1] - off[start + count] > i0:")
            self.add(INDENT + "count += 1")
            with self.nest(shape, axes=outer) as indices:
                indices[inner] = f"i{inner}"
                for places in self.by_fours("s", "count"):
                    for k, place in enumerate(places):
                        self.add(f"r{k} = off[start + {place}] - off[start] + i0")
                    self.add(f"for i{inner} in range(first, last):")
                    self.depth += 1
                    yield [samples[0], *indices[1:]], [[f"r{k}", *indices[1:]] for k in range(len(places))]
                    self.depth -= 1

    def _split(self, index: str, length: Length) -> None:
        """Write where the part of a thread of a team begins and ends, if that is not known from the loop before."""
        self.share()
        known, self._shared_axis = self._shared_axis, (index, length)
        if known is None or known[1] != length:
            self.add(f"first = part({text_of(length)}, rank, size)")
            self.add(f"last = part({text_of(length)}, rank + 1, size)")

    def rest_masked(self, length: Length) -> None:
        """End an innermost loop so that what fills no vector is computed as one (see `remainders`)."""
        if isinstance(length, int) and length % LANES not in (0, 4):  # four are a smaller vector, which costs less
            self.add("rest_masked()")

    def independent(self, shape: Shape, axes: Sequence[int] | None = None) -> AbstractContextManager[list[str]]:
        """Open loops as `nest` does, whose turns may be taken in any order, and at the same time."""
        return self.nest(shape, axes=axes)

    @contextmanager
    def per_row(self, shape: Shape, line: Callable[[str], str]) -> Iterator[list[str]]:
        """Open independent loops over all axes; for each index of the first one there is a line to be computed.

        The innermost one is split among the threads of a team, if it is not the first.
        """
        inner = [axis for axis, length in enumerate(shape) if axis and length != 1]
        if inner:
            self._split(f"i{inner[-1]}", shape[inner[-1]])
        with self.nest(shape, axes=[0]) as row:
            self.add(line(row[0]))
            with self._parted(shape, inner) as indices:
                yield [row[0], *indices[1:]]

    def pointer(self, buffer: Buffer, units: int | None = None) -> str:
        """Return the name of a buffer's address. units: see the class."""
        if self.units.setdefault(buffer, units) != units:
            self.units[buffer] = None
        return self.parameters.setdefault(buffer, f"p{len(self.parameters)}")

    def _units(self, view: View, indices: Sequence[str]) -> int | None:
        """Return the length of the axis that threads share, if an element's place says whose part it is in."""
        name, units = self._shared_axis or ("", 0)
        own = indices[len(indices) - len(view.shape) :]
        if isinstance(units, int) and name in own and view.counts(own.index(name), units):
            return units
        return None

    def place(self, view: View, indices: Sequence[str]) -> str:
        """Return the text of an element's index. Indices are aligned at the right, as in broadcasting."""
        terms = [] if view.offset == 0 else [text_of(view.offset)]
        extra = len(indices) - len(view.shape)
        for axis, (length, stride) in enumerate(zip(view.shape, view.strides)):
            index = indices[axis + extra]
            if index == "0" or stride == 0 or length == 1:
                continue
            terms.append(index if stride == 1 else f"{index}*{_factor(stride)}")
        return " + ".join(terms) or "0"

    def element(self, view: View, indices: Sequence[str], start: str = "") -> str:
        """Return the text of an element. start: where the view begins in its memory, with a sign behind it."""
        return f"{self.pointer(view.buffer, self._units(view, indices))}[{start}{self.place(view, indices)}]"

    def load(self, view: View | Computed, indices: Sequence[str]) -> Expression:
        """Return one element of a view; numbers known when the step is compiled stand in the text."""
        if isinstance(view, Computed):
            return value_of(view.tensor, [self.load(operand, indices) for operand in view.operands])
        if view.buffer in self.values:
            return literal(self.values[view.buffer], view.buffer.kind)
        text = self.element(view, indices)
        return Expression(f"({text} != 0)" if view.buffer.kind == "bool" else text, view.buffer.kind)

    def store(self, view: View, indices: Sequence[str], value: str, accumulate: bool = False) -> None:
        place = self.element(view, indices)
        self.written.add(view.buffer)
        if view.buffer.kind == "bool":
            value = f"U({value})"
        self.add(f"{place} {'+=' if accumulate else '='} {value}")

    def source(self) -> str:
        # what holds weights is taken into its kernel: a function of its own would have registers to save
        decorator = "@summing" if self.reassociates else "@entry" if self.holds else "@kernel"
        if "late" in self.extra:  # while it runs others write what it reads, which a kernel may take for impossible
            decorator = "@waiting"
        names = ", ".join(["n", *self.parameters.values(), *self.extra])
        body = self.lines or [INDENT + "pass"]
        return "\n".join([decorator, f"def {self.name}({names}):", f'{INDENT}"""{self.comment}"""', *body])


def nested(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a block, each with those that are indented below it, one level less."""
    i = 0
    while i < len(lines):
        end = i + 1
        while end < len(lines) and lines[end].startswith(INDENT):
            end += 1
        yield lines[i], [line.removeprefix(INDENT) for line in lines[i + 1 : end]]
        i = end


def value_of(tensor: Tensor, operands: list[Expression]) -> Expression:
    """Return an element of a pointwise tensor, computed of those of its operands."""
    if tensor.op_name == "cast":
        return cast(operands[0], tensor.dtype)
    found = expression(tensor.op, operands)  # type: ignore[arg-type]
    if found.kind != tensor.dtype:
        raise NotImplementedError(
            f"the formula of {tensor.op_name!r} answers {found.kind} where its kind says {tensor.dtype}"
        )
    return found


def _factor(stride: Length) -> str:
    text = text_of(stride)
    return f"({text})" if isinstance(stride, Varying) and ("*" in text or "+" in text) else text


def collapsed(shape: Shape, views: Sequence[View], but_rows: bool = False) -> tuple[Shape, list[View]]:
    """Return the same loop with as few axes as the views allow: axes that follow each other everywhere become one.

    but_rows: the first one stays as it is.
    """
    extended = [_extended(view, len(shape)) for view in views]
    lengths: list[Length] = []
    strides: list[list[Length]] = [[] for _ in views]
    for axis, length in enumerate(shape):
        own = [view.strides[axis] for view in extended]
        joins = len(lengths) > but_rows and all(
            s[-1] == times(length, stride) for s, stride in zip(strides, own)
        )  # fmt: skip
        if joins or (len(lengths) > but_rows and lengths[-1] == 1):
            lengths[-1] = times(lengths[-1], length)
            for s, stride in zip(strides, own):
                s[-1] = stride
        elif length == 1 and len(lengths) > but_rows:
            continue
        else:
            lengths.append(length)
            for s, stride in zip(strides, own):
                s.append(stride)
    new = [View(v.buffer, tuple(lengths), tuple(s), v.offset) for v, s in zip(views, strides)]
    return tuple(lengths), new


def _extended(view: View, rank: int) -> View:
    extra = rank - len(view.shape)
    strides = tuple(0 if n == 1 else s for n, s in zip(view.shape, view.strides))
    return View(view.buffer, (1,) * extra + tuple(view.shape), (0,) * extra + strides, view.offset)
