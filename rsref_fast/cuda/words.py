"""What kernels are told: the words of N for each shard of a program."""

NUMBERS = 16
"""Samples, steps, rows of a block, whether an index was out of range, whether forward keeps what backward needs; at
EVEN whether all samples take part in each step, at CUTTING whether any gradient is cut between steps, and at GATE the
word by which blocks wait for each other. Where blocks are in lines, there is one shard, and behind its words one more
for each line."""

ERROR, EVEN, CUTTING, GATE = 3, 8, 9, 10

SLOTS = 128
"""Words of P for which a block has room in its shared memory."""
