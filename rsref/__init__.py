"""rsref: recurrent networks drawn one timestep at a time, in plain NumPy. The specification of the other engines."""

from rsref import activations, ops
from rsref.engine import Engine, Gradients, ReferenceEngine
from rsref.graph import Model, StepGraph
from rsref.recurrence import Recurrence
from rsref.tensor import Input, Parameter, Tensor, constant

__all__ = [
    "Engine",
    "Gradients",
    "Input",
    "Model",
    "Parameter",
    "Recurrence",
    "ReferenceEngine",
    "StepGraph",
    "Tensor",
    "activations",
    "constant",
    "ops",
]
