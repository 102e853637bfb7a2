"""What a program's text is like on a machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from rsref_fast.cpu import loops, products
from rsref_fast.cpu.ordering import ordered
from rsref_fast.cpu.text import Function
from rsref_fast.cpu.touches import Touched
from rsref_fast.views import Buffer, View


@dataclass(frozen=True)
class Target:
    """What differs between machines in the text of a program.

    runtime: the module whose names the text uses. function: what writes loops. rules: those of ops that are not
    pointwise. product: writes matrix products. ordered: an entry's lines as each thread of a team runs them, from those
    lines, what each call of a function touches, and the names of the memory that changes meanwhile. addressed: lines in
    which the names of pointers stand for what computes them. pieces: whether wide tensors are computed for a few
    samples of a step at a time (see `pieces`), and sums where their elements are (see `joining`), the time loop may be
    several (see `phases`), and products may begin with a bias. rounds: whether a team may compute several shards, one
    after the other: N[9] says whether sums go on that an earlier one has begun. in_place: whether a block's rows are
    read where they lie if they follow each other, and else copied.
    """

    runtime: str
    function: type[Function]
    rules: Mapping[str, loops.Emitter]
    product: Callable[[Function, View, View, View, Buffer | None, bool, int | None, View | None], None]
    ordered: Callable[[Sequence[str], Mapping[str, Touched], Collection[str], Mapping[str, Touched]], list[str]]
    addressed: Callable[[Sequence[str], Mapping[str, str]], list[str]]
    pieces: bool
    rounds: bool = False
    in_place: bool = False


def named(lines: Sequence[str], pointers: Mapping[str, str]) -> list[str]:
    """Return an entry's lines after one for each pointer that they name."""
    return [*(f"{name} = {text}" for name, text in pointers.items()), *lines]


CPU = Target(
    "rsref_fast.cpu.runtime", Function, loops.RULES, products.product_or_sums, ordered, addressed=named, pieces=True,
    rounds=True, in_place=True,
)  # fmt: skip
