"""Scalar functions against NumPy in twice the precision: error in units of the last place, special values, order."""

import math
from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hotloop.kernels import scalar

Array = npt.NDArray[np.floating]
WIDER = {"float32": np.float64, "float64": np.longdouble}
# Where long double is no wider than float64 (Windows, macOS on ARM), the reference itself errs by some ulp.
SLACK = {"float32": 0.0, "float64": 0.0 if np.finfo(np.longdouble).nmant > 60 else 2.5}


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _normal_pdf(x: Array) -> Array:
    return np.exp(-x * x / 2) / np.sqrt(2 * np.longdouble("3.14159265358979323846264338327950288")).astype(x.dtype)


# name: (reference, largest error allowed in ulp)
FUNCTIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "exp": (np.exp, 1.0),
    "expm1": (np.expm1, 2.0),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 2.0),
    "tanh": (np.tanh, 2.0),
    "sigmoid": (_sigmoid, 2.0),
    "softplus": (_softplus, 2.0),
    "normal_pdf": (_normal_pdf, 3.0),
}
KEEP_SUBNORMALS = ("expm1", "log1p", "tanh")

each = pytest.mark.parametrize("name", [*FUNCTIONS, "normal_cdf"])
both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def _loop(name: str) -> Callable[[Array, Array], None]:
    function = getattr(scalar, name)

    @numba.njit(error_model="numpy")
    def loop(x, out):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


LOOPS = {name: _loop(name) for name in [*FUNCTIONS, "normal_cdf"]}


def apply(name: str, x: Array) -> Array:
    """The function in a loop that LLVM vectorises."""
    out = np.empty_like(x)
    LOOPS[name](x, out)
    return out


def arguments(dtype: str) -> Array:
    """Normal numbers of several widths, magnitudes from tiny to overflow, neighbours of 1, and random bits."""
    rng = np.random.default_rng(5)
    integer = np.uint32 if dtype == "float32" else np.uint64
    largest = math.log10(float(np.finfo(dtype).max))
    x = np.concatenate(
        [rng.normal(0, width, 20_000) for width in (0.01, 0.3, 1, 4, 15, 40, 300)]
        + [sign * 10 ** rng.uniform(-largest, largest, 20_000) for sign in (-1, 1)]
        + [1 + rng.normal(0, 0.01, 20_000), np.linspace(-110, 110, 20_001), np.arange(-30, 30, 1 / 64)]
    ).astype(dtype)
    bits = rng.integers(0, np.iinfo(integer).max, 100_000, dtype=integer, endpoint=True).view(dtype)
    return np.concatenate([x, bits[~np.isnan(bits)]])


def ulps(result: Array, expected: Array) -> Array:
    """Distance in units of the last place of the expected value, rounded to the dtype of the result."""
    return np.abs(result - expected) / np.spacing(np.abs(expected).astype(result.dtype))


@both
@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(name: str, dtype: str) -> None:
    """Within the stated ulp over the full range; the flush to zero begins where the normal numbers end."""
    x = arguments(dtype)
    reference, limit = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        expected, result = reference(x.astype(WIDER[dtype])), apply(name, x)
        rounded = expected.astype(dtype)
        tiny = np.finfo(dtype).tiny
        assert_array_equal(np.isnan(result), np.isnan(rounded))
        assert_array_equal(result[np.isinf(rounded)], rounded[np.isinf(rounded)])
        normal = np.isfinite(rounded) & (np.abs(expected) >= tiny)
        error = ulps(result[normal], expected[normal])
    worst = int(np.argmax(error))
    assert error[worst] <= limit + SLACK[dtype], f"{name}({x[normal][worst]!r}) is off by {error[worst]:.2f} ulp"
    below = np.abs(expected) < tiny
    if name in KEEP_SUBNORMALS:
        assert_allclose(result[below], rounded[below], rtol=0, atol=float(np.spacing(tiny)))
    else:
        assert np.all((result[below] == 0) | (result[below] == tiny))


@both
def test_normal_cdf(dtype: str) -> None:
    """Relative accuracy down to the smallest normal number; reference: erfc of the C library."""
    lowest = -12.8 if dtype == "float32" else -37.4
    x = np.concatenate([np.linspace(lowest, 9, 20_001), np.geomspace(1e-18, 1, 500), -np.geomspace(1e-18, 1, 500)])
    x = x.astype(dtype)
    # erfc of the rounded u = x/sqrt(2) is too coarse in the tail: add its first-order term for what the rounding left.
    u = -x.astype(np.float64) / math.sqrt(2)
    rest = (-x.astype(np.longdouble) / np.sqrt(np.longdouble(2)) - u).astype(np.float64)
    expected = np.array([math.erfc(v) for v in u]) / 2 - np.exp(-u * u) / math.sqrt(math.pi) * rest
    limit = 5.0 if dtype == "float32" else 8.0  # in float64, erfc has some ulp of its own
    assert ulps(apply("normal_cdf", x), expected).max() <= limit
    far = np.array([-1e9, -100, -40, 0, 10, 40, 1e9], dtype)
    assert_array_equal(apply("normal_cdf", far), np.array([0, 0, 0, 0.5, 1, 1, 1], dtype))


