"""What kernels are told: the words of N for each shard of a program."""

NUMBERS = 16
"""Samples, steps, rows of a block, whether an index was out of range, whether forward keeps what backward needs; and at
CUTTING whether any gradient is cut between steps."""

ERROR, CUTTING = 3, 9
