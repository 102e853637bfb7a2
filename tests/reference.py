"""docs/reference.md: every public name, as its signature and its docstring say it.

`python -m tests.reference` writes the page; tests/bridge/test_reference.py asks whether it is as the code is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import keras_bridge
import rsref
import rsref_fast
from rsref import activations, constraints, generation, initializers, ops, plain_data, regularizers, testing
from rsref_fast.cpu.engine import FastEngine
from rsref_fast.cpu.frozen import Frozen
from rsref_fast.cpu.stream import Stream

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Reference

Made by `python -m tests.reference` from signatures and docstrings. [guide.md](guide.md), [keras.md](keras.md),
[compiler.md](compiler.md) and [cuda.md](cuda.md) say how these are used; [ops.md](ops.md) how an op of one's own is
defined."""

TABLES = {
    "rsref.ops": ops,
    "rsref.activations": activations,
    "rsref.initializers": initializers,
    "rsref.regularizers": regularizers,
    "rsref.constraints": constraints,
}
"""Modules of which each name takes one line."""

OF_RSREF = {
    "Recurrent layers": (
        "RecurrentModel",
        "RecurrentSequential",
        "RecurrentLayer",
        "LayerGradients",
        "Learned",
        "set_random_seed",
    ),
    "Drawing": ("Input", "constant", "Parameter", "Tensor", "Model", "StepGraph", "Recurrence"),
    "Engines": ("Engine", "ReferenceEngine", "Gradients"),
}
NAMES = (*rsref.cells.__all__, *rsref.layers.__all__)
OF_ENGINE = ("forward", "backward", "stream", "freeze", "explain", "source")
INNER = ("build_for", "build_step", "loop_anew", "resting_masks", "set_step")
"""Methods that call each other, and are of no use to others."""

MODULES = tuple(name for name in rsref.__all__ if isinstance(getattr(rsref, name), ModuleType))


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for title, names in OF_RSREF.items():
        lines += _section(f"rsref: {title[0].lower()}{title[1:]}", rsref, names)
    lines += _section("rsref: cells", rsref, rsref.cells.__all__)
    lines += _section("rsref: layers within a step", rsref, rsref.layers.__all__)
    for name, module in TABLES.items():
        lines += ["", f"## {name}", "", *_table(module)]
    for name, module in (("generation", generation), ("plain_data", plain_data), ("testing", testing)):
        lines += _section(f"rsref.{name}", module, _public(module), f"rsref.{name}.")
    lines += _section("rsref_fast", rsref_fast, rsref_fast.__all__)
    lines += ["", "What `compile` answers for the CPU, and what that answers:"]
    lines += [*_entry("engine", FastEngine, OF_ENGINE), *_entry("stream", Stream), *_entry("frozen", Frozen)]
    lines += _section("keras_bridge", keras_bridge, [n for n in keras_bridge.__all__ if n not in ("basic", "convert")])
    return "\n".join(lines) + "\n"


def missing() -> list[str]:
    """Return what rsref exports and no section has."""
    found = {name for names in OF_RSREF.values() for name in names} | {*NAMES, *MODULES}
    return sorted({*rsref.__all__} - found)


def _section(title: str, module: ModuleType, names: Iterable[str], prefix: str = "") -> list[str]:
    own = prefix or f"{module.__name__}."
    return ["", f"## {title}", *(line for name in names for line in _entry(f"{own}{name}", getattr(module, name)))]


def _entry(name: str, thing: Any, methods: Sequence[str] = ()) -> list[str]:
    """Return what is said of a function, or of a class and its public methods: its own, or those that are named."""
    lines = ["", f"### {name}", "", "```text", f"{name.rpartition('.')[2]}{_signature(thing)}", "", *_words(thing)]
    for own in methods or (vars(thing) if inspect.isclass(thing) else ()):
        method = inspect.getattr_static(thing, own)
        bare = method.__func__ if isinstance(method, classmethod | staticmethod) else method
        bare = bare.fget if isinstance(bare, property) else bare
        if not own.startswith("_") and own not in INNER and inspect.isfunction(bare) and bare.__doc__:
            call = "" if isinstance(method, property) else _signature(bare)
            lines += ["", f".{own}{call}", *(f"    {line}".rstrip() for line in _words(bare))]
    return [*lines, "```"]


def _table(module: ModuleType) -> list[str]:
    """Return a line for each public name of a module."""
    rows = []
    for name in sorted(_public(module)):
        thing = getattr(module, name)
        names = getattr(thing, "operand_names", None)
        call = f"({', '.join(names)})" if names else _signature(thing)
        says = _words(thing)[0].replace("|", "\\|")
        rows.append(f"| `{name}{call}` | {says} |")
    return ["| name | what |", "| --- | --- |", *rows]


def _public(module: ModuleType) -> list[str]:
    own = getattr(module, "__all__", None)
    if own is not None:
        return [name for name in own if callable(getattr(module, name))]
    things = {name: thing for name, thing in vars(module).items() if not name.startswith("_") and callable(thing)}
    return [name for name, thing in things.items() if getattr(thing, "__module__", "") == module.__name__]


def _signature(thing: Any) -> str:
    """Return the arguments of a call, without what they are annotated with; nothing for an error."""
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return ""
    found = inspect.signature(thing)
    own = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return str(found.replace(parameters=own, return_annotation=found.empty))


def _words(thing: Any) -> list[str]:
    return (inspect.getdoc(thing) or "").splitlines() or [""]


if __name__ == "__main__":
    PAGE.write_text(page())
