"""What runs a plan, in compiled code: it fills the tables, has threads run the programs, and waits for them.

Threads are POSIX threads of our own. They need no Python, neither do callers. An idle one waits in the kernel; those of
one call all run, since a call takes only threads that are idle, or starts new ones: so they may wait for each other.

Who hires workers gives them back: so a thread that works for a call writes what others read twice, when it begins and
when it is done. Mutexes and conditions are for who sleeps.

What is shared, as 64-bit words:
control: 0 a mutex, 16 the first idle worker, 17 the C function that a worker runs; of teams 18 how much time they have
    lost in all, in waits for a thread that had no processor, 19 how much of it is known, 20 how much counts now, 21
    until when they are replaced because of it, 22 for how long that was, 23 whether they never are.
worker: 0 a mutex, 8 a condition, that there is work, 16 another, that it is done; on a cache line of their own 24 the
    context it is to work for, 25 its rank, 26 the next worker, idle or hired, 27 control, 28 its thread, 29 whether it
    sleeps, 30 whether it is done, 31 whether somebody sleeps until it is.
context: 0 the plan's address; from 64 on two counts for each thread: 0 of meetings with its team, 8 with all, each
    followed by the address of word 18 of control, or 0; then P for each shard, N for each thread of its team, and the
    addresses of the arrays.
plan: see `HEADER` and `rsref_fast.cpu.plan`, and for notes about its calls `trials`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.crew import KEPT
from rsref_fast.cpu.indices import REFUSED
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.meeting import address_of, c_function, meet, now, rest, seen, seen_in_order, show_in_order, words
from rsref_fast.cpu.plan import CONTEXT, HEADER, LINE, NUMBERS, TOTAL, WENT
from rsref_fast.cpu.pointers import ADDRESSES, at
from rsref_fast.cpu.trials import next_way

I64 = types.int64
SIGNATURE = I64(I64, I64, I64, I64)
PROGRAM, SLOTS, SHARDS, TEAM, ARRAYS, SCRATCH, TABLES, RANKS, COPIES, CLEARS, PREPARES, BACKWARD, TAPED = range(13)
ALONE, FORGIVEN, LEADER, TEAMS = range(13, 17)
PLAN, ALL = 0, CONTEXT + 8
LOST, KNOWN, COUNTS, UNTIL, PAUSE = range(18, 23)
WORK, END, JOB, RANK, NEXT, CONTROL, THREAD, ASLEEP, DONE, AWAITED = 8, 16, 24, 25, 26, 27, 28, 29, 30, 31
BLOCK = 256
"""Bytes of a worker."""

LOOKS = 4_000
"""How often a thread looks for others to be done, or for new work, before it sleeps: less than a tenth of a
millisecond on most processors."""

TOO_MUCH = 12_000_000
"""Nanoseconds lost in several waits from which the machine counts as busy with other work."""

SHORT, MOST = 100_000_000, 1_600_000_000
"""Nanoseconds for which one thread does the work of a team then, and at most: twice as many each time that it happens
soon again. A team whose threads wait for each other at every step loses many times what it gains."""

new_mutex = c_function("pthread_mutex_init", 2)
new_condition = c_function("pthread_cond_init", 2)
lock = c_function("pthread_mutex_lock", 1)
unlock = c_function("pthread_mutex_unlock", 1)
sleep = c_function("pthread_cond_wait", 2)
wake = c_function("pthread_cond_signal", 1)
new_thread = c_function("pthread_create", 4)
detach = c_function("pthread_detach", 1)
new_memory = c_function("calloc", 2)
copy_bytes = c_function("memcpy", 3)
set_bytes = c_function("memset", 3)


@intrinsic
def call_program(typing_context, address, table, numbers, other):
    """Call a program by its address, the way Numba calls functions."""

    def generate(context, builder, signature, arguments):
        word, empty = ir.IntType(64), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.IntType(32), [empty, empty, *[word.as_pointer()] * 3])
        function = builder.inttoptr(arguments[0], kind.as_pointer())
        places = [builder.bitcast(builder.alloca(word), empty) for _ in range(2)]
        builder.call(function, [*places, *arguments[1:]])
        return context.get_dummy_value()

    return types.void(I64, ADDRESSES, ADDRESSES, ADDRESSES), generate


@plain
def place(plan, word, arrays):
    """The address that two words of a plan say."""
    return arrays[plan[word]] + plan[word + 1] if plan[word] >= 0 else plan[word + 1]


@plain
def run_entry(plan, entry, table, numbers, other):
    numbers[5] = entry
    call_program(plan[PROGRAM], table, numbers, other)


@plain
def gather(context, numbers, threads, rank):
    """Let all threads of a call meet."""
    numbers[6] = rank
    numbers[7] = threads
    numbers[8] = address_of(at(context, ALL))
    meet(numbers)


@plain
def member(context, rank):
    """What each thread of a call does."""
    plan = words(context[PLAN])
    shards, teams, team, slots = plan[SHARDS], plan[TEAMS], plan[TEAM], plan[SLOTS]
    threads = teams * team
    first = at(context, plan[TABLES])
    numbers = at(context, plan[RANKS] + rank * NUMBERS)
    if plan[PREPARES] != 0:
        numbers[6] = rank
        numbers[7] = threads
        numbers[8] = address_of(at(context, ALL))
        run_entry(plan, 0, first, numbers, first)
        meet(numbers)
    for shard in range(rank // team, shards, teams):
        own, numbers = at(first, shard * slots), at(context, plan[RANKS] + (shard * team + rank % team) * NUMBERS)
        numbers[6] = rank % team
        numbers[7] = team
        numbers[8] = address_of(at(context, CONTEXT + rank // team * team * LINE))
        if shard >= teams:  # others may still read the memory of the round before
            meet(numbers)
        run_entry(plan, 1, own, numbers, own)
    if plan[BACKWARD] != 0:
        gather(context, numbers, threads, rank)
        for shard in range(1, teams):
            run_entry(plan, 2, first, numbers, at(first, shard * slots))
        meet(numbers)
        run_entry(plan, 3, first, numbers, first)  # of which some programs have none


@plain
def wait_until(worker, word, condition, sleeps):
    """Wait until a word of a worker is not 0: look for it first, and then sleep, as a word of its tells others."""
    looks = 0
    while seen(at(worker, word)) == 0 and looks < LOOKS:
        looks += 1
        rest()
    if seen(at(worker, word)) == 0:
        me = address_of(worker)
        lock(me)
        show_in_order(at(worker, sleeps), 1)
        while seen_in_order(at(worker, word)) == 0:
            sleep(me + 8 * condition, me)
        worker[sleeps] = 0
        unlock(me)


@plain
def tell(worker, word, number, condition, sleeps):
    """Write a word that another thread waits for, and wake it if it sleeps."""
    show_in_order(at(worker, word), number)
    if seen_in_order(at(worker, sleeps)) != 0:
        me = address_of(worker)
        lock(me)
        wake(me + 8 * condition)
        unlock(me)


@plain
def work(worker):
    """The life of a worker."""
    while worker[CONTROL] != 0:
        wait_until(worker, JOB, WORK, ASLEEP)
        context, rank = words(worker[JOB]), worker[RANK]
        worker[JOB] = 0
        member(context, rank)
        tell(worker, DONE, 1, END, AWAITED)


@plain
def hired(control):
    """An idle worker's address, or that of a new one; 0 if no thread can be started."""
    lock(address_of(control))
    found = control[16]
    if found != 0:
        control[16] = words(found)[NEXT]
    unlock(address_of(control))
    if found == 0:
        found = (new_memory(1, BLOCK + 64) + 63) // 64 * 64
        if found == 0:
            return 0
        worker = words(found)
        new_mutex(found, 0)
        new_condition(found + 8 * WORK, 0)
        new_condition(found + 8 * END, 0)
        worker[CONTROL] = address_of(control)
        if new_thread(found + 8 * THREAD, 0, control[17], found) & 0xFFFFFFFF != 0:
            return 0
        detach(worker[THREAD])
    return found


