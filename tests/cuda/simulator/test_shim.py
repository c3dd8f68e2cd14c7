"""The simulator itself: what its patch adds, and what it makes strict."""

import numpy as np
import pytest
from numba import cuda, float32

from hotloop.kernels import losses, scalar
from hotloop.kernels.cuda import shim
from hotloop.kernels.cuda.shim import cast, fma

exp, mse = shim.shared(scalar.exp), shim.shared(losses.mse)


@shim.kernel
def shuffled(out):
    lane = cuda.threadIdx.x
    out[0, lane] = cuda.shfl_down_sync(0xFFFFFFFF, lane, 1)
    out[1, lane] = cuda.shfl_xor_sync(0xFFFFFFFF, lane, 3)
    out[2, lane] = cuda.shfl_sync(0xFFFFFFFF, lane, 2)
    out[3, lane] = cuda.shfl_up_sync(0xFFFFFFFF, lane, 2)


def test_shuffles():
    out, lane = np.zeros((4, 64), np.int64), np.arange(64)
    shim.launch(shuffled, 1, 64)(out)
    assert np.array_equal(out[0], np.where(lane % 32 == 31, lane, lane + 1) % 32 + lane // 32 * 32)
    assert np.array_equal(out[1], lane ^ 3)
    assert np.array_equal(out[2], lane // 32 * 32 + 2)
    assert np.array_equal(out[3], np.where(lane % 32 < 2, lane, lane - 2))


@shim.kernel
def unwritten(out):
    a, b = cuda.shared.array(2, float32, alignment=16), cuda.shared.array(2, float32)
    dynamic = cuda.shared.array(0, float32)
    b[0] = float32(1)
    out[0], out[1], out[2] = a[0], b[1], dynamic[3]


def test_shared_memory_is_poisoned():
    out = np.zeros(3, np.float32)
    shim.launch(unwritten, 1, 1, 0, 16)(out)
    assert np.isnan(out).all()


def test_large_blocks_are_refused():
    with pytest.raises(AssertionError, match="64 threads"):
        shim.launch(shuffled, 1, 96)(np.zeros((4, 96), np.int64))


@shim.kernel
def neighbours(x, out, step, meets):
    shared, i = cuda.shared.array(64, float32), cuda.threadIdx.x
    shared[i] = x[i]
    if meets:
        cuda.syncthreads()
    out[i] = shared[(i + step) % 64]


@pytest.mark.parametrize("step", [1, 63])
def test_a_missing_barrier_shows(step):
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    for meets in (True, False):
        out = np.zeros(64, np.float32)
        shim.launch(neighbours, 1, 64)(x, out, step, meets)
        assert np.array_equal(out, np.roll(x, -step)) is meets


@shim.kernel
def parted(out, where):
    i = cuda.threadIdx.x
    if where == 0 and i > 0:
        cuda.syncthreads()
        out[i] = 1
    if where == 1 and i != 5:
        cuda.syncwarp()
    if where == 2 and i >= 32:
        return
    cuda.syncthreads()
    out[i] = 1


def test_threads_that_part_are_told_of():
    out = np.zeros(64)
    with pytest.raises(AssertionError, match="threads meet at different barriers"):
        shim.launch(parted, 1, 64)(out, 0)
    with pytest.raises(AssertionError, match="some threads of a warp do not come to where the others wait"):
        shim.launch(parted, 1, 64)(out, 1)
    assert not out.any()
    shim.launch(parted, 1, 64)(out, 2)  # those that have ended are not waited for
    assert np.array_equal(out, np.arange(64) < 32)


@shim.kernel
def formulas(x, out):
    i = cuda.grid(1)
    out[i] = exp(fma(x[i], x[i], cast(0.1, x[i])))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_formulas_have_the_dtype_of_their_arguments(dtype):
    x = np.linspace(-2, 2, 32).astype(dtype)
    out = np.empty_like(x)
    shim.launch(formulas, 1, 32)(x, out)
    np.testing.assert_allclose(out, np.exp(x * x + 0.1), rtol=4 * np.finfo(dtype).eps)
    assert exp(x[0]).dtype == dtype
