"""What a program's text is like on a machine: who makes its calls, and who waits for whom.

A team of threads may run one program on the same memory: each calls the functions that are shared for its own part,
one of them those that are not, and all meet before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rsref_fast.cpu import loops, products
from rsref_fast.cpu.text import INDENT, Function
from rsref_fast.views import Buffer, View


@dataclass(frozen=True)
class Call:
    """Calls of functions, a line each, that need not wait for one another.

    shared: each thread of a team makes them, for its part; else one does, and the others wait.
    """

    lines: tuple[str, ...]
    shared: bool


def together(calls: Iterable[Call | str]) -> list[str]:
    """Return the lines of some calls, one after the other, as each thread of a team runs them."""
    lines: list[str] = []
    alone: list[str] = []

    def finish() -> None:
        if alone:
            lines.extend(["if rank == 0:", *(INDENT + line for line in alone), "meet(N)"])
            alone.clear()

    for call in calls:
        if isinstance(call, Call) and call.shared:
            finish()
            lines.extend([*call.lines, "meet(N)"])
        else:
            alone.extend(call.lines if isinstance(call, Call) else [call])
    finish()
    return lines


@dataclass(frozen=True)
class Target:
    """What differs between machines in the text of a program.

    runtime: the module whose names the text uses. function: what writes loops. rules: those of ops that are not
    pointwise. product: writes matrix products. together: the lines of some calls. ordered: an entry's lines, from those
    lines, what each call of a function writes, and the names of the memory that changes meanwhile. addressed: lines
    in which the names of pointers stand for what computes them. pieces: whether wide tensors are computed for a few
    samples of a step at a time (see `pieces`), and sums where their elements are (see `joining`).
    """

    runtime: str
    function: type[Function]
    rules: Mapping[str, loops.Emitter]
    product: Callable[[Function, View, View, View, Buffer | None, bool], None]
    together: Callable[[Iterable[Call | str]], list[str]]
    ordered: Callable[[Sequence[str], Mapping[str, frozenset[str]], Collection[str]], list[str]]
    addressed: Callable[[Sequence[str], Mapping[str, str]], list[str]]
    pieces: bool


def named(lines: Sequence[str], pointers: Mapping[str, str]) -> list[str]:
    """Return an entry's lines after one for each pointer that they name."""
    return [*(f"{name} = {text}" for name, text in pointers.items()), *lines]


CPU = Target(
    "rsref_fast.cpu.runtime", Function, loops.RULES, products.product_or_sums, together,
    ordered=lambda lines, written, memory: [*lines], addressed=named, pieces=True,
)  # fmt: skip
