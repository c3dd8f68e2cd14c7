"""Vectors as values of kernels: lane by lane what NumPy gives, and what `scalar` gives for each number."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from hotloop.kernels import scalar, vectors
from hotloop.kernels.jit import jit
from hotloop.kernels.scalar import select
from hotloop.kernels.simd import bits_to_float, cast, float_to_bits, fma, pointer

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def sample(dtype: str, seed: int = 0) -> np.ndarray[Any, Any]:
    """16 numbers of both signs, with a pair of equal ones, zeros and infinities."""
    values = np.random.default_rng(seed).normal(scale=3, size=16).astype(dtype)
    values[[3, 5, 7, 8, 9]] = 0.0, -0.0, np.inf, -np.inf, 1.5
    return values


def of_two(function: Callable[..., Any]) -> Any:
    @njit
    def run(a: Any, b: Any, out: Any) -> None:
        vectors.store(function(vectors.load(pointer(a, 0)), vectors.load(pointer(b, 0))), pointer(out, 0))

    return run


ARITHMETIC = {
    operator.add: njit(lambda a, b: a + b),
    operator.sub: njit(lambda a, b: a - b),
    operator.mul: njit(lambda a, b: a * b),
    operator.truediv: njit(lambda a, b: a / b),
}
COMPARISONS = {
    operator.lt: njit(lambda a, b: select(a < b, cast(1.0, a), cast(0.0, a))),
    operator.le: njit(lambda a, b: select(a <= b, cast(1.0, a), cast(0.0, a))),
    operator.gt: njit(lambda a, b: select(a > b, cast(1.0, a), cast(0.0, a))),
    operator.eq: njit(lambda a, b: select(a == b, cast(1.0, a), cast(0.0, a))),
}


@both
@pytest.mark.parametrize("symbol", [*ARITHMETIC, *COMPARISONS])
def test_operators_work_lane_by_lane(symbol: Any, dtype: str) -> None:
    a, b, out = sample(dtype), sample(dtype, 1), np.empty(16, dtype)
    b[9], b[2] = 1.5, np.nan
    of_two(ARITHMETIC.get(symbol) or COMPARISONS[symbol])(a, b, out)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out, symbol(a, b).astype(dtype))


@jit
def formulas(a, out):  # type: ignore[no-untyped-def]
    x = vectors.load(pointer(a, 0))
    vectors.store(scalar.exp(x), pointer(out, 0))
    vectors.store(fma(x, cast(0.3, x), cast(0.1, x)), pointer(out, 16))
    vectors.store(bits_to_float(float_to_bits(x)), pointer(out, 32))


@jit
def formulas_of_each(a, out):  # type: ignore[no-untyped-def]
    for i in range(16):
        out[i] = scalar.exp(a[i])
        out[16 + i] = fma(a[i], cast(0.3, a[i]), cast(0.1, a[i]))
        out[32 + i] = a[i]


@both
@pytest.mark.parametrize("spread", [1.0, 100.0, 1000.0])
def test_formulas_have_the_bits_they_have_for_one_number(spread: float, dtype: str) -> None:
    a = (sample(dtype) * spread).astype(dtype)
    a[12] = np.nan
    out, each = np.empty(48, dtype), np.empty(48, dtype)
    formulas(a, out)
    formulas_of_each(a, each)
    np.testing.assert_array_equal(out, each)


@jit
def largest(a, k, out):  # type: ignore[no-untyped-def]
    x, lane = vectors.load(pointer(a, 0)), vectors.lanes()
    found = vectors.largest_lane(select(lane < cast(k, lane), x, cast(-np.inf, x)))
    out[0] = vectors.first_lane(found)
    vectors.store(found, pointer(out, 1))


@both
def test_every_lane_has_the_largest(dtype: str) -> None:
    a, out = sample(dtype), np.empty(17, dtype)
    a[7] = 2.0
    for k in range(1, 17):
        largest(a, k, out)
        assert (out == a[:k].max()).all()
