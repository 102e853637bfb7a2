"""The README's two drawings run as they stand, and the Keras one is the demo's."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)


def test_blocks_run():
    assert len(BLOCKS) == 2
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_cell_is_the_demos():
    drawn = re.search(r"^def draw_step.*?return x_t, h_tm1, h_t\n", BLOCKS[0], re.S | re.M)[0]
    assert drawn in (ROOT / "examples/japanese_vowels.py").read_text()
