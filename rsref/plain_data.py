"""A Recurrence as plain data (dicts, lists, numbers, strings: what JSON holds), and back.

The data describe the computation; parameters are listed by name and shape, their values travel apart. Equal graphs
give equal data, whatever the names of their tensors, so the text of data can be compared, hashed and cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsref.graph import StepGraph
from rsref.ops.base import REGISTRY
from rsref.recurrence import Recurrence
from rsref.tensor import ConstantSource, InputSource, NoiseSource, Parameter, Spec, Tensor

VERSION = 1


def to_data(recurrence: Recurrence) -> dict[str, Any]:
    """Return a recurrence as plain data. Errors: TypeError for anything else, such as the layer that holds it."""
    if not isinstance(recurrence, Recurrence):
        raise TypeError(f"to_data takes a Recurrence (a built layer's `recurrence`); got {type(recurrence).__name__}")
    graph = recurrence.graph
    order = [*graph.leaves, *(tensor for tensor in graph.order if tensor not in graph.leaves)]
    place = {tensor: i for i, tensor in enumerate(order)}
    return {
        "version": VERSION,
        "zero_output_for_mask": recurrence.zero_output_for_mask,
        "truncate": recurrence.truncate,
        "tensors": [_tensor_data(tensor, place) for tensor in order],
        **{role: [place[t] for t in getattr(graph, role)] for role in ROLES},
    }


def check_same(taped: Recurrence, own: Recurrence) -> None:
    """TypeError if a tape is that of another recurrence than an engine's own, or a copy of it."""
    # as text: a constant may be NaN, which equals nothing
    if taped.graph is not own.graph and repr(to_data(taped)) != repr(to_data(own)):
        raise TypeError("backward takes the tape that forward answered; got that of another recurrence")


ROLES = ("sequences", "constants", "states", "outputs", "new_states")


def _tensor_data(tensor: Tensor, place: dict[Tensor, int]) -> dict[str, Any]:
    data: dict[str, Any] = {"shape": list(tensor.shape), "dtype": tensor.dtype}
    if tensor.op is not None:
        attrs = {name: _to_lists(value) for name, value in tensor.attrs.items()}
        return {**data, "op": tensor.op.name, "inputs": [place[i] for i in tensor.inputs], "attrs": attrs}
    if isinstance(tensor.source, ConstantSource):
        return {**data, "constant": tensor.source.value.tolist()}
    if isinstance(tensor.source, Parameter):
        return {**data, "parameter": tensor.source.name}
    if isinstance(tensor.source, NoiseSource):
        return {**data, "noise": tensor.source._asdict()}
    return data


def from_data(data: dict[str, Any], weights: Sequence[Any] | None = None) -> Recurrence:
    """Return the recurrence that data describe, with new parameters: the given weights in order, or zeros.

    Errors: TypeError for what is no data; ValueError for data of another version, an unknown op, or weights of another
        number or shape than is needed.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"from_data takes what to_data answered, read from JSON; got {type(data).__name__}")
    if data.get("version") != VERSION:
        raise ValueError(f"data of version {data.get('version')!r} cannot be read; this is version {VERSION}")
    values = None if weights is None else iter(weights)
    tensors: list[Tensor] = []
    for item in data["tensors"]:
        spec = Spec(tuple(item["shape"]), item["dtype"])
        if "op" in item:
            if item["op"] not in REGISTRY:
                raise ValueError(f"the op {item['op']!r} is unknown; known are {', '.join(sorted(REGISTRY))}")
            op, operands = REGISTRY[item["op"]], [tensors[i] for i in item["inputs"]]
            attrs = {name: _to_tuples(value) for name, value in item["attrs"].items()}
            tensors.append(Tensor(op.infer(*(t.spec for t in operands), **attrs), op=op, inputs=operands, attrs=attrs))
        elif "constant" in item:
            value: np.ndarray = np.array(
                item["constant"], dtype={"float": np.float64, "int": np.int64, "bool": np.bool_}[spec.dtype]
            )
            tensors.append(
                Tensor(spec, source=ConstantSource(value.reshape([n or 0 for n in spec.shape])), name="constant")
            )
        elif "parameter" in item:
            tensors.append(_parameter(item["parameter"], spec, values).tensor)
        elif "noise" in item:
            tensors.append(Tensor(spec, source=NoiseSource(**item["noise"]), name="noise"))
        else:
            tensors.append(Tensor(spec, source=InputSource(), name="input"))
    if values is not None and next(values, None) is not None:
        raise ValueError("more weights are given than the data have parameters")
    graph = StepGraph(**{role: [tensors[i] for i in data[role]] for role in ROLES})
    return Recurrence(graph, data["zero_output_for_mask"], data["truncate"])


def _parameter(name: str, spec: Spec, values: Any) -> Parameter:
    shape = tuple(n or 0 for n in spec.shape)
    value = np.zeros(shape) if values is None else next(values, None)
    if value is None:
        raise ValueError(f"no weight is given for the parameter {name!r} of shape {shape}")
    parameter = Parameter(name, value)
    if parameter.shape != shape:
        raise ValueError(f"parameter {name!r} has shape {shape}; the weight given has shape {parameter.shape}")
    return parameter


def _to_lists(value: Any) -> Any:
    return [_to_lists(v) for v in value] if isinstance(value, tuple | list) else value


def _to_tuples(value: Any) -> Any:
    return tuple(_to_tuples(v) for v in value) if isinstance(value, list) else value
