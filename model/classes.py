"""Values of classes: text or numbers that stand for the class numbers 0 .. k-1 of a model."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import tables


def checked(name: str, values: ArrayLike, count: int) -> NDArray[Any]:
    """`count` distinct values, all text or all numbers, as an array that is not to be written to."""
    if not hasattr(values, "__len__") or isinstance(values, str):
        raise TypeError(f"{name}: got {values!r}, expected {count} values, text or numbers.")
    array = np.array(tables.distinct(name, tables.plain(values)))
    if len(array) != count:
        raise ValueError(
            f"{name}: got {len(array)} classes ({_some(array)}), expected {count}, as many as the outputs tell apart."
        )
    array.flags.writeable = False
    return array


def text(y: ArrayLike) -> bool:
    """Whether y holds values of classes that are no numbers."""
    return not hasattr(y, "tocsr") and _kind(y) not in "biufc"


def learn(name: str, y: ArrayLike, count: int) -> NDArray[Any]:
    """The `count` distinct values of y, sorted."""
    return checked(name, sorted(set(_flat(name, y))), count)


def encode(name: str, y: ArrayLike, classes: NDArray[Any]) -> NDArray[np.int64]:
    """The class number of each value of y (n,) or (n, 1)."""
    values = _flat(name, y)
    places = {value: place for place, value in enumerate(classes.tolist())}
    codes = np.array([places.get(value, -1) for value in values], np.int64)
    if (codes < 0).any():
        at = int(np.argmin(codes))
        raise ValueError(f"{name}: got {values[at]!r} at [{at}], expected one of the classes {_some(classes)}.")
    return codes


def _kind(y: Any) -> str:
    """The kind of dtype of y; "O" for what NumPy makes no array of."""
    try:
        return np.asarray(y).dtype.kind
    except ValueError:  # rows of different lengths
        return "f"  # numbers, for all we know: check.numeric tells


def _flat(name: str, y: Any) -> list[Any]:
    """The values of y (n,) or (n, 1), all text or all numbers, none missing."""
    shape = np.shape(y)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise ValueError(f"{name}: got shape {shape}, expected one class for each row, (n,).")
    values = tables.plain(y if len(shape) == 1 else np.asarray(y).reshape(-1))
    for i, value in enumerate(values):
        if not isinstance(value, str | bool | int | float):
            raise ValueError(f"{name}: got {value!r} at [{i}], expected a class, text or a number.")
    tables.distinct(name, list(dict.fromkeys(values)))
    return values


def _some(classes: NDArray[Any]) -> str:
    """The first few, for a message."""
    return ", ".join(map(repr, classes[:8].tolist())) + (", ..." if len(classes) > 8 else "")
