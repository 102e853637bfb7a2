"""What a user may ask for: which strategy, and who computes matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsref_fast.cuda.choice import STRATEGIES
from rsref_fast.cuda.library import PRODUCTS

if TYPE_CHECKING:
    from rsref_fast.cuda.driver import Device


def check_options(strategy: str, products: str) -> None:
    """Errors: ValueError for an option that there is not, or two that exclude each other."""
    for name, value, known in (("strategy", strategy, STRATEGIES), ("products", products, PRODUCTS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    if (strategy, products) == ("persistent", "cublas"):
        raise ValueError('products="cublas" needs launches of their own, which strategy="persistent" has not')


def check_library(device: Device, products: str) -> None:
    """Errors: ImportError if cuBLAS is asked for and not there."""
    why = lacking(device) if products == "cublas" else ""
    if why:
        raise ImportError(f'products="cublas": {why}')


def lacking(device: Device) -> str:
    """Return why cuBLAS is not there; nothing if it is. It is loaded now."""
    try:
        assert device.library
    except ImportError as error:
        return str(error)
    return ""
