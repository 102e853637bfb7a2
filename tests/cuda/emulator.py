"""Runs on the CPU the LLVM IR that Numba hands to NVVM, with real barriers, blocks and shared memory.

Each CUDA thread is a coroutine with a stack of its own, which stops where it must wait for others. One runs at a time
until it stops, and one block until it waits for other blocks, now from the first to the last, now the other way round.
So a thread that relies on another's haste, or on an order, computes garbage, and does so every time. Threads that wait
for some that never come are an error.

What is replaced: thread numbers, barriers, grid syncs and products of tensor cores by functions here, libdevice by the
C library. Shared memory is one piece for each block and launch, poisoned. Needs
LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS=0 before llvmlite is imported.
"""

import ctypes
import re
from ctypes import c_int64, c_size_t, c_void_p
from functools import cache, lru_cache

import llvmlite.binding as llvm
import numpy as np

from rsref_fast.cuda.intrinsics import ASK, MULTIPLY_ADD

TID, NTID, CTAID, NCTAID, CTAID_Y, NCTAID_Y, STATE, SHARED, CONTEXT, FACTORS = range(10)
GATE, SUMS, WORDS = 15, 16, 20
RUNNING, AT_BARRIER, AT_GRID, DONE, AT_TENSOR, AT_LINE = range(6)
WARP = 32
TURN = 1 << 31
"""The bit of a gate's word that changes when all blocks have come; the others are zero then."""
CONTEXT_BYTES, STACK_BYTES = 8192, 256 * 1024
SHARED_BYTES = 228 * 1024
DYNAMIC_BYTES = 64 * 1024
"""What a launch gives a kernel that asks for as much as it is given."""
POISON = 0xFF
GUARD = 256
"""Bytes behind each piece of shared memory, in which nothing may be written."""

REGISTERS = {
    "tid.x": TID, "ntid.x": NTID, "ctaid.x": CTAID, "nctaid.x": NCTAID, "ctaid.y": CTAID_Y, "nctaid.y": NCTAID_Y,
}  # fmt: skip


class DivergenceError(AssertionError):
    """Some threads wait for others that have gone elsewhere."""


def _field(name, number, kind="i64"):
    return f"""
define {kind} @{name}() {{
  %own = load ptr, ptr @emu_current
  %place = getelementptr i64, ptr %own, i64 {number}
  %value = load {kind}, ptr %place
  ret {kind} %value
}}"""


def _stop(name, state, result="void", parameters="", answer="void", noted=""):
    return f"""
define {result} @{name}({parameters}) {{
  %own = load ptr, ptr @emu_current
{noted}  %place = getelementptr i64, ptr %own, i64 {STATE}
  store i64 {state}, ptr %place
  %where = getelementptr i64, ptr %own, i64 {CONTEXT}
  %context = load ptr, ptr %where
  %status = call i32 @swapcontext(ptr %context, ptr @emu_main)
  ret {answer}
}}"""


def _place(name, number):
    return f"  %{name} = getelementptr i64, ptr %own, i64 {number}\n"


NOTED = _place("gate", GATE) + "  store i64 %word, ptr %gate\n"


def _tensor():
    """Return the function for a product of a warp: operands are put down, and results found, in a thread's record."""
    factors = [f"%f{i}" for i in range(6)]
    sums = [f"%s{i}" for i in range(4)]
    body = "".join(
        _place(f"p{place}", place) + f"  store {kind} {value}, ptr %p{place}\n"
        for place, kind, value in (
            *((FACTORS + i, "i32", v) for i, v in enumerate(factors)),
            *((SUMS + i, "float", v) for i, v in enumerate(sums)),
        )
    )
    answer, found = "undef", ""
    for i in range(4):
        found += f"  %r{i} = load float, ptr %p{SUMS + i}\n"
        found += f"  %a{i} = insertvalue {QUAD} {answer}, float %r{i}, {i}\n"
        answer = f"%a{i}"
    parameters = ", ".join((*(f"i32 {v}" for v in factors), *(f"float {v}" for v in sums)))
    return f"""
define {QUAD} @emu_tensor({parameters}) {{
  %own = load ptr, ptr @emu_current
{body}  call void @emu_wait_for_warp()
{found}  ret {QUAD} {answer}
}}"""


QUAD = "{float, float, float, float}"
ASKING = re.compile(rf'^.*asm sideeffect "{re.escape(ASK)}".*$', re.M)
"""What has memory brought near changes nothing."""

TENSOR = re.compile(r'asm sideeffect "(mma\.sync[^"]*)", "[^"]*"')

