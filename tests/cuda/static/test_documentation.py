"""Every Python block of the page on GPUs runs as it stands."""

from pathlib import Path

from tests.rsref.test_documentation import blocks


def test_the_page_runs():
    found = blocks("docs/cuda.md")
    assert found
    for block in found:
        exec(compile(block, str(Path("docs/cuda.md")), "exec"), {"__name__": "page"})
