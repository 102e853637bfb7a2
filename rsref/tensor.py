"""The values that flow through one drawn timestep: symbolic tensors and their sources.

A `Tensor` is either the result of one op applied to other tensors, or a leaf whose `source` says where its
value comes from: an input of the step, a trainable parameter, a constant, or noise drawn outside the engines.
Shapes carry the batch axis first, as in Keras; an axis of unknown length is `None`.
Dtypes are three: "float" (the engine's working precision, float32 or float64), "int" and "bool".
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rsref import constraints, regularizers
from rsref.numpy_calls import translated

if TYPE_CHECKING:
    from rsref.ops.base import Op

Shape = tuple[int | None, ...]

_serial = itertools.count()
_counters: dict[str, itertools.count[int]] = {}


def unique_name(prefix: str) -> str:
    """Return `prefix`, or `prefix_1`, `prefix_2`, ... at later calls."""
    number = next(_counters.setdefault(prefix, itertools.count()))
    return prefix if number == 0 else f"{prefix}_{number}"


class Spec(NamedTuple):
    """Shape and dtype of a value: what an op's rule reads and answers."""

    shape: Shape
    dtype: str


class InputSource(NamedTuple):
    """The leaf is an input of the step: a sequence, a constant or a state."""


class ConstantSource:
    """The leaf is a fixed array."""

    def __init__(self, value: np.ndarray):
        self.value = value


class NoiseSource(NamedTuple):
    """The leaf is noise that the caller draws in training; elsewhere its mean stands for it.

    rate: of an inverted-dropout mask: 0, or 1 / (1 - rate), whose mean is 1.
    per: how long what is drawn lives: "step" (anew at every timestep) or "sequence" (once for all steps).
    stddev: of normally distributed numbers around `mean` instead; width: of the interval around it of evenly
    distributed ones; None for a mask.
    """

    rate: float
    per: str
    stddev: float | None = None
    mean: float = 1.0
    width: float | None = None


class Parameter:
    """A trainable array, with the leaf tensor that stands for it in any number of steps.

    name: a path such as "dense/kernel".
    value: array, kept in float64, row after row (C order); engines cast it to their working precision.
    trainable: gradients of a parameter that is not trainable are still computed; optimisers should skip it.
    regularizer, constraint: see `rsref.regularizers` and `rsref.constraints`; None for none.
    """

    def __init__(
        self,
        name: str,
        value: Any,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
    ):
        self.name = name
        self.value = real_array(f"parameter {name!r}", value)
        self.trainable = trainable
        self.regularizer = regularizers.get(regularizer)
        self.constraint = constraints.get(constraint)
        self.serial = next(_serial)
        self.tensor = Tensor(Spec(self.value.shape, "float"), source=self, name=name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        global _serial
        self.__dict__.update(state)
        _serial = itertools.count(max(next(_serial), self.serial + 1))  # those made from now on come after it

    def __deepcopy__(self, _memo: Any) -> Parameter:
        return self  # a copy of a layer shares the weights that are drawn into its step

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def assign(self, value: Any) -> None:
        """Replace the value; ValueError if the shape differs, TypeError for anything but real numbers."""
        array = real_array(f"parameter {self.name!r}", value)
        if array.shape != self.value.shape:
            raise ValueError(f"parameter {self.name!r} has shape {self.shape}; the value given has shape {array.shape}")
        self.value = array

    def __repr__(self) -> str:
        return f"<Parameter {self.name} {self.shape}>"

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"{self!r} stands in a step as its .tensor; its numbers are its .value")


Source = InputSource | ConstantSource | NoiseSource | Parameter


_in_formula: ContextVar[bool] = ContextVar("in_formula", default=False)


@contextlib.contextmanager
def in_formula() -> Iterator[None]:
    """Refuse == of two tensors: a formula means their values by it."""
    token = _in_formula.set(True)
    try:
        yield
    finally:
        _in_formula.reset(token)