@plain
def give_back(control, found):
    """Let others hire workers; the last one first, so that each of them has the same rank the next time."""
    while found != 0:
        worker = words(found)
        following = worker[NEXT]
        lock(address_of(control))
        worker[NEXT] = control[16]
        control[16] = found
        unlock(address_of(control))
        found = following


@plain
def is_replaced(plan, control):
    """Whether one thread does the work of a plan's team, since teams lose too much time.

    What they have lost is forgiven by and by: a quarter of the time that calls should take. Several callers may be here
    at once, and lose some of it to each other: it need not be exact.
    """
    control[COUNTS] = max(control[COUNTS] - plan[FORGIVEN], 0) + control[LOST] - control[KNOWN]
    control[KNOWN] = control[LOST]
    if control[COUNTS] > TOO_MUCH:
        time = now()
        again = time - control[UNTIL] < control[PAUSE]
        control[PAUSE] = min(2 * control[PAUSE], MOST) if again else SHORT
        control[UNTIL] = time + control[PAUSE]
        control[COUNTS] = 0
    return control[UNTIL] != 0 and now() < control[UNTIL]


@plain
def fill(plan, arrays, context, control):
    """Write P and N, and do what comes before all else."""
    teams, team, slots = plan[TEAMS], plan[TEAM], plan[SLOTS]
    lost = address_of(at(control, LOST)) if plan[ALONE] != 0 else 0
    for rank in range(teams * team):
        context[CONTEXT + rank * LINE] = 0
        context[ALL + rank * LINE] = 0
        context[CONTEXT + rank * LINE + 1] = lost
        context[ALL + rank * LINE + 1] = lost if teams == 1 else 0
    word = HEADER
    for shard in range(plan[SHARDS]):
        for rank in range(shard * team, (shard + 1) * team):
            numbers = at(context, plan[RANKS] + rank * NUMBERS)
            numbers[0], numbers[1], numbers[2] = plan[word], plan[word + 1], plan[word + 2]
            numbers[REFUSED], numbers[4], numbers[9] = 0, plan[TAPED], 1 if shard >= teams else 0
        word += 3
        table = at(context, plan[TABLES] + shard * slots)
        for slot in range(slots):
            table[slot] = place(plan, word, arrays)
            word += 2
    for _ in range(plan[COPIES]):
        copy_bytes(place(plan, word, arrays), place(plan, word + 2, arrays), plan[word + 4])
        word += 5
    for _ in range(plan[CLEARS]):
        set_bytes(place(plan, word, arrays), 0, plan[word + 2])
        word += 3