MACHINE = f"""
@emu_current = global ptr null
@emu_main = global [{CONTEXT_BYTES} x i8] zeroinitializer, align 64
@emu_kernel = global ptr null
@emu_arguments = global [6 x i64] zeroinitializer
declare i32 @swapcontext(ptr, ptr)
{"".join(_field(f"emu_long_{name.replace('.', '_')}", number) for name, number in REGISTERS.items())}
{
    "".join(
        f'''
define i32 @emu_{name.replace('.', '_')}() {{
  %long = call i64 @emu_long_{name.replace('.', '_')}()
  %short = trunc i64 %long to i32
  ret i32 %short
}}'''
        for name in REGISTERS
    )
}
{_field("emu_shared", SHARED, "ptr")}
{_stop("emu_barrier", AT_BARRIER)}
{_stop("emu_grid", AT_GRID, parameters="i64 %word", noted=NOTED)}
{_stop("emu_line", AT_LINE, parameters="i64 %words")}
{_stop("emu_done", DONE)}
{_stop("emu_wait_for_warp", AT_TENSOR)}
{_tensor()}
define float @fast_fdividef(float %a, float %b) {{
  %q = fdiv float %a, %b
  ret float %q
}}
define void @emu_start() {{
  %kernel = load ptr, ptr @emu_kernel
  %p1 = getelementptr i64, ptr @emu_arguments, i64 1
  %p2 = getelementptr i64, ptr @emu_arguments, i64 2
  %p3 = getelementptr i64, ptr @emu_arguments, i64 3
  %p4 = getelementptr i64, ptr @emu_arguments, i64 4
  %p5 = getelementptr i64, ptr @emu_arguments, i64 5
  %a0 = load i64, ptr @emu_arguments
  %a1 = load i64, ptr %p1
  %a2 = load i64, ptr %p2
  %a3 = load i64, ptr %p3
  %a4 = load i64, ptr %p4
  %a5 = load i64, ptr %p5
  call void %kernel(i64 %a0, i64 %a1, i64 %a2, i64 %a3, i64 %a4, i64 %a5)
  call void @emu_done()
  ret void
}}
define void @emu_turns(ptr %records, ptr %order, i64 %count) {{
entry:
  br label %test
test:
  %i = phi i64 [0, %entry], [%next, %body]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %end
body:
  %place = getelementptr i64, ptr %order, i64 %i
  %which = load i64, ptr %place
  %words = mul i64 %which, {WORDS}
  %record = getelementptr i64, ptr %records, i64 %words
  store ptr %record, ptr @emu_current
  %where = getelementptr i64, ptr %record, i64 {CONTEXT}
  %context = load ptr, ptr %where
  %status = call i32 @swapcontext(ptr @emu_main, ptr %context)
  %next = add i64 %i, 1
  br label %test
end:
  ret void
}}
"""

_libc = ctypes.PyDLL(None)
_libc.getcontext.argtypes = [c_void_p]
_libc.makecontext.argtypes = [c_void_p, c_void_p, ctypes.c_int]

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


@lru_cache(maxsize=512)
def _parsed(text):
    """Return a module for the CPU, and what `translated` says of its shared memory."""
    text, declared = translated(text)
    return llvm.parse_assembly(text), declared


def translated(text):
    """Return a module's text for the CPU, and name and size of each piece of shared memory: 0 if a launch says it."""
    found = []

    def declared(match):
        name, count, kind = match.groups()
        found.append((name, int(count) * {"i32": 4, "float": 4, "i64": 8, "double": 8}[kind]))
        return f"declare ptr @emu_shared_{name}()"

    text = re.sub(r'^(target |source_filename|!|@"?llvm\.used).*$', "", text, flags=re.M)
    shared = r'^@"(\w+)" = (?:internal|external) addrspace\(3\) global \[(\d+) x (\w+)\].*$'
    text = re.sub(shared, declared, text, flags=re.M)
    text = re.sub(r'addrspacecast ptr addrspace\(3\) @"(\w+)" to ptr', r"call ptr @emu_shared_\1()", text)
    for name in REGISTERS:
        text = text.replace(f'"llvm.nvvm.read.ptx.sreg.{name}"', f'"emu_{name.replace(".", "_")}"')
    text = text.replace('"llvm.nvvm.barrier0"', '"emu_barrier"')
    text = text.replace('"rsref_gate"', '"emu_grid"').replace('"rsref_gate_of_a_line"', '"emu_line"')
    text = ASKING.sub("", text)
    assert set(TENSOR.findall(text)) <= {MULTIPLY_ADD}
    text, products = TENSOR.subn("@emu_tensor", text)
    if products:
        parameters = ", ".join(["i32"] * 6 + ["float"] * 4)
        text += f"\ndeclare {QUAD} @emu_tensor({parameters})\n"
    text = re.sub(r'"__nv_(\w+)"', r'"\1"', text)
    text = re.sub(r", !\w+ !\d+", "", text)
    assert "addrspace" not in text, "shared memory that the emulator does not know"
    assert not re.search(r"llvm\.nvvm| asm ", text), "an instruction that the emulator does not know"
    return text, found


