"""A covering choice of combinations has each value, or each pair, and not many more rows than it must have."""

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import covering
from tests.covering import chosen

pytest_plugins = ["pytester"]
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(SIZES, st.integers(1, 2))
def test_every_group_is_there(sizes, size):
    rows = list(product(*map(range, sizes)))
    kept = [rows[i] for i in chosen(rows, size)]
    assert len(set(kept)) == len(kept)
    for places in combinations(range(len(sizes)), min(size, len(sizes))):
        assert {tuple(row[p] for p in places) for row in kept} == set(product(*(range(sizes[p]) for p in places)))


@pytest.mark.parametrize(("sizes", "size", "most"), [((16, 2), 1, 16), ((54, 2, 3), 2, 162), ((4, 3, 2), 2, 13)])
def test_it_is_small(sizes, size, most):
    """The first two cannot be smaller; of 4 x 3 pairs twelve rows would be the least."""
    assert len(chosen(list(product(*map(range, sizes))), size)) <= most


def test_values_are_used_alike():
    rows = list(product(range(16), range(2)))
    assert sorted(rows[i][1] for i in chosen(rows, 1)) == [0] * 8 + [1] * 8


def test_what_pytest_runs(pytester, monkeypatch):
    monkeypatch.setattr(covering, "EVERY", covering.EVERY)  # which pytest within pytest sets
    pytester.makeconftest(
        "from tests.conftest import pytest_addoption, pytest_configure, pytest_collection_modifyitems"
    )
    pytester.makepyfile("""
        import pytest
        from tests.covering import examples
        @pytest.mark.covering("values")
        @pytest.mark.parametrize("a", [[], {}, None])
        @pytest.mark.parametrize("b", [0, 1])
        def test_values(a, b): pass
        @pytest.mark.parametrize("a", range(examples(3, 1)))
        def test_examples(a): pass
    """)
    pytester.runpytest().assert_outcomes(passed=4, deselected=3)
    pytester.runpytest("--every").assert_outcomes(passed=9, deselected=0)
