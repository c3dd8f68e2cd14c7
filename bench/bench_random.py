"""Random numbers against numpy.random on its own Philox: other numbers of the same kind, so their statistics agree."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels import random

Array = NDArray[Any]
Compare = Callable[..., None]

N = 65_536
GENERATOR = np.random.Generator(np.random.Philox(0))


@numba.njit
def fill_philox(out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0] // 4):
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = random.philox(i, 0, 0, 1, 2, 3)


@numba.njit
def fill_words(out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0] // 2):
        out[2 * i], out[2 * i + 1] = random.words(0, 1, 2, i)


@numba.njit
def fill_uniform_pairs(out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0] // 2):
        out[2 * i], out[2 * i + 1] = random.uniform(0, 1, 2, i)


def alike(ours: list[Array], theirs: list[Array]) -> None:
    """Mean and deviation of both fillings agree to a few standard errors."""
    a, b = ours[0].astype(float), theirs[0].astype(float)
    assert abs(a.mean() - b.mean()) < 6 * b.std() * np.sqrt(2 / b.size)
    assert abs(a.std() - b.std()) < 6 * b.std() * np.sqrt(2 / b.size)


def permuted(ours: list[Array], theirs: list[Array]) -> None:
    for order in (ours[0], theirs[0]):
        assert not np.array_equal(order, np.arange(len(order)))
        np.testing.assert_array_equal(np.sort(order), np.arange(len(order)))


def test_philox(compare: Compare) -> None:
    def numpy(out: Array) -> None:
        out[:] = GENERATOR.integers(0, 2**32, out.size, dtype=np.uint32)

    compare(f"philox, {N:,} words of 32 bits", fill_philox, numpy, np.zeros(N, np.uint32), same=alike)


def test_words(compare: Compare) -> None:
    def numpy(out: Array) -> None:
        out[:] = GENERATOR.bit_generator.random_raw(out.size)

    compare(f"words, {N:,} of 64 bits", fill_words, numpy, np.zeros(N, np.uint64), same=alike)


def test_uniform(compare: Compare) -> None:
    def numpy(out: Array) -> None:
        GENERATOR.random(out=out)

    compare(f"uniform, {N:,} float64", fill_uniform_pairs, numpy, np.zeros(N), same=alike)


@pytest.mark.parametrize("n", [1_797, 60_000])
def test_permutation(compare: Compare, n: int) -> None:
    def ours(out: Array) -> None:
        random.permutation(0, 0, out)

    def numpy(out: Array) -> None:
        out[:] = GENERATOR.permutation(len(out))

    compare(f"permutation {n:,}", ours, numpy, np.zeros(n, np.int64), same=permuted)


def test_fill_uniform(compare: Compare) -> None:
    def ours(out: Array) -> None:
        random.fill_uniform(0, 0, 0.1, out)

    def numpy(out: Array) -> None:
        out[:] = GENERATOR.uniform(-0.1, 0.1, out.shape)

    compare("fill_uniform 784x128 float32", ours, numpy, np.zeros((784, 128), np.float32), same=alike)


def test_fill_normal(compare: Compare) -> None:
    def ours(out: Array) -> None:
        random.fill_normal(0, 0, 0.1, out)

    def numpy(out: Array) -> None:
        out[:] = GENERATOR.normal(0, 0.1, out.shape)

    compare("fill_normal 784x128 float32", ours, numpy, np.zeros((784, 128), np.float32), same=alike)
