"""Rows divided into parts: training and test, or training, validation and test, or any number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import check


def partition(
    *arrays: Any,
    fractions: Sequence[float] = (0.8, 0.2),
    seed: int = 0,
    shuffle: bool = True,
    stratify: ArrayLike | None = None,
) -> list[tuple[Any, ...]]:
    """Divide the rows of one or more arrays into parts of the given fractions, all arrays alike.

    >>> (X_train, y_train), (X_val, y_val), (X_test, y_test) = partition(X, y, fractions=(0.6, 0.2, 0.2), stratify=y)

    arrays     arrays, sparse matrices, pandas or polars frames, lists: (n_samples, ...) each. Parts keep their kind
               (a list becomes an array, a sparse matrix a CSR matrix); nothing is written in place, nothing made dense
    fractions  of the rows, that sum to 1; every part has its rounded share, the first one what is left
    seed       of the shuffle; the same seed gives the same rows everywhere. shuffle=False leaves the order as it is
    stratify   one class per row (n_samples,): every part gets its share of each class, to within a row for two parts,
               and a row more for each further part: parts are set aside one after the other, each to within a row of
               what is left

    Returns one tuple for each part, with its rows of every array. Raises ValueError or TypeError where lengths differ,
    fractions do not sum to 1 or a part would be empty.
    """
    n = _rows(arrays)
    sizes = _sizes(n, fractions)
    check.boolean("shuffle", shuffle)
    codes = None if stratify is None else _codes(stratify, n)
    chosen = divide(n, sizes, check.integer("seed", seed, 0), shuffle, codes)
    whole = [array.tocsr() if hasattr(array, "tocsr") else array for array in arrays]
    return [tuple(_take(array, rows) for array in whole) for rows in chosen]


def divide(
    n: int, sizes: Sequence[int], seed: int, shuffle: bool = True, codes: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Row numbers of each part; sizes sum to n, codes (n,) are the class numbers to stratify by."""
    order = np.arange(n)
    if shuffle:
        # A bit generator's raw stream is fixed for ever; the shuffles of numpy.random.Generator may change with NumPy.
        order = np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")
    parts = []
    for size in reversed(sizes[1:]):  # the last part is set aside first, then the one before it from what is left
        inside = _aside(order, size, shuffle, codes)
        parts.append(order[inside])
        order = order[~inside]
    return [order, *reversed(parts)]


def _aside(order: NDArray[np.int64], size: int, shuffle: bool, codes: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Which places of the order belong to a part of so many rows."""
    n, places = len(order), np.arange(len(order))
    if codes is None:
        return places < size if shuffle else places >= n - size
    inside = np.zeros(n, dtype=bool)
    by_class = np.argsort(codes[order], kind="stable")
    inside[by_class[(places + 1) * size // n > places * size // n]] = True  # every n/size-th row, class after class
    return inside


def _rows(arrays: Sequence[Any]) -> int:
    if not arrays:
        raise ValueError("arrays: got none, expected one or more to divide.")
    lengths = [array.shape[0] if getattr(array, "shape", ()) else _length(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"arrays: got {', '.join(map(str, lengths))} rows, expected as many in each.")
    return int(lengths[0])


def _length(array: Any) -> int:
    if not isinstance(array, list | tuple):
        raise TypeError(f"arrays: got {type(array).__name__}, expected arrays or other rows (n_samples, ...).")
    return len(array)


def _sizes(n: int, fractions: Sequence[float]) -> list[int]:
    """Rows of each part."""
    if not isinstance(fractions, list | tuple) or len(fractions) < 2:
        raise ValueError(f"fractions: got {fractions!r}, expected two or more, such as (0.6, 0.2, 0.2).")
    for i, fraction in enumerate(fractions):
        check.number(f"fractions[{i}]", fraction, 0.0, 1.0, open_below=True)
    if abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: got {tuple(fractions)}, which sum to {sum(fractions):g}, expected 1.")
    rest = [round(n * fraction) for fraction in fractions[1:]]
    sizes = [n - sum(rest), *rest]
    if min(sizes) <= 0:
        raise ValueError(f"fractions: {tuple(fractions)} of {n} rows leave part {np.argmin(sizes)} empty.")
    return sizes


def _codes(stratify: ArrayLike, n: int) -> NDArray[np.int64]:
    """Class numbers of any classes: numbers, text."""
    classes = np.asarray(stratify)
    if classes.shape != (n,):
        raise ValueError(f"stratify: got shape {classes.shape}, expected one class per row, ({n},).")
    try:
        return np.unique(classes, return_inverse=True)[1].astype(np.int64)
    except TypeError:
        raise TypeError("stratify: got classes that cannot be ordered, expected all numbers or all text.") from None


def _take(array: Any, rows: NDArray[np.int64]) -> Any:
    if hasattr(array, "iloc"):
        return array.iloc[rows]
    return array[rows] if hasattr(array, "shape") else np.asarray(array)[rows]
