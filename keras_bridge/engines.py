"""What computes a layer: the engines by name, the choice for all layers, and what "auto" takes.

Every engine is a module with `run(recurrence, sequences, constants, states, blanks, mask, length, ...)`, see
`keras_bridge.keras_engine.run`, and `prepare(recurrence, training)`, which raises if it cannot run this step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from keras_bridge import fast_engine, keras_engine, reference_engine
from keras_bridge.backend import exporting, place

ENGINES = ("auto", "fast", "reference", "keras")
VARIABLE = "KERAS_BRIDGE_ENGINE"

_modules = {"keras": keras_engine, "reference": reference_engine, "fast": fast_engine}
_default: str | None = None
_forced: str | None = None


def check_engine(name: str, what: str = "engine") -> str:
    """Return an engine's name; ValueError if there is none of this name."""
    if name not in ENGINES:
        raise ValueError(f"{what} must be one of {ENGINES}; got {name!r}")
    return name


def set_engine(name: str | None) -> None:
    """Let all layers with engine="auto" use this engine; None for that of the variable KERAS_BRIDGE_ENGINE, or "auto".

    Errors: ValueError for an unknown name.
    """
    global _default
    _default = None if name is None else check_engine(name)


def get_engine() -> str:
    """Return what `set_engine`, or the variable, chose for layers with engine="auto"; not what `use_engine` forces."""
    return _default or check_engine(os.environ.get(VARIABLE) or "auto", f"the variable {VARIABLE}")


@contextlib.contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Let all layers, whatever their own choice, use this engine within a `with` block, those of other threads too."""
    global _forced
    kept, _forced = _forced, check_engine(name)
    try:
        yield
    finally:
        _forced = kept


def named(asked: str) -> str:
    """Return the engine that a layer which asks for this one is told to use, "auto" if it may choose."""
    return _forced or (check_engine(asked) if asked != "auto" else get_engine())


def chosen(asked: str, recurrence: Any) -> str:
    """Return the engine that runs a layer which asks for this one: "fast", "reference" or "keras"."""
    name = named(asked)
    if exporting() and name != "keras":
        if name != "auto":
            raise NotImplementedError(
                f'an exported graph cannot carry engine="{name}": use keras_bridge.export, or use_engine("keras")'
            )
        return "keras"
    if name != "auto":
        return name
    if not fast_engine.interpreting() and not held_back("fast", recurrence):
        return "fast"
    return "reference" if held_back("keras", recurrence) else "keras"


def held_back(name: str, recurrence: Any) -> str:
    """Return what keeps an engine from running a step; nothing if it can. Found out once for each step and place."""
    found: dict[tuple[str, str], str] = recurrence.held_back
    key = name, place()
    words = found.get(key)
    if words is None:
        words = found[key] = _refusal(name, recurrence)  # "auto" takes another engine; `explanation` says why
    return words


def _refusal(name: str, recurrence: Any) -> str:
    """Return why an engine refuses a step, for inference or in training, since "auto" takes one engine for both."""
    for training in (False, True):
        try:
            module_of(name).prepare(recurrence, training)
        except (NotImplementedError, ImportError) as error:
            return f"in training, {error}" if training else str(error)
    return ""


def module_of(name: str) -> Any:
    """Return the module that computes with an engine."""
    return _modules[name]


def explanation(layer: str, asked: str, recurrence: Any) -> str:
    """Return what runs a layer, why, and what held each faster engine back."""
    name = chosen(asked, recurrence)
    who = (
        "within use_engine" if _forced else "as the layer asks" if asked != "auto" else
        "as set_engine or the environment asks" if get_engine() != "auto" else "the fastest that can run this step"
    )  # fmt: skip
    lines = [f'{layer}: engine "{name}", {who}']
    slow = ", run by Python itself (RSREF_FAST_TARGET): only where asked for" if fast_engine.interpreting() else ""
    for other in ("fast", *(["keras"] if held_back("keras", recurrence) else []), "reference"):
        able = "can run this step" + (slow if other == "fast" else "")
        lines.append(f"{other}: {held_back(other, recurrence) or able}")
    return "\n  ".join(lines)
