"""What the later stages do to small graphs: simplify, views, layout and fuse, and the packing of rows."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from rsref import Dense, Input, RecurrentModel, add, cells, ops
from rsref.graph import StepGraph, topological_order
from rsref.ops.base import apply
from rsref.recurrence import Recurrence
from rsref.tensor import Parameter
from rsref.testing import random_arguments
from rsref_fast.explain import explain, flops_a_row
from rsref_fast.layout import Section
from rsref_fast.lengths import ROWS, N, length_of, per_row, plus, sized, times
from rsref_fast.program import build
from rsref_fast.simplify import simplify
from rsref_fast.views import Buffer, Space, view_of_op, whole
from tests.covering import examples
from tests.fast.agreement import check


def names(tensors):
    return [t.op.name for t in topological_order(tensors) if t.op is not None]


def programs_of(layer):
    graph = layer.recurrence.graph
    leaves = (*graph.sequences, *graph.constants, *graph.states)
    return build(graph, {leaf: (2, *leaf.shape[1:]) for leaf in leaves})


def units(program, section):
    return [[t.op.name for t in unit.tensors] for unit in program.units[section]]


def drawn_lstm():
    """An LSTM as a beginner draws it: two Dense layers for each gate."""
    x, h, c = Input((3,)), Input((4,)), Input((4,))
    i, f, o, g = (add([Dense(4)(x), Dense(4)(h)]) for _ in range(4))
    new_c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    new_h = ops.sigmoid(o) * ops.tanh(new_c)
    return RecurrentModel(x, new_h, [h, c], [new_h, new_c])


def test_eight_dense_layers_end_as_one_product_and_one_loop_a_step():
    compiled = programs_of(drawn_lstm())
    assert units(compiled.inference, Section.BEFORE) == [["matmul"]]
    loop = units(compiled.inference, Section.LOOP)
    assert [u for u in loop if u == ["matmul"]] == [["matmul"]]
    assert len(loop) == 2  # the product, and everything else in one loop


def test_the_weight_gradients_of_an_lstm_are_sunk():
    compiled = programs_of(drawn_lstm())
    backward = compiled.backward
    assert sum(u == ["matmul"] for u in units(backward, Section.LOOP)) == 1
    sunk = [unit for unit in backward.units[Section.AFTER] if unit.tensors[0].op.name == "matmul"]
    assert len(sunk) == 3  # the kernel's gradient, the recurrent kernel's, and that of x
    assert not any(t.op.name == "sum_to_like" for u in backward.units[Section.LOOP] for t in u.tensors)


def test_a_rows_deviation_is_kept_and_not_worked_out_again():
    x, h, u = Input((3,)), Input((4,)), Parameter("u", np.eye(4))
    new = ops.standardize(add([Dense(4)(x), h @ u.tensor]), -1)
    compiled = programs_of(RecurrentModel(x, new, h, new))
    kept = compiled.derivative.saved
    assert sorted(t.shape for t in kept) == [(None, 1), (None, 4)]  # one divided by it, and the result
    drawn = [t.op.name for t in topological_order(compiled.derivative.results) if t.op is not None]
    assert "rsqrt" not in drawn
    assert drawn.count("sum") == 2  # of the gradient, and of the gradient times the result


def test_the_weight_gradients_of_wide_gates_are_sunk():
    """A thousand units have gates of 4,096 values: each step alone has one row a sample for the weights' gradients."""
    layer = cells.LayerNormLSTMCell(1024).get_layer()
    layer.build((None, None, 8))
    backward = programs_of(layer).backward
    assert sum(u == ["matmul"] for u in units(backward, Section.LOOP)) == 1
    assert sum(unit.tensors[0].op.name == "matmul" for unit in backward.units[Section.AFTER]) == 3


def test_forward_keeps_nothing_that_is_cheap_to_compute_again():
    """Of a GRU neither h - candidate, nor its factor 1 of shape (); of a row taken off its mean, the mean instead."""
    layer = cells.GRUCell(4).get_layer()
    layer.build((None, None, 3))
    saved = programs_of(layer).derivative.saved
    assert [(t.op.name, t.shape) for t in saved if t not in layer.recurrence.graph.new_states] == [
        ("sigmoid", (None, 4)), ("sigmoid", (None, 4)), ("add", (None, 4)), ("tanh", (None, 4)),
    ]  # fmt: skip
    check(layer.recurrence, random_arguments(layer.recurrence))

    x, h = Input((16,)), Input((16,))
    row = ops.tanh(x)
    new = ops.sin(row - ops.mean(row, -1, keepdims=True)) + h * 0.5
    layer = RecurrentModel(x, new, h, new)
    layer.build((None, None, 16))
    saved = programs_of(layer).derivative.saved
    assert sorted((t.op.name, t.shape) for t in saved) == [("divide", (None, 1)), ("tanh", (None, 16))]
    check(layer.recurrence, random_arguments(layer.recurrence))


