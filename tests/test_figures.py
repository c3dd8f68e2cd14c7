"""The compiled accuracy and r2, against NumPy's."""

from typing import Any

import numba
import numpy as np
import pytest
import reference

from hotloop.kernels import figures

Array = np.ndarray
RNG = np.random.default_rng(6)
SIZES = [(1, 1), (2, 1), (15, 3), (16, 2), (17, 16), (1000, 10)]
NO_LABELS = np.zeros(0, np.int32)


@numba.njit
def figure(decision: Any, outputs: Any, targets: Any, labels: Any, bound: Any, target_bound: Any) -> Any:
    return figures.figure(decision, outputs, targets, labels, bound, target_bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_r2_agrees_with_the_twin(n: int, k: int, dtype: str) -> None:
    targets = RNG.normal(3.0, 2.0, (n, k)).astype(dtype)
    outputs = (targets + RNG.normal(0.0, 1.0, (n, k))).astype(dtype)
    expected = reference.r2(outputs, targets)
    assert figures.r2(outputs, targets) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert figure(figures.VALUE, outputs, targets, NO_LABELS, 0.0, 0.0) == figures.r2(outputs, targets)
    assert figures.r2(outputs, targets) == figures.r2(outputs.astype(float), targets.astype(float))


def test_r2_where_all_are_equal_or_right() -> None:
    y = RNG.normal(size=(9, 2))
    assert figures.r2(y, y) == 1.0 and figures.r2(y, np.ones((9, 2))) == 0.0
    mixed = np.column_stack((y[:, 0], np.ones(9)))
    assert figures.r2(mixed, mixed) == 0.5
    assert np.isnan(figures.r2(np.full((9, 2), np.nan), y))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_the_largest_output_is_the_class(n: int, k: int, dtype: str) -> None:
    outputs = RNG.integers(0, 4, (n, k)).astype(dtype)  # many are equal: the first counts
    labels = RNG.integers(0, k, n).astype(np.int32)
    expected = (outputs.argmax(axis=1) == labels).mean()
    assert figure(figures.ARGMAX, outputs, outputs[:0], labels, 0.0, 0.0) == expected
    targets = RNG.integers(0, 4, (n, k)).astype(dtype)
    expected = (outputs.argmax(axis=1) == targets.argmax(axis=1)).mean()
    assert figure(figures.ARGMAX, outputs, targets, NO_LABELS, 0.0, 0.0) == expected


def test_nan_counts_as_the_largest_as_in_numpy() -> None:
    outputs = np.array([[1.0, np.nan, 2.0], [np.nan, 3.0, 1.0], [1.0, 2.0, np.nan]])
    assert figure(figures.ARGMAX, outputs, outputs[:0], np.array([1, 0, 2], np.int32), 0.0, 0.0) == 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("bound", "target_bound"), [(0.0, 0.5), (0.5, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_what_is_above_a_bound_is_true(n: int, k: int, bound: float, target_bound: float, dtype: str) -> None:
    outputs = (RNG.integers(-2, 3, (n, k)) / 2).astype(dtype)  # some lie on the bound
    targets = (RNG.integers(-2, 3, (n, k)) / 2).astype(dtype)
    expected = ((outputs > bound) == (targets > target_bound)).mean()
    assert figure(figures.THRESHOLD, outputs, targets, NO_LABELS, bound, target_bound) == expected
