"""Sparse row kernels against NumPy's indexing, on a row of 784 pixels of which a fifth is not zero."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels import sparse

Array = NDArray[Any]
Compare = Callable[..., None]

widths = pytest.mark.parametrize("fan_out", [10, 32, 128, 512])


def pixels(n: int = 784) -> Array:
    rng = np.random.default_rng(0)
    return (rng.random(n) * (rng.random(n) < 0.2)).astype(np.float32)


def layer(fan_out: int) -> tuple[Array, Array, Array, Array, Array]:
    """index, value, weight, a small delta and an empty row of the outputs."""
    x, rng = pixels(), np.random.default_rng(1)
    index = np.flatnonzero(x).astype(np.int32)
    weight = rng.normal(size=(len(x), fan_out)).astype(np.float32)
    delta = (1e-6 * rng.normal(size=fan_out)).astype(np.float32)
    return index, x[index], weight, delta, np.zeros(fan_out, np.float32)


@pytest.mark.parametrize("n", [32, 784])
def test_compact(compare: Compare, n: int) -> None:
    x = pixels(n)

    def same(ours: list[Array], theirs: list[Array]) -> None:
        count = int(ours[-1])
        for a, b in zip(ours[1:3], theirs[-2:], strict=True):
            np.testing.assert_array_equal(a[:count], b)

    def ours(x: Array, index: Array, value: Array) -> int:
        return sparse.compact(x, n, index, value)

    def numpy(x: Array, index: Array, value: Array) -> tuple[Array, Array]:
        found = np.flatnonzero(x)
        return found, x[found]

    compare(f"compact {n}", ours, numpy, x, np.zeros(n, np.int32), np.zeros(n, np.float32), same=same)


@widths
def test_forward_row(compare: Compare, fan_out: int) -> None:
    index, value, weight, _, out = layer(fan_out)
    bias = np.ones(fan_out, np.float32)

    def ours(index: Array, value: Array, weight: Array, bias: Array, out: Array) -> None:
        sparse.forward_row(index, value, len(index), weight, bias, out)

    def numpy(index: Array, value: Array, weight: Array, bias: Array, out: Array) -> None:
        np.matmul(value, weight[index], out=out)
        np.add(out, bias, out=out)

    compare(f"sparse forward_row 784x{fan_out}", ours, numpy, index, value, weight, bias, out)


@widths
def test_update_row(compare: Compare, fan_out: int) -> None:
    index, value, weight, delta, _ = layer(fan_out)

    def ours(index: Array, value: Array, delta: Array, weight: Array) -> None:
        sparse.update_row(index, value, len(index), delta, weight)

    def numpy(index: Array, value: Array, delta: Array, weight: Array) -> None:
        weight[index] += np.outer(value, delta)

    compare(f"sparse update_row 784x{fan_out}", ours, numpy, index, value, delta, weight)