def test_a_new_state_that_no_step_computes_is_not_read_from_the_tape():
    """It is computed once a call, of a constant, and not in the memory that forward keeps."""
    c, h, kind = Input((), dtype="int"), Input((3,)), Input((3,))
    drawn = ops.one_hot(c, 3)
    chosen = ops.where(ops.less_equal(h, drawn), h, drawn)
    step = StepGraph(constants=[c], states=[h, kind], outputs=[chosen], new_states=[ops.tanh(chosen * 2.0), drawn])
    saved = build(step, {c: (2,), h: (2, 3), kind: (2, 3)}).derivative.saved
    assert not any(t.op.name == "one_hot" for t in saved)
    recurrence = Recurrence(step)
    check(recurrence, random_arguments(recurrence, steps=4))


def test_what_costs_no_more_than_reading_it_is_computed_again():
    """A row's mean is taken off where it is read: it goes neither to memory nor back."""
    x, h, u = Input((9,)), Input((9,)), Parameter("u", np.eye(9))
    new = ops.tanh(ops.standardize(h @ u.tensor, -1) * (x + 1.0))
    loop = units(programs_of(RecurrentModel(x, new, h, new)).inference, Section.LOOP)
    assert loop == [
        ["matmul"], ["sum"], ["divide"], ["subtract", "square", "sum"], ["divide", "add", "rsqrt"],
        ["subtract", "multiply", "add", "multiply", "tanh"],
    ]  # fmt: skip


def test_a_loop_waits_for_what_it_can_compute_with_others():
    x, h, u = Input((4,)), Input((4,)), Parameter("u", np.eye(4))
    new = ops.tanh(ops.sin(h) * x * (ops.tanh(h) @ u.tensor))
    loop = units(programs_of(RecurrentModel(x, new, h, new)).inference, Section.LOOP)
    assert loop == [["tanh"], ["matmul"], ["sin", "multiply", "multiply", "tanh"]]


def test_a_view_of_what_a_loop_computes_is_read_by_another_one():
    """`turned` is cheap to compute again, but not in the loop that computes the sine: it reads that reversed."""
    x, h = Input((16,)), Input((16,))
    sine = ops.sin(h)
    turned = sine[:, ::-1] - x[:, :1]
    new = ops.tanh(sine * turned + ops.sum(turned, -1, keepdims=True))
    layer = RecurrentModel(x, new, h, new)
    layer.build((None, None, 16))
    assert units(programs_of(layer).inference, Section.LOOP)[0] == ["sin"]
    check(layer.recurrence, random_arguments(layer.recurrence))


def test_inference_keeps_nothing():
    compiled = programs_of(drawn_lstm())
    spaces = {view.buffer.space for view in compiled.inference.layout.views.values()}
    assert Space.PACKED not in spaces
    assert Space.PACKED in {view.buffer.space for view in compiled.forward.layout.views.values()}


def test_a_new_state_is_computed_where_the_next_step_reads_it():
    compiled = programs_of(drawn_lstm())
    for tensor, (_, after) in zip(compiled.forward.new_states, compiled.states):
        assert compiled.forward.layout.views[tensor].buffer is after


def test_parts_of_a_concatenation_are_computed_in_place():
    x, h = Input((3,)), Input((6,))
    new = h + ops.concatenate([ops.tanh(x @ Parameter("w", np.ones((3, 2))).tensor), ops.sin(x), x[:, :1]], -1)
    compiled = programs_of(RecurrentModel(x, new, h, new))
    layout = compiled.inference.layout
    assert {t.op.name for t in layout.parts} == {"tanh", "sin"}


