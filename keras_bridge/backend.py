"""What the backends do each in their own way: the module that serves one, and whether code is being compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

import keras
from keras.src.ops.node import Node

from keras_bridge.replaced import replaced

BACKENDS = ("jax", "numpy", "tensorflow", "torch")


def backend_module(package: str) -> Any:
    """Return the module of a package that serves Keras's backend; ValueError if there is none."""
    name = keras.backend.backend()
    if name not in BACKENDS:
        raise ValueError(f"keras_bridge runs on the backends {', '.join(BACKENDS)}; KERAS_BACKEND is {name!r}")
    return import_module(f"{package}.{name}")


def outside_graphs() -> Any:
    """Return a context in which constants have values, even while the backend compiles the function around."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.init_scope()
    if keras.backend.backend() == "jax":
        import jax

        return jax.core.eval_context()  # ensure_compile_time_eval reaches into what Keras infers shapes with, too
    return contextlib.nullcontext()


@contextlib.contextmanager
def noting_gradients() -> Iterator[None]:
    """Let the record of each operation say, as `gradients_off`, whether PyTorch has switched gradients off meanwhile.

    So it has within `torch.no_grad`, and in a function with a gradient of its own, which takes symbolic tensors, too.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    def record(node: Any, *arguments: Any, **options: Any) -> None:
        node.gradients_off = not torch.is_grad_enabled()
        kept(node, *arguments, **options)

    kept = Node.__init__  # another layer may be opened within
    with replaced(Node, __init__=record), torch.enable_grad():
        yield


def is_own_weight(tensor: Any) -> bool:
    """Whether a tensor is a weight of the backend's own, which Keras does not know, or computed from one."""
    if keras.backend.backend() == "torch":
        import torch

        return isinstance(tensor, torch.Tensor) and tensor.requires_grad
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return isinstance(tensor, tf.Variable)
    return False


@contextlib.contextmanager
def variables_read() -> Iterator[list[Any]]:
    """Let a list hold, at the end, TensorFlow's trained variables that were read: what is computed of them hides it."""
    read: list[Any] = []
    if keras.backend.backend() != "tensorflow":
        yield read
        return
    from tensorflow.python.eager import record  # a tape sees nothing outside of graphs

    with record.VariableWatcher() as watcher:
        yield read
    read += watcher.watched_variables()


def is_compiling(tensor: Any) -> bool:
    """Whether this tensor stands for values that come later: Python code runs once, and what it decides is kept."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if keras.backend.backend() == "jax":
        import jax

        while hasattr(tensor, "primal"):  # JAX differentiates, which is no compiling
            tensor = tensor.primal
        return isinstance(tensor, jax.core.Tracer)
    return False


def check_rows(tensor: Any, count: int, words: str) -> None:
    """Let compiled code say these words, as an error, for a tensor of another number of rows, unknown until it runs.

    On TensorFlow, on whose graphs alone it can be unknown.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.debugging.assert_equal(tf.shape(tensor)[0], count, message=words)


def exporting() -> bool:
    """Whether PyTorch makes a graph of what is called, to be run elsewhere; the other backends do not say."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    return bool(torch.compiler.is_exporting() or torch.jit.is_tracing())


def array_now(tensor: Any) -> Any:
    """Return the value of a tensor or variable; None if it comes later, or nothing but shapes is asked for."""
    value = tensor.value if isinstance(tensor, keras.Variable) else tensor
    if is_compiling(value):
        return None
    if keras.backend.backend() == "torch":
        import torch

        if torch.compiler.is_compiling() or value.device.type == "meta":
            return None
    return keras.ops.convert_to_numpy(value)


def freeze_drawn(layer: Any) -> None:
    """Freeze what a frozen layer has drawn: layers that were made after it was frozen do not know."""
    if not layer.trainable:
        for inner in layer._flatten_layers(include_self=False):
            inner.trainable = False


def name_drawn(layer: Any) -> None:
    """Put a layer's path before those of weights that were drawn outside of it.

    On PyTorch Keras knows a model's weights by their paths: where both ways of a Bidirectional have the same ones, the
    gradients of one way are never set to zero again, and torch's optimizers do not find it.
    """
    for weight in layer.weights:
        if not weight.path.startswith(f"{layer.path}/"):
            weight._path = f"{layer.path}/{weight.path}"


def answered_for_ever(compute: Callable[[], Any]) -> tuple[Any, bool]:
    """Return the tensor that a function answers while code is compiled, and whether that code would keep its value.

    It keeps what is computed from constants; on JAX a variable that no layer holds is one.
    """
    if keras.backend.backend() == "jax":
        import jax

        with jax.ensure_compile_time_eval():  # else what is computed from constants looks like what is not
            answer = compute()
        return answer, not isinstance(answer, jax.core.Tracer)
    answer = compute()
    return answer, keras.backend.backend() == "tensorflow" and not _reads_what_changes(answer)


def _reads_what_changes(tensor: Any) -> bool:
    """Whether a tensor of TensorFlow is computed from a variable, a random number or an argument."""
    import tensorflow as tf

    operations = [tensor.op] if tf.is_symbolic_tensor(tensor) else []
    for operation in operations:  # which grows meanwhile
        if operation.op_def.is_stateful or operation.type == "Placeholder":
            return True
        operations += [each.op for each in operation.inputs if each.op not in operations]
    return False


def place() -> str:
    """Return where tensors are made now: "cpu", "cuda" for an NVIDIA GPU, or the backend's own word for elsewhere.

    TensorFlow's is "gpu", for which there are no kernels, or "cpu". PyTorch's is "meta" where nothing but shapes is
    asked for, as when Keras draws a model.
    """
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        nvidia = device.platform == "gpu" and "cuda" in device.client.platform_version.lower()
        return "cuda" if nvidia else str(device.platform)
    if keras.backend.backend() == "torch":
        from keras.src.backend.torch.core import get_device

        return str(get_device()).split(":")[0]
    return _tensorflow_place() if keras.backend.backend() == "tensorflow" else "cpu"


@cache
def _tensorflow_place() -> str:
    import tensorflow

    return "gpu" if tensorflow.config.list_logical_devices("GPU") else "cpu"
