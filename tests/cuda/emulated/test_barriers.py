"""The emulator sees what it is there for: each meeting of threads is needed, and its absence is noticed."""

import re
from dataclasses import replace

import numpy as np
import pytest

from rsref.testing.arguments import random_arguments
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.ordering import MEETINGS
from rsref_fast.cpu.splitting import Split
from rsref_fast.cuda import build, held, runtime, tensor, tiles
from tests.cuda.emulator import DivergenceError
from tests.cuda.kernels import Emulated, EmulatedBlocks, EmulatedOwned, EmulatedTensor, compiled
from tests.fast.agreement import check
from tests.fast.made import recurrence_of

MASK = np.array([[1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0]], bool)
RECURRENCE = recurrence_of("LSTMCell", 7, 3, truncate=2)
ARGUMENTS = random_arguments(RECURRENCE, batch=4, steps=6, mask=MASK)

UNCUT = replace(RECURRENCE, truncate=None)
"""The same programs, in which what is between two steps where gradients are cut does not happen."""

MANY = random_arguments(RECURRENCE, batch=70, steps=2)
"""More samples than a line of blocks takes at once."""

SPARED = (
    r"copy_rows\(n, 7, at\(floats\(P, \d+\), .*, floats\(P, \d+\), rank, size\)$",
    r"copy_rows\(n - active, ",
    r"copy_rows\(n0 - active, ",
    r"fused_0\(.*, at\(floats\(P, 8\), \(1 - slot\) \* n0 \* 7\), rank, size\)$",
)
"""Calls that meet others for nothing: they touch other rows of the same memory, or, the last one, what a thread has
computed itself, for the products before and it share out elements alike. Only that one is made at every step."""


KINDS = {"all": Emulated, "own": EmulatedOwned}
"""Blocks that all share each call, and blocks that have parts of their own."""


def sources(kernels):
    """Return the text of the three programs, by kind."""
    engine = FastEngine(RECURRENCE, kernels)
    ARGUMENTS.cast(np.float32).forward(engine)
    (special,) = engine._special.values()
    return {"forward": special.forward, "inference": special.inference, "backward": special.backward}


PROGRAMS = {name: sources(kernels) for name, kernels in KINDS.items()}


def meetings():
    """Return a kind of blocks, a program and a line number for each meeting that is needed."""
    found = []
    for name, programs in PROGRAMS.items():
        for kind, source in programs.items():
            lines = source.text.splitlines()
            for i, line in enumerate(lines):
                after = lines[i + 1].strip() if i + 1 < len(lines) else ""
                idle = kind == "forward" and any("if not taped" in before for before in lines[i - 3 : i])
                # at the end of what is rarely done: steps need not wait before it, and here not after it either
                ends = name == "own" and len(after) > 0 and not lines[i + 1].startswith(line[: len(line) - 7])
                spared = idle or ends or any(re.match(own, after) for own in SPARED[: None if name == "own" else -1])
                if line.strip() in MEETINGS and not spared:
                    found.append((name, kind, i))
    return found


def run(kernels, arguments=ARGUMENTS, recurrence=RECURRENCE):
    engine = FastEngine(recurrence, kernels)
    check(recurrence, arguments, dtype=np.float32, engine=engine, split=Split(1, 1))


def without(name, program, number):
    """Return kernels of which one program lacks the meeting in a line."""

    class Mutant(KINDS[name]):
        def __init__(self, source, dtype):
            if source.text == PROGRAMS[name][program].text:
                lines = source.text.splitlines()
                if lines[number].strip() not in MEETINGS:  # no AssertionError, which would pass for a meeting's
                    raise ValueError(f"there is no meeting in line {number}: {lines[number]}")
                lines[number] = lines[number].replace(lines[number].strip(), "pass")
                source = replace(source, text="\n".join(lines) + "\n")
            super().__init__(source, dtype)

    return Mutant


def test_all_is_well_with_them():
    assert len(meetings()) >= 28
    for kernels in (Emulated, EmulatedBlocks, EmulatedOwned):
        run(kernels)


@pytest.mark.parametrize("chosen", meetings(), ids=lambda chosen: "-".join(map(str, chosen)))
def test_a_missing_meeting_is_noticed(chosen):
    """In at least one of the two orders in which threads may run, with gradients cut or not."""
    kernels = without(*chosen)
    for recurrence in (RECURRENCE, UNCUT):
        for kernels.backwards in (False, True):
            try:
                run(kernels, recurrence=recurrence)
            except AssertionError:
                return
    pytest.fail("nothing noticed it")


def forget():
    for function in (runtime.namespace, build.kernel, compiled):
        function.cache_clear()


PRODUCTS = [(tiles, Emulated, 4, 4), (held, EmulatedOwned, 4, 4), (tensor, EmulatedTensor, 4, 3)]
"""With how many barriers their text has, and how many of these are tried: behind the one where weights are fetched
programs have a meeting of their own."""


def leave_out(monkeypatch, module, which, count):
    """Leave out one of the barriers in the text of a module's products."""
    original = module.source_of

    def source_of(*arguments):
        parts = original(*arguments).split("meet_in_block()")
        if len(parts) != count + 1:  # no AssertionError, which would pass for a barrier's
            raise ValueError(f"{module.__name__} has {len(parts) - 1} barriers")
        between = ["meet_in_block()"] * count
        between[which] = "pass"
        return parts[0] + "".join(map(str.__add__, between, parts[1:]))

    monkeypatch.setattr(module, "source_of", source_of)


@pytest.mark.parametrize(
    ("module", "kernels", "count", "which"),
    [(*product[:3], i) for product in PRODUCTS for i in range(product[3])],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_missing_barrier_in_a_product_is_noticed(monkeypatch, module, kernels, count, which):
    leave_out(monkeypatch, module, which, count)
    forget()
    try:
        with pytest.raises(AssertionError):
            run(kernels, MANY)
    finally:
        forget()


def test_threads_that_never_come_are_an_error():
    class Mutant(Emulated):
        def __init__(self, source, dtype):
            text = re.sub(r"^( *)meet\(N\)$", r"\1if rank != 1:\n\1    meet(N)", source.text, count=1, flags=re.M)
            super().__init__(replace(source, text=text), dtype)

    with pytest.raises(DivergenceError):
        run(Mutant)
