"""What kernels are told: the words of N for each shard of a program."""

from rsref_fast.cpu.indices import INDEX, LENGTH, REFUSED

NUMBERS = 16
"""Samples, steps, rows of a block, whether an index was out of range, whether forward keeps what backward needs; at
EVEN whether all samples take part in each step, at CUTTING whether any gradient is cut between steps, at INDEX and
LENGTH the index that was out of range and what it should have been below, and at GATE the word by which blocks wait for
each other. Where blocks are in lines, there is one shard, and behind its words one more for each line."""

SAMPLES, STEPS, ROWS, ERROR, TAPED, ENTRY = 0, 1, 2, REFUSED, 4, 5
EVEN, CUTTING, GATE = 8, 9, 12

OF_SHARDS = (SAMPLES, STEPS, ROWS, ERROR, TAPED, ENTRY, EVEN, CUTTING, INDEX, LENGTH, GATE)
"""All that a shard's words are for; ENTRY is the host's, whose threads are told there what to run."""

SLOTS = 128
"""Words of P for which a block has room in its shared memory."""
