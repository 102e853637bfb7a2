"""Plain calls on PyTorch, straight to the engine: what Keras does around a call takes longer than a short run.

A call is plain if Keras and the layer would do nothing about it that matters: one tensor of the layer's own precision
on the CPU, no mask, states that start from zeros, nothing random, no hooks, a layer that no subclass calls in its own
way.
The first call of each shape goes the long way, with all checks; later ones do what it found out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras.src.backend.common import global_state

from keras_bridge import engines
from keras_bridge.backend import backend_module, exporting
from keras_bridge.checks import is_float
from keras_bridge.traced_engine import TracedRecurrence, on_arrays

REMEMBERED = 64
"""Shapes of calls that a layer remembers."""

UNKNOWN = object()
"""Stands for what is known of a kind of call that was not made yet."""

PRECISIONS = ("float32", "float64")


class Direct:
    """What plain calls of one shape need.

    states: the shapes of states, which start from zeros. dtypes: of outputs and states. last: whether the answer is the
    last step only. outputs: how many. answers: how many with the states that are asked for. single: whether the answer
    is one tensor, not a tuple.
    """

    def __init__(self, layer: Any, traced: TracedRecurrence, shape: tuple[int, ...], dtype: str):
        import torch

        leaves = layer.leaves
        self.traced = traced
        self.zeros, self.dtype = torch.zeros, getattr(torch, dtype)
        self.states = [(shape[0], *state.shape[1:]) for state in leaves.states]
        self.dtypes = [dtype if is_float(y) else y.dtype for y in leaves.outputs] + [dtype] * len(leaves.states)
        self.last = not layer.return_sequences
        self.outputs = layer.recurrence.outputs
        self.answers = self.outputs + (layer.num_states if layer.return_state else 0)
        self.single = layer.one_output and not layer.return_state

    def __call__(self, x: Any, training: bool) -> Any:
        values = [variable.value for variable in self.traced.variables]
        run = on_arrays(self.traced, self.dtypes, None)
        # made anew: a kept tensor would stay one of inference_mode, and change with a state that a step hands on
        states = [self.zeros(shape, dtype=self.dtype) for shape in self.states]
        found = backend_module("keras_bridge.gradients").call(*run, [x, *states, *values], (), training)
        answers = list(found[: self.answers])
        if self.last:
            answers[: self.outputs] = [y[:, -1] for y in answers[: self.outputs]]
        return answers[0] if self.single else tuple(answers)


def call(layer: Any, slowly: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Return a layer's answer. slowly: Keras's own way to call it.

    torch.compile goes on behind the layer, unless Keras's ops compute it: of an engine's Python it makes no graph.
    """
    import torch

    if exporting():
        return slowly(*args, **kwargs)
    if torch.compiler.is_compiling() and engines.named(layer.engine) != "keras":
        return _uncompiled(layer, slowly, args, kwargs)
    layer._renew()  # which forgets plain calls of before
    x: Any = (
        args[0] if len(args) == 1 and not any(k != "training" and v is not None for k, v in kwargs.items()) else None
    )
    if type(x) is not torch.Tensor or not layer.built or _within_more(x) or _has_hooks(layer):
        return slowly(*args, **kwargs)
    training, context = kwargs.get("training"), global_state.get_global_attribute("current_call_ctx")
    if training is None and context is not None:
        training = context.get_value("training")
    key = (
        x.shape, x.dtype, x.device, bool(training), engines.chosen(layer.engine, layer.recurrence),
        layer.zero_output_for_mask, layer.return_sequences, layer.return_state, layer.go_backwards, layer.stateful,
        layer.teacher_force is False, layer.truncate, layer.compute_dtype, layer.activity_regularizer is None,
        "call" in vars(layer),
    )  # fmt: skip
    calls = layer.recurrence.calls
    known = calls.get(key, UNKNOWN)  # one look: another thread may forget all between two
    if known is UNKNOWN:
        answer = slowly(*args, **kwargs)
        if len(calls) >= REMEMBERED:
            calls.clear()
        calls[key] = _found_out(layer, x, bool(training))
        return answer
    if known is None:
        return slowly(*args, **kwargs)
    if context is not None:
        context.set_value("training", training)  # as Keras does, for layers called next
    return known(x, bool(training))


if keras.backend.backend() == "torch":
    import torch
    from torch.nn.modules.module import _has_any_global_hook

    _uncompiled = torch.compiler.disable(call)


def _within_more(x: Any) -> bool:
    """Whether something around this call, or tied to its tensor, has to be heeded."""
    import torch

    return (
        getattr(x, "_keras_mask", None) is not None
        or global_state.get_global_attribute("autocast_scope") is not None
        or global_state.get_global_attribute("distribution") is not None
        or torch.compiler.is_compiling()
    )


def _has_hooks(layer: Any) -> bool:
    """Whether PyTorch calls functions of the user around those of a module."""
    own = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return bool(own or _has_any_global_hook())


def _found_out(layer: Any, x: Any, training: bool) -> Direct | None:
    """Return what runs calls like this one; None if they are not plain."""
    from keras_bridge.loop import RecurrentLayer

    name, kind = engines.chosen(layer.engine, layer.recurrence), type(layer)
    dtype = keras.backend.standardize_dtype(x.dtype)
    zeros = all(one is None or isinstance(one, keras.initializers.Zeros) for one in layer.memory.initializers)
    if (
        name == "keras"
        or kind.call is not RecurrentLayer.call
        or kind.compute_mask is not RecurrentLayer.compute_mask
        or "call" in vars(layer)
        or layer.stateful or layer.decode or layer.go_backwards or layer.teacher_force is not False
        or layer.activity_regularizer is not None
        or getattr(layer, "_remat_mode", None) is not None
        or getattr(layer, "quantization_mode", None) is not None
        or x.device.type != "cpu" or x.numel() == 0
        or not dtype == layer.compute_dtype == layer.variable_dtype
        or dtype not in PRECISIONS
        or not zeros or not all(is_float(state) for state in layer.leaves.states)
    ):  # fmt: skip
        return None
    traced = engines.module_of(name).prepare(layer.recurrence, training)
    if traced.step_masks or traced.sequence_masks:
        return None
    return Direct(layer, traced, tuple(x.shape), dtype)
