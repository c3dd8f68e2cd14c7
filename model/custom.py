"""Activations and losses of the user's own, from Numba functions, at the speed of the built-in ones."""

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import numba
import numpy as np
from numba import types
from numpy.typing import DTypeLike, NDArray

from hotloop import check
from hotloop.kernels import activations, jit
from hotloop.kernels.custom import activation_kinds, loss_kinds
from hotloop.kernels.simd import cast

KINDS = {"float32": types.float32, "float64": types.float64}


_made: WeakValueDictionary[int, Any] = WeakValueDictionary()  # activations and losses by their codes


def find(code: int) -> Any:
    """The Activation or Loss, in use, that this code stands for."""
    return _made[code]


def activation_code(activation: "str | Activation", dtype: DTypeLike) -> int:
    """What stands for an activation in a plan."""
    return activation.code(dtype) if isinstance(activation, Activation) else activations.CODES[activation]


def _compiled(name: str, function: Any) -> Any:
    """A function that other compiled functions can call."""
    if not callable(function):
        raise TypeError(f"{name}: got {function!r}, expected a function, best one with @numba.njit.")
    if hasattr(function, "py_func"):
        return function
    try:
        return numba.njit(error_model="numpy")(function)
    except TypeError as error:  # a NumPy function, a class, ...
        raise TypeError(f"{name}: got {function!r}, expected a plain Python function: {error}") from error


def _address(name: str, kinds: tuple[Any, ...], part: Any) -> int:
    """Where the code of a part is; the part must stay alive as long as its address is used."""
    try:
        return jit.address(part, *kinds)
    except Exception as error:  # Numba lets through what it meets, an AttributeError of NumPy for one
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Failed in nopython")]
        reason = lines[0] if lines else type(error).__name__
        raise TypeError(f"{name}: Numba cannot compile it for numbers of type {kinds[0].dtype}: {reason}") from error


class _Constant:
    """What is never changed: a copy is the thing itself. Machine code has addresses of this process alone."""

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled: its machine code belongs to this process. Use MLP.save and load.")


class Activation(_Constant):
    """f(z) and its slope f'(z), two functions of one number: MLP(..., activation=Activation(value, slope)).

    @numba.njit functions are taken as they are, others are compiled. A constant such as 0.5 makes float64 of a float32,
    and halves the speed: write hotloop.kernels.simd.cast(0.5, z). The name stands in files; MLP.load takes the
    activation itself. Raises TypeError for what Numba cannot compile.
    """

    def __init__(self, value: Callable[..., Any], slope: Callable[..., Any], name: str | None = None) -> None:
        self.value, self.slope = _compiled("value", value), _compiled("slope", slope)
        self.name = str(name or getattr(value, "__name__", "custom"))
        self._tables: dict[str, tuple[Any, Any, NDArray[np.int64]]] = {}  # the parts, and their addresses

    def __repr__(self) -> str:
        return f"Activation({self.name})"

    def code(self, dtype: DTypeLike) -> int:
        """What stands for it in a plan, for one dtype; compiled when first asked for."""
        name = str(np.dtype(dtype))
        if name not in self._tables:
            value, slope, real = self.value, self.slope, KINDS[name]

            @jit.part
            def apply(z, n):  # type: ignore[no-untyped-def]
                for i in range(n):
                    z[i] = value(z[i])

            @jit.part
            def activate(z, n, slopes):  # type: ignore[no-untyped-def]
                for i in range(n):
                    slopes[i] = slope(z[i])
                for i in range(n):
                    z[i] = value(z[i])

            one, both = activation_kinds(real)
            title = f"activation {self.name}"
            table = np.array([_address(title, one, apply), _address(title, both, activate)])
            self._tables[name] = apply, activate, table
            _made[int(table.ctypes.data)] = self
        return int(self._tables[name][2].ctypes.data)


class Loss(_Constant):
    """A loss of the user's own: Trainer(loss=Loss(value, slope)) or Loss(row=function).

    value, slope  loss(prediction, target) of one output and its derivative by the prediction; the loss of a sample is
                  their mean over its outputs
    row           function(prediction, target, k, delta) of one sample: returns its loss and writes its derivatives
                  delta[j], j < k, all of which hold something else before; all three are arrays (k,)
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
        self.name = str(name or getattr(row or value, "__name__", "custom"))
        self._functions: dict[str, tuple[Any, int]] = {}  # the part, and its address

    def __repr__(self) -> str:
        return f"Loss({self.name})"

    def code(self, dtype: DTypeLike) -> int:
        """What stands for it among the codes of losses, for one dtype; compiled when first asked for."""
        name = str(np.dtype(dtype))
        if name not in self._functions:
            part = self._part(np.dtype(dtype).type)
            at = _address(f"loss {self.name}", loss_kinds(KINDS[name]), part)
            self._functions[name] = part, at
            _made[at] = self
        return self._functions[name][1]

    def _part(self, real: type) -> Any:
        value: Any = self.value
        slope: Any = self.slope
        row: Any = self.row

        def kept(prediction, k):  # type: ignore[no-untyped-def]
            """A copy: delta may be the memory of the prediction. It costs 20 ns."""
            copied = np.empty(k, real)
            for j in range(k):
                copied[j] = prediction[j]
            return copied

        copy = numba.njit(error_model="numpy")(kept)

        def by_class(prediction, target, label, k, delta, result):  # type: ignore[no-untyped-def]
            result[0] = row(copy(prediction, k), label, k, numba.carray(delta, (k,)))

        def by_row(prediction, target, label, k, delta, result):  # type: ignore[no-untyped-def]
            result[0] = row(copy(prediction, k), numba.carray(target, (k,)), k, numba.carray(delta, (k,)))

        def mean(prediction, target, label, k, delta, result):  # type: ignore[no-untyped-def]
            total, share = cast(0.0, prediction[0]), cast(1.0, prediction[0]) / cast(k, prediction[0])
            for j in range(k):
                p, t = prediction[j], target[j]
                total += value(p, t)
                delta[j] = slope(p, t) * share
            result[0] = total * share

        return jit.part(mean if row is None else (by_class if self.classes else by_row))
