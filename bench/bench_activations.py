"""Activation functions against NumPy, value alone and value with slope, over 4,096 numbers; softmax over one row."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels import activations

Array = NDArray[Any]
Compare = Callable[..., None]

N = 4096
NAMES = [name for name in activations.CODES if name != "softmax"]


def logistic(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def normal_cdf(z: Array) -> Array:
    return pytest.importorskip("scipy.special", reason="NumPy has no normal_cdf, SciPy has").ndtr(z)


def normal_pdf(z: Array) -> Array:
    return np.exp(-0.5 * z * z) / np.float32(math.sqrt(2 * math.pi))


VALUES: dict[str, Callable[[Array], Array]] = {
    "identity": np.copy,
    "step": lambda z: (z > 0).astype(z.dtype),
    "sigmoid": logistic,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, np.float32(0.01) * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "gelu": lambda z: z * normal_cdf(z),
    "silu": lambda z: z * logistic(z),
    "softplus": lambda z: np.logaddexp(0, z),
}
# Slopes from the value a where that is cheaper, as one would write it.
SLOPES: dict[str, Callable[[Array, Array], Array]] = {
    "identity": lambda z, a: np.ones_like(z),
    "step": lambda z, a: np.zeros_like(z),
    "sigmoid": lambda z, a: a * (1 - a),
    "tanh": lambda z, a: 1 - a * a,
    "relu": lambda z, a: (z > 0).astype(z.dtype),
    "leaky_relu": lambda z, a: np.where(z > 0, np.float32(1), np.float32(0.01)),
    "elu": lambda z, a: np.where(z > 0, np.float32(1), a + 1),
    "gelu": lambda z, a: normal_cdf(z) + z * normal_pdf(z),
    "silu": lambda z, a: logistic(z) * (1 + z - a),
    "softplus": lambda z, a: logistic(z),
}


def numbers(n: int = N) -> Array:
    return np.random.default_rng(0).normal(0, 3, n).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_apply(compare: Compare, name: str) -> None:
    code, formula = activations.CODES[name], VALUES[name]

    def ours(z: Array, a: Array) -> None:
        activations.apply(code, z, N, a)

    def numpy(z: Array, a: Array) -> None:
        a[:] = formula(z)

    compare(f"apply {name}", ours, numpy, numbers(), np.zeros(N, np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_value_and_slope(compare: Compare, name: str) -> None:
    code, formula, derivative = activations.CODES[name], VALUES[name], SLOPES[name]

    def ours(z: Array, a: Array, slope: Array) -> None:
        activations.value_and_slope(code, z, N, a, slope)

    def numpy(z: Array, a: Array, slope: Array) -> None:
        a[:] = formula(z)
        slope[:] = derivative(z, a)

    compare(f"value_and_slope {name}", ours, numpy, numbers(), np.zeros(N, np.float32), np.zeros(N, np.float32))


@pytest.mark.parametrize("k", [10, 1000])
def test_softmax(compare: Compare, k: int) -> None:
    def ours(z: Array, a: Array) -> None:
        activations.softmax(z, k, a)

    def numpy(z: Array, a: Array) -> None:
        np.exp(z - z.max(), out=a)
        np.divide(a, a.sum(), out=a)

    def same(ours: list[Array], theirs: list[Array]) -> None:
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-7)

    compare(f"softmax {k}", ours, numpy, numbers(k), np.zeros(k, np.float32), same=same)
