"""The words of N: each is for one thing, and those that a program names are among them."""

import re

from rsref_fast.cpu.programs import backward_source, forward_source
from rsref_fast.cuda.inspection import built
from rsref_fast.cuda.target import CUDA, OWNED
from rsref_fast.cuda.words import ERROR, GATE, NUMBERS, OF_SHARDS
from tests.cuda.steps import looking_up


def test_each_word_is_for_one_thing():
    assert len(set(OF_SHARDS)) == len(OF_SHARDS)
    assert set(OF_SHARDS) <= set(range(NUMBERS))


def test_what_programs_write_is_not_the_word_by_which_blocks_wait():
    """A step that looks up rows of a table writes which index was out of range."""
    compiled = built(looking_up()[0])
    for target in (CUDA, OWNED):
        sources = [forward_source(compiled, 16, True, target), backward_source(compiled, 16, target)]
        named = {int(word) for source in sources for word in re.findall(r"N\[(\d+)\]", source.text)}
        assert ERROR in named
        assert GATE not in named
        assert named <= set(OF_SHARDS)
