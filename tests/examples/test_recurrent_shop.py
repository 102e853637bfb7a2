"""Every example of old Recurrent Shop runs as a script and reaches the figure that it asserts itself."""

import runpy
from pathlib import Path

import keras
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "recurrent_shop"
FILES = sorted(FOLDER.glob("*.py"))


def test_there_are_examples():
    assert len(FILES) == 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_example_runs(monkeypatch, capsys, file):
    """As `python FILE` does it, but in this process, since importing a backend takes longer than most of them.

    And without compiling kernels for each: on Keras's own engine.
    """
    monkeypatch.setenv("RSREF_FAST_TARGET", "interpreter")
    keras.utils.clear_session()
    runpy.run_path(str(file), run_name="__main__")
    assert capsys.readouterr().out.strip()
