"""Random numbers on the simulated GPU have the bits of their twins."""

import numpy as np
import pytest
import reference

from hotloop.kernels import random as cpu
from hotloop.kernels.cuda import random


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_permutations(dtype):
    seeds = np.array([0, 5, 2**40 + 3], np.int64)
    out = np.full((3, 12, 37), -1, dtype)
    random.permutations(seeds, 4, out)
    for m, seed in enumerate(seeds):
        for e in range(12):
            assert np.array_equal(out[m, e], reference.permutation(int(seed), 4 + e, 37))
    random.permutations(seeds[:0], 0, out[:0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["fill_uniform", "fill_normal"])
def test_initial_weights(name, dtype):
    for shape in [(1, 1), (5, 13)]:
        out, expected = np.empty(shape, dtype), np.empty(shape, dtype)
        getattr(random, name)(7, 2, 0.5, out)
        getattr(cpu, name)(7, 2, 0.5, expected)
        assert np.array_equal(out, expected)
        twin = getattr(reference, name)(7, 2, 0.5, shape)
        np.testing.assert_allclose(out, twin, rtol=4 * np.finfo(dtype).eps)
    getattr(random, name)(7, 2, 0.5, np.empty((0, 3), dtype))
