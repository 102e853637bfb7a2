"""rsref: recurrent networks drawn one timestep at a time, in plain NumPy. The specification of the other engines."""

from typing import Any

from rsref import activations, cells, generation, layers, ops, plain_data
from rsref.cells import *
from rsref.engine import Engine, Gradients, ReferenceEngine
from rsref.graph import Model, StepGraph
from rsref.initializers import Learned, set_random_seed
from rsref.layers import *
from rsref.loop import RecurrentLayer
from rsref.recurrence import Recurrence
from rsref.recurrent import RecurrentModel, RecurrentSequential
from rsref.tape import LayerGradients
from rsref.tensor import Input, Parameter, Tensor, constant

__all__ = [
    "Engine",
    "Gradients",
    "Input",
    "LayerGradients",
    "Learned",
    "Model",
    "Parameter",
    "Recurrence",
    "RecurrentLayer",
    "RecurrentModel",
    "RecurrentSequential",
    "ReferenceEngine",
    "StepGraph",
    "Tensor",
    "activations",
    "constant",
    "generation",
    "ops",
    "plain_data",
    "set_random_seed",
]
__all__ += cells.__all__
__all__ += layers.__all__


def __getattr__(name: str) -> Any:
    """`__version__` is the installed distribution's: looked up when it is asked for, since a checkout may have none."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rsref")
    except PackageNotFoundError as error:
        raise AttributeError("rsref is not installed, which would tell its version") from error
