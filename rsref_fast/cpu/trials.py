"""Whether a team or one thread does what is asked: what was faster when both were tried.

Two cores hand a step's numbers to each other in a tenth of a microsecond where they share a cache, and in three times
as long where they do not; which of them a program gets, and for how long, is the system's business. So of short calls
the other way is tried now and then: seldom if nothing changes, soon if calls take longer than they did. Answers are the
same, bit by bit.

A plan keeps in words of its own: LEFT, how many calls there are until the next trial, EVERY, how many there were at
first, ALONE_NOW, whether one thread is the faster, OWN, what calls take, THEN, what they took at the last trial, OTHER,
what a trial's first call took. Callers at once may spoil each other's numbers: it need not be exact.
"""

from __future__ import annotations

from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.plan import ALONE_NOW, EVERY, LEFT, OTHER, OWN, THEN

SOON, SELDOM = 16, 1024
"""Calls from one trial to the next: twice as many each time that nothing changes."""


@plain
def turn_of(plan):
    """The number of calls that are left until a trial; 0 and -1 are the two calls of one."""
    if plan[EVERY] == 0:
        plan[EVERY] = plan[LEFT] = SOON
    plan[LEFT] -= 1
    return plan[LEFT]


@plain
def is_for_one(plan, turn):
    """Whether one thread does a call."""
    return (plan[ALONE_NOW] != 0) != (turn <= 0)


@plain
def note(plan, turn, time):
    """Note how long a call took. What one took by chance, much longer than those before, counts a little."""
    if turn > 0:
        own = plan[OWN]
        plan[OWN] = time if own == 0 or time < own else own + (min(time, 2 * own) - own) // 16
        if plan[THEN] != 0 and 4 * plan[OWN] > 5 * plan[THEN]:
            plan[LEFT], plan[EVERY] = 1, SOON
    elif turn == 0:
        plan[OTHER] = time
    else:
        other = min(plan[OTHER], time)
        if 10 * other < 9 * plan[OWN]:
            plan[ALONE_NOW] = 1 - plan[ALONE_NOW]
            plan[OWN], plan[EVERY] = other, SOON
        else:
            plan[EVERY] = min(2 * plan[EVERY], SELDOM)
        plan[THEN], plan[LEFT] = plan[OWN], plan[EVERY]
