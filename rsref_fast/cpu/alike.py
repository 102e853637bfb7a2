"""Functions that differ in their names and comments alone are compiled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def once(decorate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that answers for functions of the same code what it has answered for the first of them.

    Of a step's programs, and of those of like steps, many functions are the same. Names that they use must mean the
    same in all of them. Constants are compared as text: to Python, 0.0 is -0.0, and 1 is 1.0.
    """
    known: dict[Any, Any] = {}

    def decorated(function: Any) -> Any:
        code = function.__code__
        key = code.co_code, repr(code.co_consts[1:]), code.co_names, code.co_varnames
        if key not in known:
            known[key] = decorate(function)
        return known[key]

    return decorated
