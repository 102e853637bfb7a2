"""What a mask says, in loops that are compiled once for a machine: NumPy's calls took longer than small cells.

A desk, 64-bit words; what a function answers stands there, too.
rows: 0 the mask's address, 1 samples, 2 their steps, 3 and 4 the first step that is computed and the end, 5 shards, 6
every how many steps gradients are cut or 0, 7 to 9 where order, words and cuts are to be (see `masks_plain.Packed`), 10
cut_end, 11 room for a word for each sample and step, and two more; answers 12 steps and 13 rows.
repeats: 0 to 2 as above, 3 and 4 where the places of masked steps are to be, and of what they repeat; answers 5 their
number.
repeat: 0 the outputs' address, 1 bytes of a step, 2 the number of places, 3 and 4 where they are.
nothing: as repeat; answers 5 whether there is nothing but zeros at the masked places; 6 the bits of a word that count,
7 room for one.
"""

from __future__ import annotations

from numba import types

from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.crew_native import copy_bytes
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.masks import TASKS
from rsref_fast.cpu.masks_plain import SIZES
from rsref_fast.cpu.meeting import address_of, words
from rsref_fast.cpu.pointers import at, pointer_to

I64 = types.int64
bytes_at, ints_at = pointer_to(types.uint8), pointer_to(I64)
ROWS, REPEATS, REPEAT, NOTHING = (TASKS.index(name) for name in ("rows", "repeats", "repeat", "nothing"))


@plain
def some_more(number, most):
    """The size that a number has room in: so many eighths of the most."""
    part = max(1, (most + SIZES - 1) // SIZES)
    return min(most, (number + part - 1) // part * part)


@plain
def ordered(mask, batch, time, begin, span, lengths, places, order):
    """Count each sample's valid steps, and sort: the longest samples first, those of a length as they come."""
    for n in range(span + 2):
        places[n] = 0
    for b in range(batch):
        n = 0
        for t in range(span):
            n += mask[b * time + begin + t]
        lengths[b] = n
        places[span - n + 1] += 1
    for n in range(span):
        places[n + 1] += places[n]
    for b in range(batch):
        bucket = span - lengths[b]
        order[places[bucket]] = b
        places[bucket] += 1


@plain
def offsets(order, lengths, shard, shards, count, steps, off):
    """Write where the rows of each step begin: the first samples of a shard have them, as many as are long enough."""
    off[0] = 0
    active = count
    for k in range(steps):
        while active > 0 and lengths[order[shard + (active - 1) * shards]] <= k:
            active -= 1
        off[k + 1] = off[k] + active


@plain
def rows(desk):
    mask, batch, time, begin, shards, truncate = bytes_at(desk, 0), desk[1], desk[2], desk[3], desk[5], desk[6]
    answer, tables, cuts, ends = ints_at(desk, 7), ints_at(desk, 8), bytes_at(desk, 9), bytes_at(desk, 10)
    span = desk[4] - begin
    lengths, places = ints_at(desk, 11), at(ints_at(desk, 11), 2 * batch)
    order = at(lengths, batch)
    ordered(mask, batch, time, begin, span, lengths, places, order)
    longest = lengths[order[0]] if batch > 0 else 0
    most = 0
    for shard in range(shards):
        total = 0
        for i in range(shard, batch, shards):
            total += lengths[order[i]]
        most = max(most, total)
    steps = some_more(longest, span)
    most = some_more(most, (batch + shards - 1) // shards * span)
    first = 0
    for shard in range(shards):
        count = (batch - shard + shards - 1) // shards
        room = min(most, count * steps)
        off, pos, rid = tables, at(tables, steps + 1), at(tables, steps + 1 + room)
        offsets(order, lengths, shard, shards, count, steps, off)
        for i in range(count):
            sample = order[shard + i * shards]
            answer[first + i] = sample
            step = before = 0
            for t in range(span):
                place = sample * time + begin + t
                if mask[place] != 0:
                    row = off[step] + i
                    stretch = t // truncate if truncate > 0 else 0
                    pos[row], rid[row], cuts[row] = place, i, stretch != before
                    before = stretch
                    step += 1
            ends[first + i] = truncate > 0 and span > 0 and before != (span - 1) // truncate
        tables, cuts = at(rid, room), at(cuts, room)
        first += count
    desk[12], desk[13] = steps, most


@plain
def repeats(desk):
    mask, batch, time = bytes_at(desk, 0), desk[1], desk[2]
    masked, shown = ints_at(desk, 3), ints_at(desk, 4)
    count = 0
    for b in range(batch):
        last = -1
        for place in range(b * time, (b + 1) * time):
            if mask[place] != 0:
                last = place
            elif last >= 0:
                masked[count], shown[count] = place, last
                count += 1
    desk[5] = count


@plain
def repeat(desk):
    address, width, masked, shown = desk[0], desk[1], ints_at(desk, 3), ints_at(desk, 4)
    for i in range(desk[2]):
        copy_bytes(address + masked[i] * width, address + shown[i] * width, width)


@plain
def nothing(desk):
    width, masked = desk[1], ints_at(desk, 3)
    found = 0
    for i in range(desk[2]):
        address = desk[0] + masked[i] * width
        row = words(address)
        for j in range(width // 8):
            found |= row[j] & desk[6]
        if width % 8 != 0:
            desk[7] = 0
            copy_bytes(address_of(at(desk, 7)), address + width // 8 * 8, width % 8)
            found |= desk[7] & desk[6]
        if found != 0:
            break
    desk[5] = found == 0


def masks() -> tuple[bytes, str]:
    """Return an object file, and the name of its function: of a task, one of TASKS by its number, and a desk."""

    def run(task: int, address: int) -> int:
        desk = words(address)
        if task == ROWS:
            rows(desk)
        if task == REPEATS:
            repeats(desk)
        if task == REPEAT:
            repeat(desk)
        if task == NOTHING:
            nothing(desk)
        return 0

    return object_of(plain(run), I64(I64, I64))
