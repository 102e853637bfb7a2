"""Options of a recurrent layer that say what its step is, or how that is looped: what it means to set them later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Drawn:
    """An option that can be set until the step is drawn, which follows it.

    Errors: AttributeError, naming it, if it is set later, which would change nothing but what the layer says of itself.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, _kind: type | None = None) -> Any:
        if layer is None:
            return self
        if self.name not in vars(layer):
            raise AttributeError(self.name)  # which the layer's own words follow
        return vars(layer)[self.name]

    def __set__(self, layer: Any, value: Any) -> None:
        if is_drawn(layer):
            raise AttributeError(
                f"{layer.name}: the step was drawn with {self.name}={getattr(layer, self.name)!r}, which cannot be set "
                "any more: make a new layer"
            )
        vars(layer)[self.name] = value


class Checked(Drawn):
    """An option that counts from the next call on. checked: what a value is kept as, given the layer, too."""

    def __init__(self, checked: Callable[[Any, Any], Any]):
        self.checked = checked

    def __set__(self, layer: Any, value: Any) -> None:
        vars(layer)[self.name] = self.checked(layer, value)


class Looped(Drawn):
    """An option of the loop around the step, which goes by it from then on. checked: what a value is kept as."""

    def __init__(self, checked: Callable[[Any], Any] = bool):
        self.checked = checked

    def __set__(self, layer: Any, value: Any) -> None:
        vars(layer)[self.name] = self.checked(value)
        if is_drawn(layer):
            layer.loop_anew()


def is_drawn(layer: Any) -> bool:
    """Whether a recurrent layer has its step."""
    return getattr(layer, "memory", None) is not None  # which is made last
