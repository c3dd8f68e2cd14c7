"""Activations against their twins: values and slopes everywhere, at the edges, and against central differences."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import Array

from hotloop.kernels import activations

NAMES = list(reference.ACTIVATIONS)
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)
KINKS = {"step": (0.0,), "relu": (0.0,), "leaky_relu": (0.0,), "elu": (0.0,)}

both = pytest.mark.parametrize("dtype", ["float32", "float64"])
each = pytest.mark.parametrize("name", NAMES)


def apply(name: str, z: Array) -> Array:
    """f(z), with a field beyond n that must stay as it is."""
    out = np.full(len(z) + 40, 12345.0, z.dtype)
    activations.apply(activations.CODES[name], z, len(z), out)
    assert np.all(out[len(z) :] == 12345.0)
    return out[: len(z)]


def value_and_slope(name: str, z: Array) -> tuple[Array, Array]:
    """f(z) and f'(z), with fields beyond n that must stay as they are."""
    value, slope = np.full((2, len(z) + 40), 12345.0, z.dtype)
    activations.value_and_slope(activations.CODES[name], z, len(z), value, slope)
    assert np.all(value[len(z) :] == 12345.0) and np.all(slope[len(z) :] == 12345.0)
    return value[: len(z)], slope[: len(z)]


def grid(dtype: str) -> Array:
    """Numbers of every size: zeros, the smallest, the ordinary, the far tails."""
    tiny = np.finfo(dtype).tiny
    steps = np.linspace(-30, 30, 6001)
    positive = np.concatenate([[0.0, tiny, 1e-30, 1e-10, 1e-5], np.geomspace(1e-4, 1e4, 500)])
    return np.concatenate([steps, positive, -positive]).astype(dtype)


def test_every_activation_has_a_twin() -> None:
    assert set(activations.CODES) == {*NAMES, "softmax"}
    assert len(set(activations.CODES.values())) == len(activations.CODES)


@both
@each
def test_value_and_slope_agree_with_the_twin(name: str, dtype: str) -> None:
    z = grid(dtype)
    value, slope = value_and_slope(name, z)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(value, reference.activate(name, z), rtol=8 * eps, atol=eps)
    np.testing.assert_allclose(
        slope, reference.slope(name, z), rtol=20 * eps, atol=4 * eps
    )  # silu: z (1 - s), z near 30
    assert value.tobytes() == apply(name, z).tobytes()


@both
@each
def test_bits_do_not_depend_on_length_or_place(name: str, dtype: str) -> None:
    z = np.random.default_rng(1).normal(scale=3, size=200).astype(dtype)
    whole = apply(name, z)
    for n in SIZES:
        assert apply(name, z[5 : 5 + n]).tobytes() == whole[5 : 5 + n].tobytes()


@both
@each
def test_result_may_overwrite_z(name: str, dtype: str) -> None:
    for n in SIZES:
        z = np.random.default_rng(n).normal(scale=3, size=n).astype(dtype)
        value, slope = value_and_slope(name, z)
        code, in_place, in_place_slope, applied = activations.CODES[name], z.copy(), np.empty_like(z), z.copy()
        activations.value_and_slope(code, in_place, n, in_place, in_place_slope)
        activations.apply(code, applied, n, applied)
        assert in_place.tobytes() == value.tobytes() == applied.tobytes()
        assert in_place_slope.tobytes() == slope.tobytes()


@each
def test_slope_is_the_central_difference_of_the_value(name: str) -> None:
    z = np.linspace(-9, 9, 721) + 0.0037
    for kink in KINKS.get(name, ()):
        z = z[abs(z - kink) > 1e-3]
    h = 1e-5
    difference = (apply(name, z + h) - apply(name, z - h)) / (2 * h)
    np.testing.assert_allclose(value_and_slope(name, z)[1], difference, rtol=1e-8, atol=3e-10)


@both
@each
def test_far_tails_are_finite_and_right(name: str, dtype: str) -> None:
    z = np.array([-1e30, -1000, -750, -100, 100, 750, 1000, 1e30], dtype)
    value, slope = value_and_slope(name, z)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(value, reference.activate(name, z), rtol=4 * eps, atol=eps)
    np.testing.assert_allclose(slope, reference.slope(name, z), rtol=4 * eps, atol=eps)


@both
@each
def test_kinks_have_the_slope_of_the_left(name: str, dtype: str) -> None:
    value, slope = value_and_slope(name, np.array([0.0, -0.0], dtype))
    np.testing.assert_allclose(value, reference.activate(name, np.zeros(2)), atol=np.finfo(dtype).eps)
    np.testing.assert_allclose(slope, reference.slope(name, np.zeros(2)), atol=np.finfo(dtype).eps)


@both
@each
def test_nan_gives_nan_and_spoils_no_neighbour(name: str, dtype: str) -> None:
    z = np.linspace(-2, 2, 33).astype(dtype)
    clean = apply(name, z)
    z[17] = np.nan
    value, _ = value_and_slope(name, z)
    assert np.isnan(value[17]) and np.isnan(apply(name, z)[17])
    assert np.delete(value, 17).tobytes() == np.delete(clean, 17).tobytes()


def softmax(z: Array) -> Array:
    out = np.full(len(z) + 40, 12345.0, z.dtype)
    activations.softmax(z, len(z), out)
    assert np.all(out[len(z) :] == 12345.0)
    return out[: len(z)]


@both
@given(data=st.data())
@settings(max_examples=80, derandomize=True, deadline=None)
def test_softmax_is_a_distribution(data: st.DataObject, dtype: str) -> None:
    numbers = st.floats(-1000, 1000, width=32)
    z = data.draw(hnp.arrays(dtype, st.integers(1, 40), elements=numbers))
    a, eps = softmax(z), np.finfo(dtype).eps
    np.testing.assert_allclose(a, reference.softmax(z.astype(np.float64)), rtol=2 * (len(z) + 8) * eps, atol=eps)
    assert abs(a.astype(np.float64).sum() - 1) <= (len(z) + 4) * eps
    assert a.min() >= 0
    in_place = z.copy()
    activations.softmax(in_place, len(z), in_place)
    assert in_place.tobytes() == a.tobytes()


@both
def test_softmax_edges(dtype: str) -> None:
    np.testing.assert_array_equal(softmax(np.array([1000.0, 0.0, -1000.0], dtype)), [1, 0, 0])
    np.testing.assert_array_equal(softmax(np.full(4, -1000.0, dtype)), [0.25] * 4)
    np.testing.assert_array_equal(softmax(np.array([-7.0], dtype)), [1])
    for place in range(3):
        z = np.zeros(3, dtype)
        z[place] = np.nan
        assert np.isnan(softmax(z)).all()
