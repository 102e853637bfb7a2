"""Every Python block of the NumPy pages runs as it stands, one after the other."""

import re
from pathlib import Path

import pytest

import rsref
from rsref import set_random_seed
from rsref.ops import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["docs/guide.md", "docs/ops.md"]


def blocks(page):
    """Return the Python blocks of a page, padded so that errors show the page's own line numbers."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M)
    return ["\n" * text[: match.start(1)].count("\n") + match[1] for match in found]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page, monkeypatch):
    monkeypatch.setattr("rsref.ops.base.REGISTRY", dict(REGISTRY))  # ops that a page defines are gone afterwards
    set_random_seed(0)
    code = blocks(page)
    assert code
    names = {"__name__": "page"}
    for block in code:
        exec(compile(block, str(ROOT / page), "exec"), names)


@pytest.mark.parametrize("name", rsref.__all__)
def test_docstrings_refer_to_what_is_there(name):
    documented = getattr(rsref, name)
    for other in re.findall(r"[Ss]ee `(\w+)`", documented.__doc__ or ""):
        assert hasattr(rsref, other) or hasattr(documented, other), other
