"""Every Python block of the page on GPUs runs as it stands, and its table of registers is what was found."""

import json
from pathlib import Path

from benchmarks.cuda_static import RESULTS, shown
from tests.rsref.test_documentation import blocks


def test_the_page_runs():
    found = blocks("docs/cuda.md")
    assert found
    for block in found:
        exec(compile(block, str(Path("docs/cuda.md")), "exec"), {"__name__": "page"})


def test_the_page_has_the_table():
    page = Path(__file__).parents[3] / "docs" / "cuda.md"
    assert shown(json.loads(RESULTS.read_text())) in page.read_text()
