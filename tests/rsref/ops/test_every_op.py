"""Every registered op keeps every promise: values, gradients of first and second order, shapes, drawing, precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsref.ops import REGISTRY
from tests.covering import examples
from tests.rsref.ops import checks
from tests.rsref.ops.indexing_cases import INDEXING
from tests.rsref.ops.pointwise_cases import POINTWISE
from tests.rsref.ops.samples import Sample
from tests.rsref.ops.structural_cases import STRUCTURAL

OPS = dict(REGISTRY)
CASES = {**POINTWISE, **STRUCTURAL, **INDEXING}
BOOLEANS = st.lists(st.booleans(), min_size=24, max_size=24)

every_op = pytest.mark.parametrize("name", sorted(OPS))
samples = settings(max_examples=examples(24, 12))


def test_every_op_has_a_case():
    assert sorted(CASES) == sorted(OPS)


@every_op
@samples
@given(data=st.data())
def test_forward(name, data):
    checks.check_forward(OPS[name], CASES[name], data.draw(CASES[name].draw))


@every_op
@samples
@given(data=st.data())
def test_gradient(name, data):
    checks.check_gradient(OPS[name], CASES[name], data.draw(CASES[name].draw))


@every_op
@samples
@given(data=st.data(), unknown=BOOLEANS)
def test_inferred_shape_and_dtype(name, data, unknown):
    checks.check_inference(OPS[name], CASES[name], data.draw(CASES[name].draw), iter(unknown))


@every_op
@samples
@given(data=st.data(), unknown_batch=st.booleans())
def test_drawn_gradient(name, data, unknown_batch):
    checks.check_drawn_gradient(OPS[name], CASES[name], data.draw(CASES[name].draw), unknown_batch)


@pytest.mark.parametrize("name", ["maximum", "minimum", "clip", "relu", "absolute", "power", "where", "max", "min"])
@samples
@given(data=st.data())
def test_drawn_gradient_where_values_are_equal(name, data):
    sample = data.draw(CASES[name].draw)
    rounded = [np.trunc(a) if a.dtype.kind == "f" else a for a in sample.operands]
    equal = tuple(np.absolute(a) if name == "power" else a for a in rounded)
    checks.check_drawn_gradient(OPS[name], CASES[name], Sample(equal, sample.attrs))


@every_op
@samples
@given(data=st.data())
def test_second_order(name, data):
    checks.check_second_order(OPS[name], CASES[name], data.draw(CASES[name].draw))


@every_op
@samples
@given(data=st.data())
def test_float32(name, data):
    checks.check_float32(OPS[name], CASES[name], data.draw(CASES[name].draw))
