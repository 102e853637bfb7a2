"""A call laid out: who computes which samples, by which plans, and what arrays the gradients need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rsref_fast.cpu.gradients import Maker, Makers
from rsref_fast.cpu.plan import Plan, backward_plan, forward_plan
from rsref_fast.cpu.splitting import Split
from rsref_fast.packing import Shard

if TYPE_CHECKING:
    from rsref_fast.cpu.specialised import Specialised


@dataclass
class Call:
    """How calls of some sizes are run; each plan is made when it is first needed.

    shards: samples that are computed apart. steps: those of the arrays. split: who computes the shards.
    tabled: whether more arguments say what the rows are (see `rsref_fast.cpu.plan.Tables`). zeroed: whether the arrays
    of answers are zero before a call, so that what a mask leaves out of them need not be cleared.
    gradients: what makes the arrays that backward answers, once it is known.
    """

    special: Specialised
    shards: Sequence[Shard]
    steps: int
    split: Split
    tabled: bool = False
    zeroed: bool = False
    gradients: Makers | None = None

    @cached_property
    def inference(self) -> Plan:
        return forward_plan(self.special, self.shards, self.steps, self.split, False, self.tabled, self.zeroed)

    @cached_property
    def forward(self) -> Plan:
        return forward_plan(self.special, self.shards, self.steps, self.split, True, self.tabled, self.zeroed)

    @cached_property
    def backward(self) -> Plan:
        plan = backward_plan(self.special, self.shards, self.steps, self.split, self.tabled, self.zeroed)
        return replace(plan, leader=self.forward)


@dataclass
class Way:
    """How calls without a mask are run whose arrays are alike and lie alike.

    asked: for which split and threads that was found out. outputs: what makes them. call: once one was laid out.
    """

    asked: Any
    split: Split
    outputs: list[Maker]
    call: Call | None = None
