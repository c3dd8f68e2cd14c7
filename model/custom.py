"""Activations and losses of the user's own, from Numba functions, at the speed of the built-in ones."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numba import types
from numpy.typing import DTypeLike, NDArray

from hotloop import check
from hotloop.kernels import activations

KINDS = {"float32": types.float32, "float64": types.float64}


def activation_code(activation: "str | Activation", dtype: DTypeLike) -> int:
    """What stands for an activation in a plan."""
    return activation.code(dtype) if isinstance(activation, Activation) else activations.CODES[activation]


def _compiled(name: str, function: Any) -> Any:
    """A function that other compiled functions can call."""
    if not callable(function):
        raise TypeError(f"{name}: got {function!r}, expected a function, best one with @numba.njit.")
    return function if hasattr(function, "py_func") else numba.njit(error_model="numpy")(function)


def _address(name: str, signature: Any, function: Callable[..., Any]) -> Any:
    """The function compiled for C; it must stay alive as long as its address is used."""
    try:
        return numba.cfunc(signature, error_model="numpy")(function)
    except numba.core.errors.NumbaError as error:
        reason = str(error).strip().splitlines()[-1]
        raise TypeError(
            f"{name}: Numba cannot compile it for numbers of type {signature.args[0].dtype}: {reason}"
        ) from error


class Activation:
    """f(z) and its slope f'(z), two functions of one number: MLP(..., activation=Activation(value, slope)).

    @numba.njit functions are taken as they are, others are compiled. A constant such as 0.5 makes float64 of a float32,
    and halves the speed: write hotloop.kernels.simd.cast(0.5, z). The name stands in files; MLP.load takes the
    activation itself. Raises TypeError for what Numba cannot compile.
    """

    def __init__(self, value: Callable[..., Any], slope: Callable[..., Any], name: str | None = None) -> None:
        self.value, self.slope = _compiled("value", value), _compiled("slope", slope)
        self.name = name or getattr(value, "__name__", "custom")
        self._tables: dict[str, tuple[Any, Any, NDArray[np.int64]]] = {}

    def __repr__(self) -> str:
        return f"Activation({self.name})"

    def code(self, dtype: DTypeLike) -> int:
        """What stands for it in a plan, for one dtype; compiled when first asked for."""
        name = str(np.dtype(dtype))
        if name not in self._tables:
            value, slope, real = self.value, self.slope, KINDS[name]

            def apply(z, n):  # type: ignore[no-untyped-def]
                for i in range(n):
                    z[i] = value(z[i])

            def activate(z, n, slopes):  # type: ignore[no-untyped-def]
                for i in range(n):
                    slopes[i] = slope(z[i])
                for i in range(n):
                    z[i] = value(z[i])

            at = types.CPointer(real)
            one = _address(f"activation {self.name}", types.void(at, types.intp), apply)
            both = _address(f"activation {self.name}", types.void(at, types.intp, at), activate)
            self._tables[name] = one, both, np.array([one.address, both.address])
        return int(self._tables[name][2].ctypes.data)


class Loss:
    """A loss of the user's own: Trainer(loss=Loss(value, slope)) or Loss(row=function).

    value, slope  loss(prediction, target) of one output and its derivative by the prediction; the loss of a sample is
                  their mean over its outputs
    row           function(prediction, target, k, delta) of one sample: returns its loss, writes delta[j], j < k
    classes       True: row gets the number of the class instead of a row of targets, and predictions are classes
    """

    def __init__(
        self,
        value: Callable[..., Any] | None = None,
        slope: Callable[..., Any] | None = None,
        *,
        row: Callable[..., Any] | None = None,
        classes: bool = False,
        name: str | None = None,
    ) -> None:
        if (row is None) == (value is None or slope is None) or (row is not None and (value or slope)):
            raise TypeError("loss: expected either value and slope, or row.")
        self.classes = check.boolean("classes", classes)
        if self.classes and row is None:
            raise TypeError("classes: got True with value and slope, expected a row function for losses of classes.")
        self.value, self.slope = (
            None if f is None else _compiled(n, f) for n, f in (("value", value), ("slope", slope))
        )
        self.row = None if row is None else _compiled("row", row)
        self.name = name or getattr(row or value, "__name__", "custom")
        self._functions: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Loss({self.name})"

    def code(self, dtype: DTypeLike) -> int:
        """What stands for it among the codes of losses, for one dtype; compiled when first asked for."""
        name = str(np.dtype(dtype))
        if name not in self._functions:
            real = KINDS[name]
            at = types.CPointer(real)
            signature = real(at, at, types.int64, types.intp, at)
            self._functions[name] = _address(f"loss {self.name}", signature, self._function)
        return int(self._functions[name].address)

    @cached_property
    def _function(self) -> Callable[..., Any]:
        value, slope, row = self.value, self.slope, self.row
        if self.classes:

            def by_class(prediction, target, label, k, delta):  # type: ignore[no-untyped-def]
                return row(prediction, label, k, delta)

            return by_class
        if row is not None:

            def by_row(prediction, target, label, k, delta):  # type: ignore[no-untyped-def]
                return row(prediction, target, k, delta)

            return by_row

        def mean(prediction, target, label, k, delta):  # type: ignore[no-untyped-def]
            total = prediction[0] - prediction[0]
            for j in range(k):
                p, t = prediction[j], target[j]
                total += value(p, t)
                delta[j] = slope(p, t) / k
            return total / k

        return mean
