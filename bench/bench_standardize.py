"""Standardising against NumPy: all rows, and one row as predict_one needs it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels.standardize import standardize, standardize_row

Array = NDArray[Any]
Compare = Callable[..., None]


@pytest.mark.parametrize(("rows", "columns"), [(10_000, 20), (10_000, 784)])
def test_standardize(compare: Compare, rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    X, shift, inverse = rng.normal(size=(rows, columns)).astype(np.float32), rng.random(columns), rng.random(columns)

    def ours(X: Array, out: Array) -> None:
        standardize(X, shift, inverse, out)

    def numpy(X: Array, out: Array) -> None:
        out[:] = (X - shift) * inverse

    compare(f"standardize {rows:,}x{columns}", ours, numpy, X, np.empty_like(X), n=rows * columns)


def test_standardize_row(compare: Compare) -> None:
    rng = np.random.default_rng(0)
    x, shift, inverse = rng.normal(size=20).astype(np.float32), rng.random(20), rng.random(20)

    def ours(x: Array, out: Array) -> None:
        standardize_row(x, shift, inverse, out)

    def numpy(x: Array, out: Array) -> None:
        out[:] = (x - shift) * inverse

    compare("standardize_row 20", ours, numpy, x, np.empty_like(x))
