"""Keras's own layers, or a drawn step with Keras's ops in the backend's loop, on the backend of the environment."""

from types import SimpleNamespace
from typing import Any

import keras

from benchmarks.peers import THREADS, Run, attention
from benchmarks.problems import Problem, drawn, dy_of


def layer_of(problem: Problem, kind: str) -> Any:
    """Return a built layer with the problem's weights. kind: "keras", "drawn", or "bridge" for our own engine."""
    case = problem.case
    if kind == "keras":
        stack = [getattr(keras.layers, case.stock)(case.units, return_sequences=True) for _ in range(case.layers)]
        layer = keras.Sequential(stack) if case.layers > 1 else stack[0]
    elif case.cell == "AttentionDecoder" and kind == "drawn":
        layer = attention.Decoder(problem)
    else:
        import keras_bridge

        library = SimpleNamespace(
            cells=keras_bridge.cells,
            RecurrentModel=keras_bridge.RecurrentModel,
            RecurrentSequential=keras_bridge.RecurrentSequential,
            Dense=keras.layers.Dense,
        )
        layer = drawn(case, library, keras.Input, engine="keras" if kind == "drawn" else "fast")
    layer.build(problem.x.shape)
    for variable, value in zip(layer.weights, problem.weights, strict=True):
        variable.assign(value)
    return layer


def run(problem: Problem, kind: str) -> Run:
    layer = layer_of(problem, kind)
    options = {} if problem.mask is None else {"mask": keras.ops.convert_to_tensor(problem.mask)}
    return BACKENDS[keras.backend.backend()](problem, layer, lambda x: layer(x, **options))


def on_jax(problem: Problem, layer: Any, call: Any) -> Run:
    import jax

    from benchmarks.peers.jax_scan import jitted

    variables = layer.trainable_variables

    def outputs(x: Any, values: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return call(x)

    given = jax.numpy.asarray(problem.x), [v.value for v in variables]
    return jitted(outputs, given, dy_of(problem), problem.case.training)


def on_tensorflow(problem: Problem, layer: Any, call: Any) -> Run:
    import tensorflow as tf

    x, dy = tf.constant(problem.x), tf.constant(dy_of(problem))
    values = [v.value for v in layer.trainable_variables]

    @tf.function
    def infer() -> Any:
        return call(x)

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(x)
        return y, tape.gradient(y, [x, *values], dy)

    def compute() -> dict[str, Any]:  # tensors, as the other backends answer: here numpy() would copy
        if not problem.case.training:
            return {"y": infer()}
        y, (dx, *dw) = train()
        return {"y": y, "x": dx, **{f"w{i}": tf.convert_to_tensor(g) for i, g in enumerate(dw)}}

    return compute


def on_torch(problem: Problem, layer: Any, call: Any) -> Run:
    import torch

    torch.set_num_threads(THREADS)
    x, dy = torch.tensor(problem.x, requires_grad=problem.case.training), torch.tensor(dy_of(problem))
    values = [v.value for v in layer.trainable_variables]

    def compute() -> dict[str, Any]:
        if not problem.case.training:
            with torch.inference_mode():
                return {"y": call(x).numpy()}
        y = call(x)
        dx, *dw = torch.autograd.grad(y, [x, *values], dy)
        return {"y": y.detach().numpy(), "x": dx.numpy(), **{f"w{i}": g.numpy() for i, g in enumerate(dw)}}

    return compute


BACKENDS = {"jax": on_jax, "tensorflow": on_tensorflow, "torch": on_torch}
