"""Activations on the simulated GPU against their twins, and softmax."""

import numpy as np
import pytest
import reference

from hotloop.kernels import activations as cpu
from hotloop.kernels.cuda import activations

SIZES = (1, 15, 63, 64, 65, 130)

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


@both
@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
def test_value_and_slope(name, dtype):
    eps = np.finfo(dtype).eps
    for n in SIZES:
        z = np.random.default_rng(n).normal(scale=3, size=n).astype(dtype)
        z[0] = 0
        value, slope, alone = np.full((3, n + 5), 7, dtype)
        activations.value_and_slope(cpu.CODES[name], z, n, value, slope)
        activations.apply(cpu.CODES[name], z, n, alone)
        np.testing.assert_allclose(value[:n], reference.activate(name, z), rtol=16 * eps, atol=4 * eps)
        np.testing.assert_allclose(slope[:n], reference.slope(name, z), rtol=16 * eps, atol=16 * eps)
        assert np.array_equal(alone, value)
        assert np.all(value[n:] == 7) and np.all(slope[n:] == 7)


@both
def test_softmax_rows(dtype):
    for n, k in [(1, 1), (3, 10), (70, 5)]:
        z = np.random.default_rng(k).normal(scale=5, size=(n, k)).astype(dtype)
        a = np.empty_like(z)
        activations.softmax_rows(z, a)
        np.testing.assert_allclose(a, reference.softmax(reference.double(z)), rtol=16 * np.finfo(dtype).eps)
        activations.softmax_rows(z, z)
        assert np.array_equal(z, a)


def test_softmax_is_left_alone_by_apply_and_nothing_is_nothing():
    z = np.array([1.0, -2.0], np.float32)
    a = np.zeros(2, np.float32)
    activations.apply(cpu.SOFTMAX, z, 2, a)
    assert np.array_equal(a, z)
    activations.apply(cpu.RELU, z, 0, a)
    activations.softmax_rows(np.zeros((0, 3)), np.zeros((0, 3)))
    assert np.array_equal(a, z)
