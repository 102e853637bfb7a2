"""Every Python block of the compiler's page runs as it stands."""

from pathlib import Path

from tests.rsref.test_documentation import blocks


def test_the_page_runs():
    names = {"__name__": "page"}
    found = blocks("docs/compiler.md")
    assert found
    for block in found:
        exec(compile(block, str(Path("docs/compiler.md")), "exec"), names)
