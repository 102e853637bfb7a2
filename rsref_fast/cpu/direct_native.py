"""A step of a stream as a function that Python calls without its interpreter: inputs are copied, the plan is run.

A desk, 64-bit words: 0 and 1 the plan for steps alone and for steps that follow closely, 2 and 3 the addresses of their
arrays; 4 when the last step was done, 5 for how long others count as close, in nanoseconds; 6 and 7 how many inputs and
outputs there are; 8 the type of arrays; 9 None; from 16 on for each input its memory, its bytes, its dtype, the number
of its axes and the address of their lengths; then for each output the function that copies it.

Behind the address of an array's data: 1 the number of its axes, 2 the address of their lengths, 5 its dtype, 6 flags
(PyArrayObject_fields in NumPy's ndarraytypes.h, a part of its binary interface).
"""

from __future__ import annotations

from numba import types

from rsref_fast.cpu.build import object_of
from rsref_fast.cpu.crew_native import copy_bytes
from rsref_fast.cpu.jit import plain
from rsref_fast.cpu.meeting import c_function, now, words
from rsref_fast.cpu.memory import ADDRESS, HALF
from rsref_fast.cpu.pointers import at

I64 = types.int64
PLANS, ARRAYS = 0, 2
LAST, CLOSE, INPUTS, OUTPUTS, TYPE, NOTHING = range(4, 10)
FIRST, EACH = 16, 5
KIND = object.__basicsize__ // 8 - 1
"""The word of an object that is its type's address."""

CONTIGUOUS = 1
"""The flag of arrays whose numbers lie one behind the other."""

run_plan = c_function("rsref_crew", 2)
let_others = c_function("PyEval_SaveThread", 0)
come_back = c_function("PyEval_RestoreThread", 1)
new_list = c_function("PyList_New", 1)
put = c_function("PyList_SetItem", 3)
call = c_function("PyObject_CallNoArgs", 1)
hold = c_function("Py_IncRef", 1)
let_go = c_function("Py_DecRef", 1)


@plain
def fits(array, expected, kind):
    """Whether an object is an array of the kind of an input, and its numbers lie one behind the other."""
    if words(array)[KIND] != kind:
        return False
    found = words(array + ADDRESS)
    if found[5] != expected[2] or found[1] & HALF != expected[3] or found[6] & CONTIGUOUS == 0:
        return False
    own, lengths = words(found[2]), words(expected[4])
    alike = True
    for axis in range(expected[3]):
        alike = alike and own[axis] == lengths[axis]
    return alike


@plain
def answered(desk):
    """A list of copies of the outputs, or 0 if there is no memory for them, as Python has been told then."""
    count, functions = desk[OUTPUTS], at(desk, FIRST + EACH * desk[INPUTS])
    found = new_list(count)
    for i in range(count if found != 0 else 0):
        output = call(functions[i])
        if output == 0:
            let_go(found)
            return 0
        put(found, i, output)
    return found


def direct() -> tuple[bytes, str]:
    """Return an object file, and the name of its function: of an array that is a desk, the inputs, and their number.

    It answers what `Stream.__call__` does, or None if an input is not just as expected or the plan could not be run:
    nothing is done then.
    """

    def step(held: int, inputs: int, count: int) -> int:
        desk, given = words(words(held + ADDRESS)[0]), words(inputs)
        good = count == desk[INPUTS]
        for i in range(desk[INPUTS] if good else 0):
            good = good and fits(given[i], at(desk, FIRST + EACH * i), desk[TYPE])
        if good:
            for i in range(count):
                expected = at(desk, FIRST + EACH * i)
                copy_bytes(expected[0], words(given[i] + ADDRESS)[0], expected[1])
            way = 1 if desk[CLOSE] > 0 and now() - desk[LAST] < desk[CLOSE] else 0
            thread = let_others()
            good = run_plan(desk[PLANS + way], desk[ARRAYS + way]) == 0
            come_back(thread)
            if desk[CLOSE] > 0:
                desk[LAST] = now()
        if good:
            return answered(desk)
        hold(desk[NOTHING])
        return desk[NOTHING]

    return object_of(plain(step), I64(I64, I64, I64))
