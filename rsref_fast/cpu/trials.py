"""Whether a team or one thread does what is asked: what was faster when both were tried.

Two cores hand a step's numbers to each other in a tenth of a microsecond where they share a cache, and in three times
as long where they do not; which of them a program gets, and for how long, is the system's business. So of short calls
the other way is tried now and then: seldom if nothing changes, soon if calls take longer than they did. Answers are the
same, bit by bit.

A plan keeps in words of its own: LEFT, how many calls there are until the next trial, EVERY, how many there were at
first, ALONE_NOW, whether one thread is the faster, OWN, what calls take, THEN, what they took at the last trial, OTHER,
what a trial's calls took at least; TURN, how many calls were left at the last call, WENT, whether one thread did it,
and TOTAL, what it took, with backward's calls after it: backward goes the way that forward went, whose numbers lie
where it left them. Callers at once may spoil each other's numbers: it need not be exact.
"""

from __future__ import annotations

from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.plan import ALONE_NOW, EVERY, LEFT, OTHER, OWN, THEN, TOTAL, TURN, WENT

SOON, SELDOM = 16, 1024
"""Calls from one trial to the next: twice as many each time that nothing changes."""

TRIAL = 4
"""Calls of a trial, of which the fastest counts: in the first ones memory comes from where the other cores have it."""


@plain
def note(plan, turn, time):
    """Note how long a call took. What one took by chance, much longer than those before, counts a little.

    turn: how many calls were left until a trial; its own are 0, -1 and so on.
    """
    if turn > 0:
        own = plan[OWN]
        plan[OWN] = time if own == 0 or time < own else own + (min(time, 2 * own) - own) // 16
        if plan[THEN] != 0 and 4 * plan[OWN] > 5 * plan[THEN]:
            plan[LEFT], plan[EVERY] = 1, SOON
    elif turn > 1 - TRIAL:
        plan[OTHER] = time if turn == 0 else min(plan[OTHER], time)
    else:
        other = min(plan[OTHER], time)
        if 10 * other < 9 * plan[OWN]:
            plan[ALONE_NOW] = 1 - plan[ALONE_NOW]
            plan[OWN], plan[EVERY] = other, SOON
        else:
            plan[EVERY] = min(2 * plan[EVERY], SELDOM)
        plan[THEN], plan[LEFT] = plan[OWN], plan[EVERY]


@plain
def next_way(plan):
    """Whether one thread does the next call: 1 or 0. What the call before took is noted."""
    if plan[EVERY] == 0:
        plan[EVERY] = plan[LEFT] = SOON
    if plan[TOTAL] != 0:
        note(plan, plan[TURN], plan[TOTAL])
        plan[TOTAL] = 0
    plan[LEFT] -= 1
    plan[TURN] = plan[LEFT]
    plan[WENT] = 1 - plan[ALONE_NOW] if plan[TURN] <= 0 else plan[ALONE_NOW]
    return plan[WENT]