@plain
def execute(plan, arrays, context, control):
    """Run a plan on the arrays at some addresses.

    Answers 0, -1 if threads are missing, or the address of the N of a thread that met an index out of range.
    """
    fill(plan, arrays, context, control)
    context[PLAN] = address_of(plan)
    threads = plan[TEAMS] * plan[TEAM]
    crew = 0
    for _ in range(1, threads):
        found = hired(control)
        if found == 0:
            give_back(control, crew)
            return -1
        words(found)[NEXT] = crew
        crew = found
    found = crew
    for rank in range(1, threads):
        worker = words(found)
        worker[RANK] = rank
        worker[DONE] = 0
        tell(worker, JOB, address_of(context), WORK, ASLEEP)
        found = worker[NEXT]
    member(context, 0)
    found = crew
    for _ in range(1, threads):
        wait_until(words(found), DONE, END, AWAITED)
        found = words(found)[NEXT]
    give_back(control, crew)
    for rank in range(plan[SHARDS] * plan[TEAM]):
        numbers = at(context, plan[RANKS] + rank * NUMBERS)
        if numbers[REFUSED] != 0:
            return address_of(numbers)
    return 0


@plain
def context_of(plan, scratch):
    """What the threads of a call share lies in scratch memory, on cache lines of its own."""
    return words((scratch + plan[SCRATCH] + 63) // 64 * 64)


@plain
def addresses_of(plan, context):
    """Where there is room for the addresses of a call's arrays."""
    return at(context, plan[RANKS] + plan[SHARDS] * plan[TEAM] * NUMBERS)


@plain
def execute_on(plan, arrays, control, held_at):
    """Run a plan on arrays at some addresses, or, if `held_at` is not 0, on those that are held at a place behind."""
    last = arrays[plan[ARRAYS] - 1]
    if held_at == 0:
        return execute(plan, arrays, context_of(plan, last), control)
    context = context_of(plan, words(last + held_at)[0])
    found = addresses_of(plan, context)
    for i in range(plan[ARRAYS]):
        found[i] = words(arrays[i] + held_at)[0]
    return execute(plan, found, context, control)


def crew() -> tuple[bytes, str]:
    """Return an object file, and the name of its function.

    (plan, arrays, control, 0): runs a plan on arrays at some addresses; (plan, objects, control, place): on arrays of
    which the objects, of Python, hold the addresses, at a place in each. (0, worker, 0, 0): what a new thread runs.
    (0, 0, control, 0): with no thread yet.
    """

    def run(plan_address: int, second: int, control: int, held_at: int) -> int:
        if plan_address == 0:
            if second == 0:
                new_mutex(control, 0)
                words(control)[16] = 0
            else:
                work(words(second))
            return 0
        plan, arrays = words(plan_address), words(second)
        if plan[ALONE] == 0 or words(control)[KEPT] != 0:
            return execute_on(plan, arrays, words(control), held_at)
        if is_replaced(plan, words(control)):
            return execute_on(words(plan[ALONE]), arrays, words(control), held_at)
        leader = words(plan[LEADER]) if plan[LEADER] != 0 else plan
        alone = leader[WENT] if plan[LEADER] != 0 else next_way(plan)
        begin = now()
        status = execute_on(words(plan[ALONE]) if alone != 0 else plan, arrays, words(control), held_at)
        leader[TOTAL] += now() - begin
        return status

    return object_of(plain(run), SIGNATURE)
