"""The engine that runs a step with rsref: readable NumPy, any precision, exact gradients."""

from __future__ import annotations

from typing import Any

from keras_bridge import traced_engine
from keras_bridge.step import KerasRecurrence
from rsref.engine import ReferenceEngine


def prepare(recurrence: KerasRecurrence, training: bool = False) -> traced_engine.TracedRecurrence:
    """Return the traced step. Errors: TraceError, naming it, for what has no counterpart in rsref."""
    return traced_engine.prepare(recurrence, ReferenceEngine, "reference", training)


def run(recurrence: KerasRecurrence, *arguments: Any, training: bool, **options: Any) -> tuple[list[Any], list[Any]]:
    """Run a step over sequences; arguments and answer as `keras_bridge.keras_engine.run`."""
    return traced_engine.run(prepare(recurrence, training), *arguments, training=training, **options)
