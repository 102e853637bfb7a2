"""Every cell and every feature as a small recurrent layer, drawn with either kit of names (`tests.cross.kits`)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BATCH, STEPS, FEATURES, UNITS = 3, 5, 3, 4
RIGHT = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
CUT = np.array([[1, 1, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]], bool)
MIXED = np.array([[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], bool)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@dataclass
class Case:
    """draw(kit, **options) -> layer; x: its input or inputs; call: further arguments of the call, arrays or options."""

    draw: Any
    x: Any = field(default_factory=lambda: normal(BATCH, STEPS, FEATURES))
    call: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def cell(name, *arguments, x=None, call=None, **options):
    """Return a case of one full cell."""

    def draw(kit, **loop):
        made = getattr(kit.cells, name)(*arguments, name="cell", **options)
        return made.get_layer(**{"return_sequences": True, "return_state": True, **loop})

    return Case(draw, **({} if x is None else {"x": x}), call=call or {})


def stack(*parts, **options):
    """Return a case of a stack; parts are functions of the kit."""
    return Case(lambda kit, **loop: kit.RecurrentSequential([part(kit) for part in parts], **{**options, **loop}))


def lstm(name, units=UNITS):
    return lambda kit: kit.cells.LSTMCell(units, name=name)


def gru(name, units=UNITS):
    return lambda kit: kit.cells.GRUCell(units, name=name)


def dense(name, units, activation=None):
    return lambda kit: kit.Dense(units, activation=activation, name=name)


def drawn_step(kit, **loop):
    """A step with a readout, two states and an output unlike the states."""
    x, h, c, r = kit.Input((FEATURES,)), kit.Input((UNITS,)), kit.Input((UNITS,)), kit.Input((2,))
    z = kit.add([kit.Dense(UNITS, name="a")(kit.concatenate([x, r])), kit.Dense(UNITS, use_bias=False, name="b")(h)])
    new_c = c * 0.5 + kit.ops.tanh(z)
    new_h = kit.Activation("sigmoid")(z) * new_c
    return kit.RecurrentModel(x, kit.Dense(2, name="c")(new_h), [h, c], [new_h, new_c], r, **loop)


def two_inputs_and_outputs(kit, **loop):
    x, u, h = kit.Input((FEATURES,)), kit.Input((2,)), kit.Input((UNITS,))
    new = kit.ops.tanh(kit.Dense(UNITS, name="a")(kit.concatenate([x, u, h])))
    return kit.RecurrentModel([x, u], [new * 2, kit.Dense(1, name="b")(new)], h, new, **loop)


def with_constant(kit, **loop):
    x, h, c = kit.Input((FEATURES,)), kit.Input((UNITS,)), kit.Input((UNITS,))
    new = kit.ops.tanh(kit.Dense(UNITS, name="a")(kit.concatenate([x, h])) * c)
    return kit.RecurrentModel(x, new, h, new, constants=c, **loop)


def without_states(kit, **loop):
    x = kit.Input((FEATURES,))
    return kit.RecurrentModel(x, kit.Dense(2, activation="tanh", name="a")(x), **loop)


def images(kit, **loop):
    """A step on a matrix, with a state of rank 3, a convolution and a subclassed layer."""
    x, h = kit.Input((4, 2)), kit.Input((4, 3))
    z = kit.Conv(3, 3, padding="same", name="a")(x) + kit.Conv(3, 2, padding="same", use_bias=False, name="b")(h)
    new = kit.LayerNormalization(name="c")(kit.shifted("d")(z))
    return kit.RecurrentModel(x, kit.ops.sum(new, axis=1), h, new, **loop)


def shared_cell(kit, **loop):
    """One cell called twice in a step, its weights tied."""
    cell = kit.cells.GRUCell(FEATURES, name="cell")
    x, a, b = kit.Input((FEATURES,)), kit.Input((FEATURES,)), kit.Input((FEATURES,))
    y, new_a = cell([x, a])
    y, new_b = cell([y, b])
    return kit.RecurrentModel(x, y, [a, b], [new_a, new_b], **loop)


def nested(kit, **loop):
    inner = kit.RecurrentSequential([gru("inner_a")(kit), gru("inner_b")(kit)], state_sync=True)
    outer = kit.RecurrentSequential(**loop)
    outer.add(inner.get_cell())
    outer.add(dense("between", 5, "relu")(kit))
    outer.add(lstm("outer")(kit))
    return outer


def with_states(*initializers):
    def draw(kit, **loop):
        return lstm("cell")(kit).get_layer(state_initializer=list(initializers), **loop)

    return draw


def learned(kit, **loop):
    return lstm("cell")(kit).get_layer(state_initializer=["learned", kit.Learned("ones")], **loop)


SEQUENCES = {"return_sequences": True}
TRUTH = {"ground_truth": normal(BATCH, STEPS, FEATURES, seed=5), "training": True}

CELLS = {
    "SimpleRNN": cell("SimpleRNNCell", UNITS),
    "SimpleRNN gelu": cell("SimpleRNNCell", UNITS, activation="gelu", use_bias=False),
    "GRU": cell("GRUCell", UNITS),
    "GRU, reset before": cell("GRUCell", UNITS, reset_after=False),
    "LSTM": cell("LSTMCell", UNITS),
    "LSTM, hard gates": cell("LSTMCell", UNITS, recurrent_activation="hard_sigmoid"),
    "peephole LSTM": cell("PeepholeLSTMCell", UNITS),
    "layer-norm LSTM": cell("LayerNormLSTMCell", UNITS),
    "layer-norm GRU": cell("LayerNormGRUCell", UNITS),
    "minimal gated": cell("MinimalGatedCell", UNITS),
    "IndRNN": cell("IndRNNCell", UNITS),
    "RHN": cell("RHNCell", UNITS, 3),
    "RWA": cell("RWACell", UNITS),
    "sLSTM": cell("SLSTMCell", UNITS, heads=2),
    "mLSTM": cell("MLSTMCell", UNITS, heads=2),
    "minGRU": cell("MinGRUCell", UNITS),
    "minLSTM": cell("MinLSTMCell", UNITS),
    "ConvLSTM": cell("ConvLSTMCell", 2, 2, padding="same", x=normal(BATCH, STEPS, 3, 4, 2)),
    "attention decoder": Case(
        lambda kit, **loop: kit.cells.AttentionDecoderCell(UNITS, name="cell").get_layer(
            decode=True, output_length=4, **loop
        ),
        call={"mask": np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]], bool)},
    ),
}

FEATURE_CASES = {
    "last output": Case(drawn_step),
    "sequences": Case(drawn_step, options=SEQUENCES),
    "states returned": Case(drawn_step, options={"return_state": True}),
    "backwards": Case(drawn_step, options={**SEQUENCES, "go_backwards": True}),
    "right padding": Case(drawn_step, call={"mask": RIGHT}, options={**SEQUENCES, "return_state": True}),
    "padding anywhere": Case(drawn_step, call={"mask": MIXED}, options=SEQUENCES),
    "padding, backwards": Case(drawn_step, call={"mask": MIXED}, options={**SEQUENCES, "go_backwards": True}),
    "padding, last output": Case(drawn_step, call={"mask": MIXED}),
    "zero output for mask": Case(
        drawn_step, call={"mask": MIXED}, options={**SEQUENCES, "zero_output_for_mask": True, "unroll": True}
    ),
    "truncated": Case(
        drawn_step,
        call={"mask": CUT, "initial_state": [normal(BATCH, UNITS), normal(BATCH, UNITS, seed=1)]},
        options={**SEQUENCES, "return_state": True, "truncate": 2},
    ),
    "initial state": Case(
        drawn_step, call={"initial_state": [normal(BATCH, UNITS), normal(BATCH, UNITS, seed=1)]}, options=SEQUENCES
    ),
    "initial readout": Case(drawn_step, call={"initial_readout": normal(BATCH, 2)}, options=SEQUENCES),
    "teacher forcing": Case(
        drawn_step,
        call={"ground_truth": normal(BATCH, STEPS, 2), "training": True, "mask": RIGHT},
        options={**SEQUENCES, "teacher_force": True},
    ),
    "teacher forcing, inference": Case(drawn_step, options={**SEQUENCES, "teacher_force": True}),
    "two inputs and outputs": Case(
        two_inputs_and_outputs, x=[normal(BATCH, STEPS, FEATURES), normal(BATCH, STEPS, 2)], options=SEQUENCES
    ),
    "constant": Case(with_constant, call={"constants": normal(BATCH, UNITS)}, options=SEQUENCES),
    "no states": Case(without_states, options=SEQUENCES),
    "images": Case(images, x=normal(BATCH, STEPS, 4, 2), call={"mask": MIXED}, options=SEQUENCES),
    "shared cell": Case(shared_cell, options=SEQUENCES),
    "nested cells": Case(nested, call={"mask": RIGHT}, options={**SEQUENCES, "return_state": True}),
    "stack": stack(lstm("a"), dense("b", 5, "tanh"), gru("c"), **SEQUENCES),
    "state sync": stack(lstm("a"), lstm("b"), lstm("c"), state_sync=True, return_state=True),
    "readout added": stack(gru("a"), dense("b", FEATURES), readout=True, readout_activation="tanh", **SEQUENCES),
    "readout multiplied": stack(gru("a"), dense("b", FEATURES), readout="mul", state_initializer="ones"),
    "readout averaged": stack(gru("a"), dense("b", FEATURES), readout="avg", **SEQUENCES),
    "readout, maximum": stack(gru("a"), dense("b", FEATURES), readout="max", **SEQUENCES),
    "readout only": stack(gru("a"), dense("b", 2), readout="readout_only", **SEQUENCES),
    "forced stack": Case(
        stack(gru("a"), dense("b", FEATURES), readout="add", teacher_force=True, truncate=2, **SEQUENCES).draw,
        call=TRUTH,
    ),
    "decoder": Case(stack(lstm("a"), dense("b", 2), decode=True, output_length=4).draw, x=normal(BATCH, FEATURES)),
    "decoder with readout": Case(
        stack(lstm("a"), dense("b", FEATURES), decode=True, readout="add").draw,
        x=normal(BATCH, FEATURES),
        call={"output_length": 3},
    ),
    "forced decoder": Case(
        stack(lstm("a"), dense("b", FEATURES), decode=True, output_length=5, readout="add", teacher_force=1.0).draw,
        x=normal(BATCH, FEATURES),
        call=TRUTH,
    ),
    "state initializers": Case(with_states("ones"), options=SEQUENCES),
    "learned states": Case(learned, call={"mask": RIGHT}, options=SEQUENCES),
}
CASES = {**CELLS, **FEATURE_CASES}