def _above(place):
    return (place + 63) // 64 * 64


def _shared(name, offset):
    return f"""
define ptr @emu_shared_{name}() {{
  %base = call ptr @emu_shared()
  %place = getelementptr i8, ptr %base, i64 {offset}
  ret ptr %place
}}"""


class Kernel:
    """A kernel compiled for the CPU. code: a `rsref_fast.cuda.build.Code`."""

    def __init__(self, code):
        self.shared = {}
        self.meets = code.cooperative
        self.multiplies = any(TENSOR.search(text) for text in code.modules)
        parts = [_parsed(text) for text in code.modules]
        for _, declared in parts:
            for name, size in declared:
                if name not in self.shared:
                    first = max((offset + taken for offset, taken in self.shared.values()), default=0)
                    place = _above(first) + GUARD * bool(self.shared)
                    self.shared[name] = (place, size) if size else (0, 0)  # how much, a launch says
        if "dynamic" in self.shared:  # behind all others
            self.shared["dynamic"] = _above(max(offset + size for offset, size in self.shared.values())) + GUARD, 0
        machine = MACHINE + "".join(_shared(name, offset) for name, (offset, _) in self.shared.items())
        module = llvm.parse_assembly(machine)
        for part, _ in parts:
            module.link_in(part, preserve=True)
        module.triple = llvm.get_default_triple()
        module.verify()
        target = llvm.Target.from_default_triple().create_target_machine(opt=0)
        self.engine = llvm.create_mcjit_compiler(module, target)
        self.engine.finalize_object()
        self.start = self.engine.get_function_address("emu_start")
        self.turns = ctypes.PYFUNCTYPE(None, c_void_p, c_void_p, c_int64)(self.engine.get_function_address("emu_turns"))
        self.entry = self.engine.get_function_address(code.name)
        self.dynamic_bytes = DYNAMIC_BYTES

    @property
    def shared_bytes(self):
        """What a block of a launch has."""
        sizes = {n: self.dynamic_bytes if n == "dynamic" else size for n, (_, size) in self.shared.items()}
        return max((offset + sizes[name] for name, (offset, _) in self.shared.items()), default=0)

    def launch(self, blocks, threads, *arguments, backwards=False, lines=1):
        """Run the kernel. backwards: whether the last thread is the first to run. lines: of so many blocks each.

        Errors: `DivergenceError`.
        """
        across, blocks = blocks, blocks * lines
        assert self.shared_bytes <= SHARED_BYTES
        self._word("emu_kernel")[0] = self.entry
        ctypes.memmove(self.engine.get_global_value_address("emu_arguments"), (c_int64 * 6)(*arguments), 48)
        total = blocks * threads
        stacks, contexts = _room(total)
        pitch = (self.shared_bytes + GUARD + 63) // 64 * 64
        shared = np.full(blocks * pitch + 64, POISON, np.uint8)
        records = np.zeros((total, WORDS), np.int64)
        numbers = np.arange(total)
        records[:, TID], records[:, NTID] = numbers % threads, threads
        records[:, CTAID], records[:, NCTAID] = numbers // threads % across, across
        records[:, CTAID_Y], records[:, NCTAID_Y] = numbers // threads // across, lines
        records[:, SHARED] = _aligned(shared) + numbers // threads * pitch
        records[:, CONTEXT] = _aligned(contexts) + numbers * CONTEXT_BYTES
        for i in range(total):
            self._prepare(int(records[i, CONTEXT]), stacks.ctypes.data + i * STACK_BYTES)
        states = records[:, STATE].reshape(blocks, threads)
        while not (states == DONE).all():
            states[...] = RUNNING
            for first in range(0, blocks, across)[:: -1 if backwards else 1]:
                self._run_line(records, states[first : first + across], first * threads, backwards)
            if (states != states[0, 0]).any():
                raise DivergenceError("some blocks wait for others that are done")
            if (states == AT_GRID).all():
                _count(int(records[0, GATE]))
            backwards = not backwards
        begin = _aligned(shared) - shared.ctypes.data
        for block in range(blocks):
            own = shared[begin + block * pitch :][:pitch].copy()
            for name, (offset, size) in self.shared.items():
                own[offset : offset + (self.dynamic_bytes if name == "dynamic" else size)] = POISON
            assert (own == POISON).all(), "something was written behind a block's shared memory"

    def _run_line(self, records, states, first, backwards):
        """Let the blocks of a line go on until all are done, or wait for other lines."""
        blocks, threads = states.shape
        while states[0, 0] in (RUNNING, AT_LINE):
            states[...] = RUNNING
            for one in range(blocks)[:: -1 if backwards else 1]:
                self._run_block(records, states[one], first + one * threads, backwards)
            if (states != states[0, 0]).any():
                raise DivergenceError("some blocks of a line wait for others that have gone elsewhere")
            backwards = not backwards

    def _run_block(self, records, states, first, backwards):
        """Let a block go on until all its threads are done, or wait for other blocks."""
        order = np.arange(first, first + len(states))
        while states[0] in (RUNNING, AT_BARRIER):
            states[...] = RUNNING
            for some in self._together(len(order)):
                turns = np.ascontiguousarray(order[some][::-1] if backwards else order[some])
                self.turns(records.ctypes.data, turns.ctypes.data, len(turns))
                while (states[some] == AT_TENSOR).all():
                    multiply_add(records[order[some][0] : order[some][-1] + 1])
                    self.turns(records.ctypes.data, turns.ctypes.data, len(turns))
            if (states != states[0]).any():
                raise DivergenceError(
                    f"threads of a block wait for others that have gone elsewhere: {np.bincount(states)}"
                )
            backwards = not backwards

    def _together(self, threads):
        """Return which threads run by themselves until they meet others: warps, if they have tensor cores."""
        if not self.multiplies:
            return [slice(None)]
        assert threads % WARP == 0
        return [slice(first, first + WARP) for first in range(0, threads, WARP)]

    def _word(self, name):
        return (c_int64 * 1).from_address(self.engine.get_global_value_address(name))

    def _prepare(self, context, stack):
        _libc.getcontext(context)
        # ucontext_t begins with its flags, what follows it, and the stack: its address, flags, and size
        c_int64.from_address(context + 8).value = 0
        c_int64.from_address(context + 16).value = stack
        c_size_t.from_address(context + 32).value = STACK_BYTES
        _libc.makecontext(context, self.start, 0)