def test_sums_of_slices_become_a_concatenation():
    x = Input((6,))
    a, b = x[:, :2], x[:, 2:]
    spans = (a, (None, 2, 1)), (b, (2, None, 1))
    put = ops.REGISTRY["put_slice"]
    parts = [apply(put, ops.tanh(part), x, bounds=((None, None, 1), span)) for part, span in spans]
    assert "concatenate" in names(simplify([parts[0] + parts[1]]))
    assert "put_slice" not in names(simplify([parts[0] + parts[1]]))
    assert "put_slice" in names(simplify([parts[0] + parts[0]]))  # they do not fill the axis


def test_what_is_computed_alike_is_computed_once_and_numbers_are_worked_out():
    x = Input((3,))
    y, z = simplify([ops.tanh(x) + 1, ops.tanh(x) * 2])
    assert names([y, z]).count("tanh") == 1
    assert "cast" not in names([y, z])
    mean = simplify([ops.mean(x, 1)])
    assert "count" not in names(mean)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax, ops.standardize, lambda x: ops.logsumexp(x, -1)])
def test_composite_ops_are_taken_apart(op):
    (y,) = simplify([op(Input((3,)))])
    assert not {"softmax", "log_softmax", "standardize", "logsumexp"} & set(names([y]))


def test_products_that_sum_over_nothing_are_multiplications():
    def weights(*shape):
        return Parameter("w", np.ones(shape)).tensor

    x = Input((4, 1))
    for y, expected in (
        (x @ weights(1, 5), ["multiply"]),
        (ops.einsum("bi,j->bij", x[:, :, 0], weights(5)), ["multiply"]),
        (ops.einsum("bi,j->bji", x[:, :, 0], weights(5)), ["multiply"]),
        (x[:, :, 0] @ weights(4, 1) @ weights(1, 5), ["matmul", "matmul"]),
        (x @ weights(1), ["multiply"]),
        (ops.swapaxes(x, 1, 2) @ weights(4, 5), ["matmul"]),
    ):
        assert [name for name in names(simplify([y])) if name in ("matmul", "einsum", "multiply")] == expected


def test_only_a_transposed_product_with_one_column_is_a_sum():
    x, g = Input(batch_shape=(2, 3, 4)), Input(batch_shape=(2, 3, 1))
    places, column = ops.reshape(x, (6, 4)), ops.reshape(g, (6, 1))
    for left, expected in ((ops.transpose(places), "sum"), (ops.reshape(x, (4, 6)), "matmul")):
        product = simplify([left @ column])
        assert {"sum", "matmul"} & set(names(product)) == {expected}


MOVES = [
    lambda x: x[:, ::-1, 1:],
    lambda x: x[:, 1],
    lambda x: ops.transpose(x, (0, 2, 1)),
    lambda x: ops.transpose(x),
    lambda x: ops.expand_dims(x, (1, 4)),
    lambda x: ops.squeeze(x[:, :, :1], 2),
    lambda x: ops.broadcast_to(x[:, :1], (None, 5, 6)),
    lambda x: ops.reshape(x, (-1, 24)),
    lambda x: ops.reshape(x, (-1, 2, 2, 6)),
    lambda x: ops.reshape(x[:, :, 2:4], (-1, 2, 2, 2)),
    lambda x: ops.reshape(x[:, :, 2:4], (1, -1, 4, 2)),
    lambda x: ops.windows(x, 2, 2),
    lambda x: ops.windows(ops.reshape(x, (-1, 4, 3, 2)), 2, (2, 1), dilation=(1, 2)),
    lambda x: ops.stop_gradient(x),
]


@pytest.mark.parametrize("move", MOVES)
def test_views_show_what_the_ops_compute(move):
    x = Input((4, 6))
    values = np.random.default_rng(0).normal(size=(5, 4, 6))
    buffer = Buffer("x", "float", Space.STEP, (N, 4, 6))
    view, array = whole(buffer), values
    tensors = [t for t in topological_order([move(x)]) if t.op is not None]
    for tensor in tensors:
        array = tensor.op.forward(array, **tensor.attrs)
        view = view_of_op(tensor, view, tuple(N if n is None else n for n in tensor.shape))
        assert view is not None
    shape, strides = ([sized(n, 5) for n in group] for group in (view.shape, view.strides))
    flat = values.ravel()[sized(view.offset, 5) :]
    shown = as_strided(flat, shape, [8 * s for s in strides])
    np.testing.assert_array_equal(shown, array)


def test_what_no_view_shows_is_moved():
    x = Input((4, 6))
    turned = ops.transpose(x, (0, 2, 1))
    view = view_of_op(turned, whole(Buffer("x", "float", Space.STEP, (N, 4, 6))), (N, 6, 4))
    assert view_of_op(ops.reshape(turned, (-1, 24)), view, (N, 24)) is None


