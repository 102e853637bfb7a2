"""The error of everything that turns a Keras step into rsref's ops."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

LONGEST = 200
"""Letters of what another library said, in an error of ours."""


class TraceError(NotImplementedError):
    """A layer or operation of the step has no counterpart in rsref; the text names it."""


def with_own_weight(path: str) -> TraceError:
    """Return the error for a weight of the backend's own: its value would be kept, and it would have no gradient."""
    return TraceError(
        f"{path}: a weight that Keras does not know, such as a torch.nn.Parameter or a tf.Variable, is not traced; "
        f'make it by add_weight; engine="keras" runs it'
    )


def without_counterpart(operation: Any, path: str) -> TraceError:
    """Return the error for a Keras operation that no rule knows."""
    return TraceError(
        f'{path}: the operation {type(operation).__name__} has no counterpart in rsref; engine="keras" runs it'
    )


def not_recorded(layer: Any, path: str, error: Exception) -> TraceError:
    """Return the error for a call that ended while it was recorded: at which line of its own, and with what words."""
    own = [frame.line for frame in traceback.extract_tb(error.__traceback__) if not _is_of_a_library(frame.filename)]
    where = f" at {own[-1]!r}" if own else ""
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
    return TraceError(
        f"{path}: the layer {type(layer).__name__} cannot be traced{where} ({type(error).__name__}: {said}); "
        f'engine="keras" runs it'
    )


def _is_of_a_library(filename: str) -> bool:
    """Whether code is installed, or ours."""
    path = Path(filename)
    return "site-packages" in path.parts or path.is_relative_to(Path(__file__).parent)
