"""Which of a test's combinations of parameters run by default: enough for each value, or each pair of values.

A test says so by the marker `covering("values")` or `covering("pairs")`. `pytest --every` runs all combinations,
and as many random examples as `examples` says.
"""

from collections import Counter, defaultdict
from itertools import combinations
from operator import itemgetter

SIZES = {"values": 1, "pairs": 2}
EVERY = False
"""Whether pytest was asked for `--every`: said before any test module is imported."""


def examples(every, usual):
    """Return how many random examples a test draws, or whatever else it does more of if it is to do all."""
    return every if EVERY else usual


def chosen(rows, size):
    """Return the numbers of rows that between them have every group of `size` values that is found in some row.

    rows: combinations of values, each a sequence of one value per parameter. Each next one is the one with the most
    groups that none has had, and of several that whose values are the rarest until then, so that all are about alike.
    """
    groups = [set(combinations(enumerate(row), min(size, len(row)))) for row in rows]
    left, had, taken = set().union(*groups), Counter(), []
    while left:
        best = max(
            range(len(rows)), key=lambda i: (len(groups[i] & left), -sum(had[value] for value in enumerate(rows[i])))
        )
        taken.append(best)
        left -= groups[best]
        had.update(enumerate(rows[best]))
    return sorted(taken)


def left_out(items):
    """Return those of pytest's items that a covering choice leaves out."""
    by_test = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("covering")
        if marker:
            by_test[item.nodeid.partition("[")[0], SIZES[marker.args[0]]].append(item)
    found = set()
    for (_, size), own in by_test.items():
        # values need not be hashable: one is known by its identity, which all combinations with it share
        rows = [[id(value) for _, value in sorted(item.callspec.params.items(), key=itemgetter(0))] for item in own]
        kept = set(chosen(rows, size))
        found.update(item for i, item in enumerate(own) if i not in kept)
    return found