class Tensor:
    """One symbolic value of a step: an op with its operands and attributes, or a leaf with its source.

    Immutable. Arithmetic, comparison, indexing, NumPy ufuncs and most NumPy functions applied to a Tensor draw
    further ops, so a step may be written as plain NumPy code.
    """

    __slots__ = ("attrs", "dtype", "inputs", "name", "op", "shape", "source")

    op: Op | None
    inputs: tuple[Tensor, ...]
    attrs: Mapping[str, Any]
    source: Source | None
    name: str
    shape: Shape
    dtype: str

    def __init__(
        self,
        spec: Spec,
        *,
        op: Op | None = None,
        inputs: Sequence[Tensor] = (),
        attrs: Mapping[str, Any] | None = None,
        source: Source | None = None,
        name: str = "",
    ):
        if spec.dtype not in ("float", "int", "bool"):
            raise ValueError(f'{name or op} has dtype {spec.dtype!r}; a Tensor\'s is "float", "int" or "bool"')
        put = object.__setattr__
        put(self, "shape", tuple(spec.shape))
        put(self, "dtype", spec.dtype)
        put(self, "op", op)
        put(self, "inputs", tuple(inputs))
        put(self, "attrs", dict(attrs or {}))
        put(self, "source", source)
        put(self, "name", name or (op.name if op else "tensor"))

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(f"a Tensor is immutable: cannot set {key!r}")

    def __deepcopy__(self, _memo: Any) -> Tensor:
        return self  # immutable: a copy of a layer draws with the same tensors

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Tensor.__slots__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    if not TYPE_CHECKING:  # mypy need not believe in every attribute

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or name in Tensor.__slots__:
                raise AttributeError(name)
            from rsref import ops

            instead = "transpose" if name == "T" else name
            hint = f"; draw numpy.{instead}(x) or rsref.ops.{instead}(x)" if hasattr(ops, instead) else ""
            raise AttributeError(f"{self!r} is symbolic and has no {name!r}{hint}")

    @property
    def op_name(self) -> str:
        """The name of its op; nothing for a leaf."""
        return self.op.name if self.op else ""

    @property
    def spec(self) -> Spec:
        return Spec(self.shape, self.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<Tensor {self.name} {self.shape} {self.dtype}>"

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} is symbolic: it has no truth value while a step is drawn; use rsref.ops.where instead of if"
        )

    def __len__(self) -> int:
        raise TypeError(f"{self!r} is symbolic: use .shape instead of len()")

    def __iter__(self) -> Any:
        raise TypeError(f"{self!r} is symbolic and cannot be iterated over; use rsref.ops.split or indexing")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"{self!r} is symbolic and has no value: a step is drawn with layers and functions of rsref or NumPy, not "
            "of Keras, and run by a recurrent layer"
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Tensor:
        if method != "__call__" or options:
            raise TypeError(f"numpy.{ufunc.__name__}.{method} with {sorted(options)} cannot be drawn; see rsref.ops")
        return _draw(ufunc.__name__, operands)

    def __array_function__(self, function: Callable[..., Any], _types: Any, args: Any, options: Any) -> Tensor:
        return _draw(function.__name__, *translated(function, args, options), function.__module__)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        """Whether this is the same tensor: graphs look tensors up. `rsref.ops.equal` compares values."""
        if isinstance(other, int | float | np.generic | np.ndarray | list | tuple):
            raise TypeError(f"{self!r} is symbolic: draw numpy.equal(x, {other!r}) or rsref.ops.equal(x, {other!r})")
        if self is not other and isinstance(other, Tensor) and _in_formula.get():
            raise TypeError(f"{self!r} == {other!r} in a formula compares no values: write numpy.equal(a, b)")
        return self is other

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _draw("not_equal", (self, other))

    def __add__(self, other: Any) -> Tensor:
        return _draw("add", (self, other))

    def __radd__(self, other: Any) -> Tensor:
        return _draw("add", (other, self))

    def __sub__(self, other: Any) -> Tensor:
        return _draw("subtract", (self, other))

    def __rsub__(self, other: Any) -> Tensor:
        return _draw("subtract", (other, self))

    def __mul__(self, other: Any) -> Tensor:
        return _draw("multiply", (self, other))

    def __rmul__(self, other: Any) -> Tensor:
        return _draw("multiply", (other, self))

    def __truediv__(self, other: Any) -> Tensor:
        return _draw("divide", (self, other))

    def __rtruediv__(self, other: Any) -> Tensor:
        return _draw("divide", (other, self))

    def __floordiv__(self, other: Any) -> Tensor:
        return _draw("floor_divide", (self, other))

    def __rfloordiv__(self, other: Any) -> Tensor:
        return _draw("floor_divide", (other, self))

    def __mod__(self, other: Any) -> Tensor:
        return _draw("remainder", (self, other))

    def __rmod__(self, other: Any) -> Tensor:
        return _draw("remainder", (other, self))

    def __pow__(self, other: Any) -> Tensor:
        return _draw("power", (self, other))

    def __rpow__(self, other: Any) -> Tensor:
        return _draw("power", (other, self))

    def __matmul__(self, other: Any) -> Tensor:
        return _draw("matmul", (self, other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return _draw("matmul", (other, self))

    def __neg__(self) -> Tensor:
        return _draw("negative", (self,))

    def __abs__(self) -> Tensor:
        return _draw("absolute", (self,))

    def __lt__(self, other: Any) -> Tensor:
        return _draw("less", (self, other))

    def __le__(self, other: Any) -> Tensor:
        return _draw("less_equal", (self, other))

    def __gt__(self, other: Any) -> Tensor:
        return _draw("greater", (self, other))

    def __ge__(self, other: Any) -> Tensor:
        return _draw("greater_equal", (self, other))

    def __and__(self, other: Any) -> Tensor:
        return _draw("logical_and", _booleans("&", "logical_and", self, other))

    def __or__(self, other: Any) -> Tensor:
        return _draw("logical_or", _booleans("|", "logical_or", self, other))

    def __xor__(self, other: Any) -> Tensor:
        return _draw("logical_xor", _booleans("^", "logical_xor", self, other))

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Tensor:
        return _draw("logical_not", _booleans("~", "logical_not", self))

    def __getitem__(self, index: Any) -> Tensor:
        return _draw("get_item", (self, index))


def _booleans(sign: str, name: str, *operands: Any) -> tuple[Any, ...]:
    """Return the operands; TypeError unless all are booleans, since NumPy's sign works on the bits of integers."""
    for operand in operands:
        dtype = operand.dtype if isinstance(operand, Tensor) else np.asarray(operand).dtype
        if dtype != "bool":
            raise TypeError(
                f"{sign} is drawn of booleans only; got {operand!r}: draw rsref.ops.{name} to ask what is not 0"
            )
    return operands


def _draw(
    name: str, operands: Sequence[Any], options: Mapping[str, Any] | None = None, module: str = "numpy"
) -> Tensor:
    from rsref import ops  # the ops are built on tensors: imported when first used

    function = getattr(ops, name, None)
    if function is None:
        raise TypeError(f"{module}.{name} cannot be drawn in a step; rsref.ops lists what can")
    result: Tensor = function(*operands, **(options or {}))
    return result


def Input(
    shape: Sequence[int | None] | None = None,
    dtype: str | None = None,
    name: str | None = None,
    batch_shape: Sequence[int | None] | None = None,
) -> Tensor:
    """Return a leaf tensor that stands for an input of a step.

    shape: the axes after the batch axis, None for an unknown length; or give `batch_shape`, the batch axis included.
    dtype: "float" (default), "int" or "bool"; "float32", "int64" and the like are accepted and mean their kind,
        since the precision is chosen by the layer that runs the step.
    Errors: TypeError for a shape that is not a sequence of integers and None; ValueError for a dtype of another kind.
    """
    if (shape is None) == (batch_shape is None):
        raise ValueError(f"Input takes either shape or batch_shape; got shape={shape!r}, batch_shape={batch_shape!r}")
    given = batch_shape if shape is None else shape
    if isinstance(given, int | str) or not all(n is None or isinstance(n, int | np.integer) for n in given or ()):
        raise TypeError(f"Input: shape must be a tuple of integers and None, such as (5,) or (None, 8); got {given!r}")
    if any(n is not None and n < 0 for n in given or ()):
        raise ValueError(f"Input: shape must not have negative lengths; got {given!r}")
    lengths = tuple(None if n is None else int(n) for n in given or ())
    full = lengths if shape is None else (None, *lengths)
    return Tensor(Spec(full, kind_of_dtype(dtype or "float")), source=InputSource(), name=name or unique_name("input"))


def constant(value: Any, name: str = "constant") -> Tensor:
    """Return a leaf tensor with a fixed value (a number or an array-like of float, int or bool)."""
    array = array_of("a value in a step", value).copy()  # the caller may write into the array later
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a step is drawn of Tensors, numbers and arrays of them; got {value!r}")
    spec = Spec(array.shape, kind_of_dtype(array.dtype))
    return Tensor(spec, source=ConstantSource(array), name=name)


def noise(
    shape: Shape,
    rate: float = 0.0,
    per: str = "step",
    stddev: float | None = None,
    mean: float = 1.0,
    width: float | None = None,
) -> Tensor:
    """Return a leaf tensor for noise of a shape (batch axis first), a dropout mask if neither stddev nor width is
    given; see `NoiseSource`."""
    if per not in ("step", "sequence"):
        raise ValueError(f'per must be "step" or "sequence"; got {per!r}')
    return Tensor(Spec(shape, "float"), source=NoiseSource(rate, per, stddev, mean, width), name=unique_name("noise"))


def array_of(name: str, value: Any) -> np.ndarray:
    """Return an array-like as an array.

    Errors: TypeError, naming it, if it is none, such as rows of unequal lengths; for one of numpy.ma, whose mask would
    be lost.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a numeric array; got a masked one of numpy.ma: give its data, and a mask")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # the latter of tensors of PyTorch that have gradients
        raise TypeError(f"{name} must be a numeric array; got {type(value).__name__}: {error}") from None


def real_array(name: str, value: Any) -> np.ndarray:
    """Return a new float64 array of an array-like, row after row.

    Errors: TypeError, naming it, for complex numbers, strings or objects.
    """
    array = array_of(name, value)
    if array.dtype.kind in "cSUO":
        raise TypeError(f"{name} holds real numbers; got dtype {array.dtype}")
    return array.astype(np.float64, order="C")  # row after row, as engines take it: they copy others in every call


def kind_of_dtype(dtype: Any) -> str:
    """Return "float", "int" or "bool" for a dtype or its name; ValueError for anything else (object, string, ...)."""
    if isinstance(dtype, str) and dtype in ("float", "int", "bool", "bfloat16"):
        return "float" if dtype == "bfloat16" else dtype
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        kind = "?"
    if kind not in "fiub":
        raise ValueError(f"dtype {dtype!r} is not accepted; accepted kinds are float, int and bool")
    return {"f": "float", "i": "int", "u": "int", "b": "bool"}[kind]
