"""Checks of everything a user hands in, made once, before anything is changed.

Every message names the argument, what came and what was expected. Arrays leave here as the kernels need them:
native byte order, aligned, C-contiguous, writable as seen by the compiler, finite.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hotloop.kernels.inference import all_finite


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """One of a few names; an unknown one is answered with the nearest."""
    known = list(options)
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}: got {value!r}{hint} Expected one of {', '.join(known)}.")


def integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """A whole number within bounds; booleans are refused."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected a whole number.")
    if value < least or (most is not None and value > most):
        bound = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name}: got {value}, expected {bound}.")
    return int(value)


def number(name: str, value: object, least: float, most: float = math.inf, *, open_below: bool = False) -> float:
    """A finite real number within bounds; open_below excludes the lower one."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected a number.")
    try:
        real = float(value)
    except OverflowError:  # a whole number beyond the range of floating point
        real = math.inf
    inside = least < real <= most if open_below else least <= real <= most
    if not math.isfinite(real) or not inside:
        low = f"more than {least:g}" if open_below else f"at least {least:g}"
        low = "a finite number" if math.isinf(least) else low
        raise ValueError(f"{name}: got {value}, expected {low}{'' if math.isinf(most) else f' and at most {most:g}'}.")
    return real


def boolean(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected True or False.")
    return bool(value)


def float_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """float32 or float64."""
    try:
        dtype = np.dtype(object if value is None else value)
    except TypeError:
        dtype = np.dtype(object)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"{name}: got {value!r}, expected 'float32' or 'float64'.")
    return dtype.newbyteorder("=")


class _Alias:
    """The memory of a read-only array, declared writable: Numba would compile every kernel a second time for it."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.base = array
        self.__array_interface__ = dict(array.__array_interface__, data=(array.ctypes.data, False))


def for_kernels(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """The array itself if it is native, aligned, C-contiguous and of this dtype, else a copy that is."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        ready = np.require(array, np.dtype(dtype).newbyteorder("="), ["C", "A"])
    return ready if ready.flags.writeable else np.asarray(_Alias(ready))


def numeric(name: str, value: ArrayLike) -> NDArray[Any]:
    """An array of booleans, whole or real numbers."""
    if hasattr(value, "tocsr"):
        raise TypeError(f"{name}: got a sparse matrix, expected a dense array; pass {name}.toarray().")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, got rows of different lengths ({error}).") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got dtype {array.dtype}, expected numbers.")
    return array


def finite(name: str, array: NDArray[Any], given: NDArray[Any]) -> None:
    """Refuse NaN and infinity, naming the first place; `given` is the array before its conversion."""
    if array.size and not all_finite(array.reshape(-1)):
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        came = given[place] if given.shape == array.shape else array[place]
        large = f", too large for {array.dtype}" if np.isfinite(came) else ""
        raise ValueError(f"{name}: got {came} at {list(place)}{large}; expected finite numbers only.")


def samples(name: str, value: ArrayLike, columns: int) -> NDArray[Any]:
    """Samples by features, at least one row, of any kind of numbers."""
    given = numeric(name, value)
    if given.ndim == 1 and columns > 1 and given.shape[0] == columns:
        raise ValueError(f"{name}: got shape {given.shape}, one row; expected (n_samples, {columns}): {name}[None, :].")
    if given.ndim != 2 or given.shape[1] != columns:
        raise ValueError(f"{name}: got shape {given.shape}, expected (n_samples, {columns}).")
    if given.shape[0] == 0:
        raise ValueError(f"{name}: got no rows, expected at least one.")
    return given


def matrix(name: str, value: ArrayLike, columns: int, dtype: DTypeLike) -> NDArray[Any]:
    """Samples by features, at least one row, finite, in the dtype of the model."""
    given = samples(name, value, columns)
    array = for_kernels(given, dtype)
    finite(name, array, given)
    return array
