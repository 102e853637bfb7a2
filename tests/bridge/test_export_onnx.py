"""ONNX graphs exported on PyTorch answer as the oracle does, run by onnx's own reference evaluator."""

import keras
import numpy as np
import onnx
import pytest
import torch
from keras import InputSpec, ops
from onnx.reference import ReferenceEvaluator

from keras_bridge import AttentionDecoderCell, LSTMCell, RecurrentSequential, SimpleRNNCell, export
from tests.tolerances import assert_close

STEPS = 3


def answers_agree(model, path, **options):
    """Export a model of one sequence of 4 features, and compare for batches of another size than it was drawn with."""
    samples = np.random.default_rng(0).standard_normal((2, STEPS, 4)).astype("float32")
    samples[0, 1:] = 0
    expected = ops.convert_to_numpy(model(samples))
    export(model, path, format="onnx", verbose=False, **options)
    onnx.checker.check_model(str(path), full_check=True)
    graph = ReferenceEvaluator(str(path))
    for batch in (samples, samples[1:]):
        assert_close(graph.run(None, {graph.input_names[0]: batch})[0], expected[-len(batch) :], "float32")


def sequence_model(steps=STEPS, **options):
    layer = RecurrentSequential([LSTMCell(3)], engine="reference", **options)
    return keras.Sequential([keras.Input((steps, 4)), keras.layers.Masking(), layer])


def test_a_masked_layer(tmp_path):
    answers_agree(sequence_model(go_backwards=True, return_sequences=True), tmp_path / "model.onnx")


def test_sparsemax(tmp_path):
    layer = SimpleRNNCell(3, activation="sparsemax").get_layer(engine="reference")
    answers_agree(keras.Sequential([keras.Input((STEPS, 4)), layer]), tmp_path / "model.onnx")


@pytest.mark.parametrize("steps", [STEPS, None])
def test_a_decoder(steps, tmp_path):
    """Its keys are products of tensors of unlike ranks; what it decodes may be of any length."""
    layer = AttentionDecoderCell(3).get_layer(decode=True, output_length=2, engine="reference")
    answers_agree(keras.Sequential([keras.Input((steps, 4)), layer]), tmp_path / "model.onnx")


def test_open_steps_are_refused(tmp_path):
    """The loop is unrolled: the graph would take any number of steps and run one."""
    model = sequence_model(steps=None)
    with pytest.raises(ValueError, match=r"fixed number of steps.*input_signature.*\(None, None, 4\)"):
        answers_agree(model, tmp_path / "model.onnx")
    answers_agree(model, tmp_path / "model.onnx", input_signature=[InputSpec("float32", (None, STEPS, 4))])


def test_a_stateful_layer_is_refused(tmp_path):
    """The graph would start every call from the states of now."""
    model = keras.Sequential([keras.Input((STEPS, 4), batch_size=1), LSTMCell(3).get_layer(stateful=True)])
    model(np.ones((1, STEPS, 4)))
    with pytest.raises(ValueError, match=r"stateful.*initial_state"):
        export(model, tmp_path / "model.onnx", format="onnx", verbose=False)


def test_pytorch_exports_layers_by_itself(tmp_path):
    """What "auto" computes by Keras's ops meanwhile; a graph cannot carry an engine that was asked for."""
    model = keras.Sequential([keras.Input((STEPS, 4)), LSTMCell(3).get_layer()])
    samples = torch.from_numpy(np.random.default_rng(0).standard_normal((2, STEPS, 4)).astype("float32"))
    expected = ops.convert_to_numpy(model(samples))
    program = torch.export.export(model, (samples,), strict=False)
    assert_close(program.module()(samples).numpy(force=True), expected, "float32")
    traced = torch.jit.trace(model, (0 * samples,))
    assert_close(traced(samples).numpy(force=True), expected, "float32")
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    graph = ReferenceEvaluator(str(tmp_path / "model.onnx"))
    assert_close(graph.run(None, {graph.input_names[0]: samples.numpy()})[0], expected, "float32")
    model.layers[0].engine = "reference"
    with pytest.raises(NotImplementedError, match=r'cannot carry engine="reference": use keras_bridge.export'):
        torch.export.export(model, (samples,), strict=False)
    carried = keras.Sequential([keras.Input((STEPS, 4), batch_size=2), LSTMCell(3).get_layer(stateful=True)])
    carried(samples)
    with pytest.raises(ValueError, match=r"is stateful, and the exported graph would carry no states over"):
        torch.export.export(carried, (samples,), strict=False)