@both
def test_normal_cdf_known_values(dtype: str) -> None:
    """Values in 20 digits, as computed by mpmath."""
    known = {
        -1.0: 0.15865525393145705142,
        -2.5: 0.0062096653257761351670,
        -6.0: 9.8658764503769814070e-10,
        -10.0: 7.6198530241605260660e-24,
        0.25: 0.59870632568292372542,
        1.0: 0.84134474606854294859,
        3.0: 0.99865010196836990547,
    }
    x, expected = np.array(list(known), dtype), np.array(list(known.values()))
    assert ulps(apply("normal_cdf", x), expected).max() <= 5


SPECIAL = {  # name: values at -inf, -0, 0, inf
    "exp": (0.0, 1.0, 1.0, math.inf),
    "expm1": (-1.0, 0.0, 0.0, math.inf),
    "log": (math.nan, -math.inf, -math.inf, math.inf),
    "log1p": (math.nan, 0.0, 0.0, math.inf),
    "tanh": (-1.0, -0.0, 0.0, 1.0),
    "sigmoid": (0.0, 0.5, 0.5, 1.0),
    "softplus": (0.0, math.log(2), math.log(2), math.inf),
    "normal_pdf": (0.0, 1 / math.sqrt(2 * math.pi), 1 / math.sqrt(2 * math.pi), 0.0),
    "normal_cdf": (0.0, 0.5, 0.5, 1.0),
}


@both
@each
def test_special_values(name: str, dtype: str) -> None:
    """Infinities, zeros, and NaN of any sign and payload."""
    x = np.array([-np.inf, -0.0, 0.0, np.inf], dtype)
    assert_array_equal(apply(name, x), np.array(SPECIAL[name], dtype))
    integer = np.int32 if dtype == "float32" else np.int64
    infinity = int(np.array(np.inf, dtype).view(integer))
    payloads = np.array([infinity + 1, infinity + 12345, np.iinfo(integer).max, -1], integer).view(dtype)
    assert np.isnan(apply(name, payloads)).all()


@both
def test_ends_of_the_range(dtype: str) -> None:
    """The last arguments that neither overflow nor underflow, exact saturation, and negative logarithms."""
    kind = np.dtype(dtype).type
    high, low = (88.72283, -87.33654) if dtype == "float32" else (709.782712893384, -708.3964185322641)
    x = np.array([high, high * 1.0001, low, low * 1.0001, 1e30, -1e30], dtype)
    result = apply("exp", x)
    assert np.isfinite(result[0]) and result[2] >= np.finfo(dtype).tiny
    assert_array_equal(result[[1, 3, 4, 5]], kind([np.inf, 0, np.inf, 0]))
    assert_array_equal(apply("tanh", np.array([-800, -20, 20, 800], dtype)), kind([-1, -1, 1, 1]))
    assert_array_equal(apply("sigmoid", np.array([-800, 800], dtype)), kind([0, 1]))
    assert np.isnan(apply("log", np.array([-1, -1e-40, -1e30], dtype))).all()
    assert_array_equal(apply("log1p", np.array([-1, -2], dtype)), kind([-np.inf, np.nan]))


@both
@pytest.mark.parametrize("name", [name for name in [*FUNCTIONS, "normal_cdf"] if name != "normal_pdf"])
def test_increasing(name: str, dtype: str) -> None:
    """Steps far wider than the rounding never lead down."""
    x = np.sort(np.concatenate([np.linspace(-100, 100, 20_001), np.linspace(-1, 1, 20_001)])).astype(dtype)
    x = x[x > 0] if name == "log" else x[x > -1] if name == "log1p" else x
    y = apply(name, x).astype(np.float64)
    assert y[-1] > y[0] and np.all(np.diff(np.isinf(y).astype(int)) >= 0)
    y = y[np.isfinite(y)]
    assert np.all(np.diff(y) >= -8 * np.finfo(dtype).eps * np.abs(y[1:]))


@both
@settings(deadline=None)  # the first example compiles
@given(value=st.floats(allow_nan=False, width=32))
def test_single_calls_and_symmetry(dtype: str, value: float) -> None:
    """A call from Python gives the value of the loop; odd and even functions are exactly so."""
    x = np.dtype(dtype).type(value)
    for name in LOOPS:
        assert_array_equal(getattr(scalar, name)(x), apply(name, np.array([x]))[0])
    assert scalar.tanh(-x) == -scalar.tanh(x)
    assert scalar.normal_pdf(-x) == scalar.normal_pdf(x)


@both
@each
def test_bits_do_not_depend_on_the_place_in_the_loop(name: str, dtype: str) -> None:
    """Vector body and scalar remainder compute the same bits."""
    x = np.random.default_rng(0).normal(0, 5, 203).astype(dtype)
    whole = apply(name, x)
    for start in (1, 7, 100, 202):
        assert_array_equal(apply(name, x[start:].copy()), whole[start:])
    assert_array_equal(np.concatenate([apply(name, x[i : i + 1]) for i in range(x.size)]), whole)