def test_a_view_holds_for_every_batch_not_for_one_as_long_as_another_axis():
    for length in (3, *ROWS):
        x, h = Input((length,)), Input((length,))
        new = ops.reshape(ops.transpose(x), (-1, length)) + h
        own = RecurrentModel(x, new, h, new).recurrence
        check(own, random_arguments(own, batch=2))


def cut(x):
    return ops.transpose(x)[1:]


def cut_of_what_is_computed(x):
    return ops.cumsum(ops.transpose(x), 0)[::-2]


def joined(x):
    """The parts are computed where they stand."""
    columns = ops.expand_dims(ops.transpose(x), 0)
    return ops.cumsum(ops.concatenate([ops.sin(columns), ops.cumsum(columns, 1), columns], 1), 1)[0]


def cut_and_put_in_another_shape(x):
    return ops.reshape(ops.cumsum(ops.transpose(x), 0)[::-1], (3, 1, -1))[:, 0]


@pytest.mark.parametrize("draw", [cut, cut_of_what_is_computed, joined, cut_and_put_in_another_shape])
def test_axes_in_front_of_the_batch_are_cut_and_joined(draw):
    """There each place has one element of every sample, so a stride grows with the batch, and where a part begins."""
    x, h = Input((3,)), Input((3,))
    new = ops.tanh(h * 0.5 + ops.transpose(ops.sum(ops.sin(draw(ops.sin(x + h))), 0, keepdims=True)))
    own = RecurrentModel(x, new, h, new).recurrence
    check(own, random_arguments(own, batch=2))


def test_lengths():
    assert length_of([3, 3, 3, 3]) == 3
    assert per_row(times(2, N, 3)) == 6
    assert sized(times(N, N), 4) == 16
    assert per_row(times(N, N)) is None
    assert sized(times(2, plus(plus(3, 0), plus(N, 4))), 5) == 24
    assert sized(length_of([2 * n + 1 for n in ROWS]), 4) == 9
    with pytest.raises(NotImplementedError, match="neither fixed nor a multiple"):
        length_of([3, 4, 6, 7])


def test_flops_and_words():
    compiled = programs_of(drawn_lstm())
    assert flops_a_row(compiled.inference) >= 2 * (3 + 4) * 16
    assert "1 matmul" not in explain(compiled, 4)
    assert "matmul (rows x 16)" in explain(compiled, 4)
    assert explain(compiled, 4).count(": 4 products merged into one") == 2


PICKED = {
    "slice": lambda x: ops.sum(x[:2], axis=0, keepdims=True),
    "reversed": lambda x: x[::-1],
    "concatenate": lambda x: ops.sum(ops.concatenate([x, x], axis=0), axis=0, keepdims=True),
    "pad": lambda x: ops.sum(ops.pad(x, [(1, 0), (0, 0)]), axis=0, keepdims=True),
}


@pytest.mark.parametrize("name", PICKED)
def test_samples_picked_by_their_number_are_refused(name):
    x, h = Input((3,)), Input((3,))
    layer = RecurrentModel(x, h + PICKED[name](x), h, h + x)
    with pytest.raises(NotImplementedError, match="along the batch, which picks samples by their number"):
        programs_of(layer)


def joining_reshapes():
    """Reshapes of what a view repeats: of a sequence, of a state, and of what nothing needs in the loop."""
    x, h = Input((2,)), Input((4,))

    def repeated(a):
        return ops.reshape(ops.broadcast_to(ops.expand_dims(a, 1), (None, 2, 2)), (-1, 4))

    before = ops.concatenate([repeated(ops.sin(x)), repeated(x)], -1)
    inside = ops.concatenate([repeated(h[:, 1:3]), ops.cos(h)], -1)
    new = ops.tanh(before[:, :4] + before[:, 4:] * inside[:, :4] + inside[:, 4:])
    after = ops.concatenate([new, repeated(new[:, :2])], -1)
    return Recurrence(StepGraph(sequences=[x], states=[h], outputs=[after], new_states=[new]))


@pytest.mark.parametrize("target", examples(["interpreter", "cpu"], ["interpreter"]))
def test_what_is_written_in_row_major_order_is_not_written_inside_a_concatenation(target):
    own = joining_reshapes()
    check(own, random_arguments(own, batch=3, steps=4), target=target)
