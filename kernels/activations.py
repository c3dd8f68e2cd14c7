"""Activation functions, value and slope from one formula.

Each scalar function takes z (float32 or float64) and returns (value, slope): f(z) and df/dz, in the type of z.
NaN gives NaN. The array kernels choose by an integer code, outside their loops.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.np.numpy_support import from_dtype
from numpy.typing import DTypeLike, NDArray

from hotloop.kernels import custom, scalar
from hotloop.kernels.jit import address, apart, inner, jit
from hotloop.kernels.simd import cast

IDENTITY, STEP, SIGMOID, TANH, RELU, LEAKY_RELU, ELU, GELU, SILU, SOFTPLUS, SOFTMAX = range(11)

CODES: dict[str, int] = {
    "identity": IDENTITY,
    "step": STEP,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "elu": ELU,
    "gelu": GELU,
    "silu": SILU,
    "softplus": SOFTPLUS,
    "softmax": SOFTMAX,
}


@jit
def identity(z):
    """f(z) = z, slope 1."""
    return z, cast(1.0, z)


@jit
def step(z):
    """f(z) = 1 if z > 0 else 0, slope 0 (Rosenblatt's threshold unit)."""
    one, zero = cast(1.0, z), cast(0.0, z)
    return zero if z <= zero else (one if z > zero else z), zero


@jit
def sigmoid(z):
    """f(z) = 1 / (1 + exp(-z)), slope f (1 - f)."""
    value = scalar.sigmoid(z)
    return value, value * (cast(1.0, z) - value)


@jit
def tanh(z):
    """f(z) = tanh(z), slope (1 - f)(1 + f)."""
    value, one = scalar.tanh(z), cast(1.0, z)
    return value, (one - value) * (one + value)


@jit
def relu(z):
    """f(z) = max(z, 0), slope 1 above zero and 0 at and below (Nair and Hinton 2010)."""
    one, zero = cast(1.0, z), cast(0.0, z)
    return zero if z <= zero else z, zero if z <= zero else one


@jit
def leaky_relu(z):
    """f(z) = z above zero, else 0.01 z (Maas, Hannun and Ng 2013)."""
    one, leak = cast(1.0, z), cast(0.01, z)
    positive = z > cast(0.0, z)
    return z if positive else leak * z, one if positive else leak


@jit
def elu(z):
    """f(z) = z above zero, else exp(z) - 1, slope exp(z) (Clevert, Unterthiner and Hochreiter 2016)."""
    one, zero = cast(1.0, z), cast(0.0, z)
    half = scalar.tanh(cast(0.5, z) * (zero if z > zero else z))
    below = (half + half) / (one - half)  # exp(z) - 1 without cancellation
    return z if z > zero else below, one if z > zero else one + below


@jit
def gelu(z):
    """f(z) = z Phi(z), slope Phi(z) + z phi(z), Phi the normal distribution (Hendrycks and Gimpel 2016, exact form)."""
    cdf = scalar.normal_cdf(z)
    return z * cdf, cdf + z * scalar.normal_pdf(z)


@jit
def silu(z):
    """f(z) = z sigmoid(z), slope s (1 + z (1 - s)) (Elfwing, Uchibe and Doya 2018)."""
    s, one = scalar.sigmoid(z), cast(1.0, z)
    return z * s, s * (one + z * (one - s))


@jit
def softplus(z):
    """f(z) = log(1 + exp(z)), slope sigmoid(z)."""
    return scalar.softplus(z), scalar.sigmoid(z)


_PARTS: dict[int, tuple[Any, Any]] = {}  # for `custom`, by code: values; values and slopes


def _loops(code: int, function: Callable[..., Any]) -> tuple[Callable[..., None], Callable[..., None]]:
    """The loops of `apply` and `value_and_slope` for one activation; Numba cannot cache function arguments.

    In place: where z and a are two pointers to the same row, LLVM's check for overlap takes the loop without vectors.
    """

    @inner
    def values(z, n):
        for i in range(n):
            z[i] = function(z[i])[0]

    @inner
    def values_and_slopes(z, n, slope):
        for i in range(n):
            z[i], slope[i] = function(z[i])

    def apply(z, n):
        values(z, n)

    def activate(z, n, slope):
        values_and_slopes(z, n, slope)

    _PARTS[code] = apart(apply, function.__name__), apart(activate, function.__name__)
    return values, values_and_slopes


_identity_slope = _loops(IDENTITY, identity)[1]
_step, _step_slope = _loops(STEP, step)
_sigmoid, _sigmoid_slope = _loops(SIGMOID, sigmoid)
_tanh, _tanh_slope = _loops(TANH, tanh)
_relu, _relu_slope = _loops(RELU, relu)
_leaky_relu, _leaky_relu_slope = _loops(LEAKY_RELU, leaky_relu)
_elu, _elu_slope = _loops(ELU, elu)
_gelu, _gelu_slope = _loops(GELU, gelu)
_silu, _silu_slope = _loops(SILU, silu)
_softplus, _softplus_slope = _loops(SOFTPLUS, softplus)


_tables: dict[tuple[int, Any], NDArray[np.int64]] = {}  # addresses of the parts, by code and dtype; kept for good


def ready(code: int, dtype: DTypeLike) -> int:
    """What `activate` and `ready_apply` take for a code: most are called by address, to compile only what is used."""
    if code in (IDENTITY, RELU, SOFTMAX) or code >= custom.LEAST_CODE:
        return code
    of = code, np.dtype(dtype)
    if of not in _tables:
        kinds = custom.activation_kinds(from_dtype(of[1]))
        made = np.array([address(part, *kind) for part, kind in zip(_PARTS[code], kinds, strict=True)])
        _tables.setdefault(of, made)  # another thread may have been faster
    return int(_tables[of].ctypes.data)


@jit
def apply(code, z, n, a):
    """a[i] = f(z[i]) for i < n; z, a: vectors (or pointers), a may be z. SOFTMAX is left to `softmax`: a = z."""
    for i in range(n):
        a[i] = z[i]
    apply_in_place(code, a, n)


@jit
def apply_in_place(code, a, n):
    """a[i] = f(a[i]) for i < n; a: a vector (or pointer). SOFTMAX is left to `softmax`."""
    if code == RELU:
        _relu(a, n)
    elif code == SIGMOID:
        _sigmoid(a, n)
    elif code == TANH:
        _tanh(a, n)
    elif code == STEP:
        _step(a, n)
    elif code == LEAKY_RELU:
        _leaky_relu(a, n)
    elif code == ELU:
        _elu(a, n)
    elif code == GELU:
        _gelu(a, n)
    elif code == SILU:
        _silu(a, n)
    elif code == SOFTPLUS:
        _softplus(a, n)
    elif code >= custom.LEAST_CODE:
        custom.apply(code, a, n)


@jit
def softmax(z, n, a):
    """a[j] = exp(z[j]) / sum_i exp(z[i]) over one row of n, shifted by the largest z; a may be z.

    Returns the largest z and the sum, (s0 + s1) + (s2 + s3): term i goes to sum i % 4, none of which waits for another.
    """
    largest = z[0]
    for j in range(n):
        largest = max(largest, z[j])
    for j in range(n):
        a[j] = scalar.exp(z[j] - largest)
    s0 = s1 = s2 = s3 = cast(0.0, largest)
    for j in range(n):
        s0, s1, s2, s3 = s1, s2, s3, s0 + a[j]
    for _ in range(-n % 4):  # until each is in its place again
        s0, s1, s2, s3 = s1, s2, s3, s0
    total = (s0 + s1) + (s2 + s3)
    for j in range(n):
        a[j] /= total
    return largest, total


@inner
def ready_apply(code, z, n):
    """z[i] = f(z[i]) for i < n, in place on pointers, by a code that is `ready`; SOFTMAX over the row."""
    if code == RELU:
        _relu(z, n)
    elif code == SOFTMAX:
        softmax(z, n, z)
    elif code >= custom.LEAST_CODE:
        custom.apply(code, z, n)


@inner
def activate(code, z, n, slope):
    """z[i], slope[i] = f(z[i]), f'(z[i]) for i < n, in place on pointers, by a code that is `ready`.

    SOFTMAX counts as identity.
    """
    if code == RELU:
        _relu_slope(z, n, slope)
    elif code >= custom.LEAST_CODE:
        custom.activate(code, z, n, slope)
    else:
        _identity_slope(z, n, slope)


@jit
def value_and_slope(code, z, n, a, slope):
    """a[i] = f(z[i]), slope[i] = f'(z[i]) for i < n; vectors (or pointers), a may be z. SOFTMAX counts as identity."""
    for i in range(n):
        a[i] = z[i]
    if code == SIGMOID:
        _sigmoid_slope(a, n, slope)
    elif code == TANH:
        _tanh_slope(a, n, slope)
    elif code == STEP:
        _step_slope(a, n, slope)
    elif code == LEAKY_RELU:
        _leaky_relu_slope(a, n, slope)
    elif code == ELU:
        _elu_slope(a, n, slope)
    elif code == GELU:
        _gelu_slope(a, n, slope)
    elif code == SILU:
        _silu_slope(a, n, slope)
    elif code == SOFTPLUS:
        _softplus_slope(a, n, slope)
    else:
        activate(code, a, n, slope)