def _count(address):
    """Leave the word of a grid's gate as `rsref_fast.cuda.gate` does. Errors: AssertionError if others write there."""
    word = c_int64.from_address(address)
    assert word.value & ~TURN == 0, "something was written to the word by which blocks wait for each other"
    word.value ^= TURN


def multiply_add(records):
    """What `mma.m16n8k8` does for a warp, by its description in the PTX ISA. records: of its threads, in order."""
    lane = np.arange(WARP)
    row, column = lane // 4, lane % 4
    words = records[:, FACTORS:SUMS].astype(np.uint32) & np.uint32(0xFFFFE000)  # TF32 has no more digits
    factors = words.view(np.float32).astype(np.float64)
    a, b, c = np.empty((16, 8)), np.empty((8, 8)), np.empty((16, 8))
    sums = np.ascontiguousarray(records[:, SUMS:WORDS]).view(np.float32)[:, ::2]
    for i in range(4):
        a[row + i % 2 * 8, column + i // 2 * 4] = factors[:, i]
        c[row + i // 2 * 8, column * 2 + i % 2] = sums[:, i]
    for i in range(2):
        b[column + i * 4, row] = factors[:, 4 + i]
    with np.errstate(invalid="ignore", over="ignore"):
        found = (c + a @ b).astype(np.float32)
    answers = np.stack([found[row + i // 2 * 8, column * 2 + i % 2] for i in range(4)], axis=1)
    records[:, SUMS:WORDS] = answers.view(np.uint32)


@cache
def _rooms():
    return []


def _room(total):
    """Return stacks and contexts for some threads, the same memory for every launch: fresh pages cost most of it."""
    rooms = _rooms()
    if not rooms or len(rooms[0]) < total * STACK_BYTES:
        rooms[:] = [np.empty(total * STACK_BYTES, np.uint8), np.zeros(total * CONTEXT_BYTES + 64, np.uint8)]
    return rooms


def _aligned(array):
    return (array.ctypes.data + 63) // 64 * 64
