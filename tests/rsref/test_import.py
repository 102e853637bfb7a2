"""Importing rsref is light, and imports point one way."""

import ast
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import rsref

HEAVY = {"keras", "tensorflow", "torch", "jax", "numba", "matplotlib", "hypothesis", "rsref_fast", "keras_bridge"}
FORBIDDEN = {
    "rsref": {"keras", "tensorflow", "torch", "jax", "numba", "rsref_fast", "keras_bridge"},
    "rsref_fast": {"keras", "tensorflow", "torch", "jax", "keras_bridge"},
}


def imported_packages(code):
    """Return the top-level packages that a fresh interpreter holds after running some code."""
    report = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True).stdout.split()
    )


def test_rsref_imports_nothing_heavy():
    assert not HEAVY & imported_packages("import rsref")


def test_the_check_sees_heavy_imports():
    assert HEAVY & imported_packages("import hypothesis")


def test_the_version_is_the_distributions():
    written = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]
    assert rsref.__version__ == written
    with pytest.raises(AttributeError, match="module 'rsref' has no attribute 'version'"):
        rsref.version  # noqa: B018


@pytest.mark.parametrize("package", [name for name in FORBIDDEN if find_spec(name)])
def test_imports_point_one_way(package):
    folder = Path(find_spec(package).origin).parent
    files = sorted(folder.rglob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            wrong = {name.partition(".")[0] for name in names} & FORBIDDEN[package]
            assert not wrong, f"{path.name} imports {wrong}"
