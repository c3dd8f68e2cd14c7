"""Elementary functions in a loop against NumPy's (SciPy's for normal_cdf), over 4,096 numbers."""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels import scalar

Array = NDArray[Any]
Compare = Callable[..., None]

N = 4096


def sigmoid(x: Array, out: Array) -> None:
    np.exp(np.negative(x, out=out), out=out)
    np.divide(1, np.add(out, 1, out=out), out=out)


def softplus(x: Array, out: Array) -> None:
    np.logaddexp(0, x, out=out)


def normal_pdf(x: Array, out: Array) -> None:
    np.multiply(x, x, out=out)
    np.exp(np.multiply(out, -0.5, out=out), out=out)
    np.multiply(out, 1 / math.sqrt(2 * math.pi), out=out)


def normal_cdf(x: Array, out: Array) -> None:
    special = pytest.importorskip("scipy.special", reason="NumPy has no normal_cdf, SciPy has")
    special.ndtr(x, out=out)


def ufunc(function: Any) -> Callable[[Array, Array], None]:
    def over(x: Array, out: Array) -> None:
        function(x, out=out)

    return over


FUNCTIONS: dict[str, Callable[[Array, Array], None]] = {
    "exp": ufunc(np.exp),
    "expm1": ufunc(np.expm1),
    "log": ufunc(np.log),
    "log1p": ufunc(np.log1p),
    "tanh": ufunc(np.tanh),
    "sigmoid": sigmoid,
    "softplus": softplus,
    "normal_pdf": normal_pdf,
    "normal_cdf": normal_cdf,
}


def loop(name: str) -> Callable[[Array, Array], None]:
    function = getattr(scalar, name)

    @numba.njit(error_model="numpy")
    def over(x, out):  # type: ignore[no-untyped-def]
        for i in range(x.shape[0]):
            out[i] = function(x[i])

    return over


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scalar(compare: Compare, name: str, dtype: str) -> None:
    x = np.random.default_rng(0).normal(0, 2, N)
    x = (np.abs(x) if name.startswith("log") else x).astype(dtype)
    compare(f"{name} {dtype}", loop(name), FUNCTIONS[name], x, np.zeros_like(x))
