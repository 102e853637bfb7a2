"""Small kernels around the programs: masks made into packed rows, rows put in order, numbers of other types.

Each is a program of P, N and Q like the generated ones, for all threads of the grid.
"""

from __future__ import annotations

PACK = '''
@entry
def lengths(P, N, Q):
    """P: mask, order, times, lengths, cut_end. How many steps of each sample are valid, and which."""
    mask, times, found = bytes_(P, 0), ints(P, 2), ints(P, 3)
    batch, time = N[0], N[1]
    for b in range(rank_of(N), batch, size_of(N)):
        count = 0
        for t in range(time):
            if mask[b * time + t] != 0:
                times[b * time + count] = t
                count += 1
        found[b] = count
    return 0


@entry
def sort(P, N, Q):
    """Samples by their number of valid steps, the most first, in the order in which shards have them.

    Of all that are equally long the first comes first. Shard i has the samples i, i + shards, ... of the sorted ones.
    """
    order, found = ints(P, 1), ints(P, 3)
    batch, shards = N[0], N[2]
    for b in range(rank_of(N), batch, size_of(N)):
        place = 0
        for other in range(batch):
            if found[other] > found[b] or (found[other] == found[b] and other < b):
                place += 1
        shard = remainder(place, shards)
        before = shard * quotient(batch, shards) + min(shard, remainder(batch, shards))
        order[before + quotient(place, shards)] = b
    return 0


@entry
def pack(P, N, Q):
    """Q: off, pos, rid, cut of each shard. The rows of each step, one after the other, as `rsref_fast.packing` does."""
    order, times, found, cut_end = ints(P, 1), ints(P, 2), ints(P, 3), bytes_(P, 4)
    batch, time, shards, truncate, slots = N[0], N[1], N[2], N[3], N[4]
    for e in range(rank_of(N), shards * (time + 1), size_of(N)):
        shard, s = quotient(e, time + 1), remainder(e, time + 1)
        table = at(Q, shard * slots)
        off, pos, rid, cut = ints(table, 0), ints(table, 1), ints(table, 2), bytes_(table, 3)
        first = shard * quotient(batch, shards) + min(shard, remainder(batch, shards))
        count = quotient(batch, shards) + (1 if shard < remainder(batch, shards) else 0)
        row = 0
        for i in range(count):
            row += min(found[order[first + i]], s)
        off[s] = row
        for i in range(count):
            b = order[first + i]
            if s < time and s < found[b]:
                t = times[b * time + s]
                pos[row + i] = b * time + t
                rid[row + i] = i
                before = quotient(times[b * time + s - 1], truncate) if s > 0 else 0
                cut[row + i] = U(1) if quotient(t, truncate) != before else U(0)
            if s == time:
                last = quotient(times[b * time + found[b] - 1], truncate) if found[b] > 0 else 0
                cut_end[first + i] = U(1) if last != quotient(max(time, 1) - 1, truncate) else U(0)
    return 0
'''

POINTERS = '''
@entry
def pointers(P, N, Q, A, B):
    """Q: for each of A pointers a slot of P and the bytes behind it; then the pointers themselves."""
    for e in range(rank_of(N), A, size_of(N)):
        Q[2 * A + e] = P[Q[2 * e]] + Q[2 * e + 1]
    return 0
'''

ROWS = '''
@entry
def reorder(P, N, Q):
    """P: source, order, target; N: rows, width. target[i] = source[order[i]]."""
    source, order, target = {pointer}(P, 0), ints(P, 1), {pointer}(P, 2)
    width = N[1]
    for e in range(rank_of(N), N[0] * width, size_of(N)):
        target[e] = source[order[quotient(e, width)] * width + remainder(e, width)]
    return 0


@entry
def restore(P, N, Q):
    """target[order[i]] = source[i]."""
    source, order, target = {pointer}(P, 0), ints(P, 1), {pointer}(P, 2)
    width = N[1]
    for e in range(rank_of(N), N[0] * width, size_of(N)):
        target[order[quotient(e, width)] * width + remainder(e, width)] = source[e]
    return 0


@entry
def add(P, N, Q):
    """target[order[i]] += source[i], the order naming no row twice."""
    source, order, target = {pointer}(P, 0), ints(P, 1), {pointer}(P, 2)
    width = N[1]
    for e in range(rank_of(N), N[0] * width, size_of(N)):
        target[order[quotient(e, width)] * width + remainder(e, width)] += source[e]
    return 0


@entry
def sum(P, N, Q):
    """P: source, target. target[i] += source[i]."""
    source, target = {pointer}(P, 0), {pointer}(P, 1)
    for e in range(rank_of(N), N[0] * N[1], size_of(N)):
        target[e] += source[e]
    return 0


@entry
def clear(P, N, Q):
    """P: flags, target. Rows whose flag is set become zero."""
    flags, target = bytes_(P, 0), {pointer}(P, 1)
    width = N[1]
    for e in range(rank_of(N), N[0] * width, size_of(N)):
        if flags[quotient(e, width)] != 0:
            target[e] = 0
    return 0


@entry
def hold(P, N, Q):
    """P: values (rows, time, width), mask; N: rows, width, time. Masked steps repeat the last valid one, or zero."""
    values, mask = {pointer}(P, 0), bytes_(P, 1)
    width, time = N[1], N[2]
    for e in range(rank_of(N), N[0] * width, size_of(N)):
        b, j = quotient(e, width), remainder(e, width)
        last = -1
        for t in range(time):
            place = (b * time + t) * width + j
            if mask[b * time + t] != 0:
                last = place
            elif last >= 0:
                values[place] = values[last]
            else:
                values[place] = 0
    return 0


@entry
def collect(P, N, Q):
    """P: source, mask, target. The gradient of `hold`: valid steps get that of the masked ones that repeat them."""
    source, mask, target = {pointer}(P, 0), bytes_(P, 1), {pointer}(P, 2)
    width, time = N[1], N[2]
    for e in range(rank_of(N), N[0] * width, size_of(N)):
        b, j = quotient(e, width), remainder(e, width)
        waiting = F(0)
        for k in range(time):
            t = time - 1 - k
            place = (b * time + t) * width + j
            waiting = waiting + source[place]
            if mask[b * time + t] != 0:
                target[place] = waiting
                waiting = F(0)
            else:
                target[place] = 0
    return 0
'''

CONVERT = '''
@entry
def convert(P, N, Q):
    """P: source, target; N: elements, axes, then lengths and strides of the source. Another type, and row-major."""
    source, target = {source}(P, 0), {pointer}(P, 1)
    axes = N[1]
    for e in range(rank_of(N), N[0], size_of(N)):
        rest = e
        place = 0
        for k in range(axes - 1, 0, -1):
            outside = rest // N[2 + 2 * k]
            place += (rest - outside * N[2 + 2 * k]) * N[3 + 2 * k]
            rest = outside
        place += rest * N[3]
        target[e] = {cast}
    return 0
'''

CASTS = {"float": "F(source[place])", "int": "I(source[place])", "bool": "U(1) if source[place] != 0 else U(0)"}
