"""The Python blocks of README and Keras guide run as they stand; the README's Keras drawing is the demo's."""

import re
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": 2, "docs/keras.md": 8, "docs/migration.md": 4}


def blocks(page):
    """Return the Python blocks of a page, padded so that errors show the page's own line numbers."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M)
    return ["\n" * text[: match.start(1)].count("\n") + match[1] for match in found]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page):
    keras.utils.set_random_seed(0)
    code = blocks(page)
    assert len(code) == PAGES[page]
    names = {"__name__": "page"}
    for block in code:
        exec(compile(block, str(ROOT / page), "exec"), names)


def test_the_cell_is_the_demos():
    drawn = re.search(r"^def draw_step.*?return x_t, h_tm1, h_t\n", blocks("README.md")[0], re.S | re.M)[0]
    assert drawn in (ROOT / "examples/japanese_vowels.py").read_text()
