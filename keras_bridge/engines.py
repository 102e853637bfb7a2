"""What computes a layer: the engines by name, the choice for all layers, and what "auto" takes.

Every engine is a module with `run(recurrence, sequences, constants, states, blanks, mask, length, ...)`, see
`keras_bridge.keras_engine.run`, and `prepare(recurrence)`, which raises if it cannot run this step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from keras_bridge import keras_engine, reference_engine

ENGINES = ("auto", "fast", "reference", "keras")
VARIABLE = "KERAS_BRIDGE_ENGINE"

_modules = {"keras": keras_engine, "reference": reference_engine}
_default: str | None = None
_forced: str | None = None


def check_engine(name: str) -> str:
    """Return an engine's name; ValueError if there is none of this name, or it is not there yet."""
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}; got {name!r}")
    if name == "fast":
        raise ValueError(
            'engine="fast" needs the kernels of rsref_fast, which are not there yet; "auto" takes the fastest'
        )
    return name


def set_engine(name: str | None) -> None:
    """Let all layers with engine="auto" use this engine; None for that of the variable KERAS_BRIDGE_ENGINE, or "auto".

    Errors: ValueError for an unknown name.
    """
    global _default
    _default = None if name is None else check_engine(name)


def get_engine() -> str:
    """Return the engine of layers with engine="auto"."""
    return _default or check_engine(os.environ.get(VARIABLE) or "auto")


@contextlib.contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Let all layers, whatever their own choice, use this engine within a `with` block."""
    global _forced
    kept, _forced = _forced, check_engine(name)
    try:
        yield
    finally:
        _forced = kept


def chosen(asked: str) -> str:
    """Return the engine that runs a layer which asks for this one: "keras" or "reference"."""
    name = _forced or (asked if asked != "auto" else get_engine())
    return "keras" if name == "auto" else name


def module_of(name: str) -> Any:
    """Return the module that computes with an engine."""
    return _modules[name]


def explanation(layer: str, asked: str, recurrence: Any) -> str:
    """Return what runs a layer, why, and what held each faster engine back."""
    name = chosen(asked)
    who = (
        "within use_engine" if _forced else "as the layer asks" if asked != "auto" else
        "as set_engine or the environment asks" if get_engine() != "auto" else "the fastest there is for any step"
    )  # fmt: skip
    lines = [f'{layer}: engine "{name}", {who}', "fast: the kernels of rsref_fast are not there yet"]
    try:
        reference_engine.prepare(recurrence)
        lines.append("reference: can run this step")
    except NotImplementedError as error:
        lines.append(f"reference: {error}")
    return "\n  ".join(lines)
