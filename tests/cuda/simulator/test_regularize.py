"""Regularisation on the simulated GPU has the bits of the CPU's kernels, for any number of blocks."""

import numba
import numpy as np
import pytest
from numba import cuda

from hotloop import MLP
from hotloop import cuda as gpu
from hotloop.kernels import regularize as cpu
from hotloop.kernels.activations import CODES
from hotloop.kernels.cuda import dense, network, regularize, shim
from hotloop.kernels.plan import SLOPE, STRIDE, VALUE, WIDTH
from hotloop.regularization import Regularization

SIZES = [5, 35, 9, 2]
EPOCH, POSITION, SEED = 3, 11, 2**40 + 1

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def setting(rows, dtype):
    """A plan for blocks of so many rows, parameters, and a workspace of ones."""
    model = MLP(SIZES, dtype=dtype, seed=1)
    plan, size = gpu.make_plan(model._network.plan, CODES["identity"], rows)
    return model, plan, np.ones(size, dtype)


def regular(dtype, **options):
    """The settings as the CPU and as the GPU take them."""
    given = Regularization(**options)
    mine = gpu.make_regular(given, len(SIZES) - 1, SEED, np.dtype(dtype))._replace(epoch=EPOCH)
    return mine, given.for_kernels(len(SIZES) - 1, dtype, SEED, EPOCH)


@shim.kernel
def drop_kernel(plan, work, regular, layer, position, begin, end, height, width):
    regularize.drop(
        plan, work, regular, layer, position, begin, end, height, width, cuda.blockIdx.x, cuda.gridDim.x
    )  # fmt: skip


@shim.kernel
def inputs_kernel(plan, work, regular, position, row):
    regularize.add_noise(plan, work, regular, position, row)
    cuda.syncthreads()
    regularize.drop_inputs(plan, work, regular, position, row)


@numba.njit
def drop_rows(plan, work, layer, begin, end, regular, noisy):
    for r in range(begin, end):
        if noisy:
            cpu.add_noise(plan, work, r, POSITION + r, regular)
        cpu.drop(plan, work, layer, r, POSITION + r, regular)


@both
@pytest.mark.parametrize(("layer", "blocks"), [(1, 1), (1, 3), (2, 2)])
def test_hidden_units(layer, blocks, dtype):
    U = network.U
    mine, theirs = regular(dtype, dropout=[0.1, 0.5, 0.25])
    for begin, end, height, width in [(0, 6, 16, 16), (1, 5, 4, 16)]:
        _, plan, work = setting(6, dtype)
        expected = work.copy()
        shim.launch(drop_kernel, blocks, dense.THREADS)(
            plan, work, mine, layer, POSITION, begin, end, U(height), U(width)
        )
        drop_rows(plan, expected, layer, begin, end, theirs, False)
        assert np.array_equal(work, expected)
        rows = work[plan[layer, VALUE] :][: 6 * plan[layer, STRIDE]].reshape(6, -1)[begin:end, : plan[layer, WIDTH]]
        assert 0 < np.count_nonzero(rows) < rows.size
        slopes = work[plan[layer, SLOPE] :][: 6 * plan[layer, STRIDE]].reshape(6, -1)[begin:end, : plan[layer, WIDTH]]
        assert np.array_equal(slopes, rows)


@both
def test_inputs(dtype):
    mine, theirs = regular(dtype, dropout=[0.4, 0, 0], input_noise=0.3)
    _, plan, work = setting(4, dtype)
    expected, row = work.copy(), int(plan[0, VALUE] + 2 * plan[0, STRIDE])
    shim.launch(inputs_kernel, 1, dense.THREADS)(plan, work, mine, POSITION + 2, row)
    drop_rows(plan, expected, 0, 2, 3, theirs, True)
    width, other = int(plan[0, WIDTH]), int(plan[0, SLOPE] + 2 * plan[0, STRIDE])
    assert np.array_equal(work[row : row + width], expected[row : row + width])
    assert np.all(work[other : other + width] == 1)  # the other place of the inputs is not written
    assert np.any(work[row : row + width] == 0)


@shim.kernel
def norm_kernel(grad, n, squares, out):
    panels = cuda.shared.array(dense.THREADS, grad.dtype)
    regularize.sum_squares(grad, n, squares, panels, cuda.blockIdx.x, cuda.gridDim.x)
    cuda.syncthreads()
    if cuda.gridDim.x == 1 and cuda.threadIdx.x == 0:
        out[0] = regularize.total(squares)


@numba.njit
def sum_squares(grad, squares):
    cpu.sum_squares(grad, squares, 0, squares.shape[0])


@both
@pytest.mark.parametrize("blocks", [1, 2])
def test_norm_of_a_gradient(blocks, dtype):
    n = 5 * cpu.BLOCK + 48
    grad = np.random.default_rng(2).normal(size=2 * n).astype(dtype)  # a second slice is not looked at
    squares, expected, out = np.empty(6, dtype), np.empty(6, dtype), np.zeros(1, dtype)
    shim.launch(norm_kernel, blocks, dense.THREADS)(grad, n, squares, out)
    sum_squares(grad[:n], expected)
    assert np.array_equal(squares, expected)
    if blocks == 1:
        np.testing.assert_allclose(out[0], np.square(grad[:n], dtype=np.float64).sum(), rtol=2 * np.finfo(dtype).eps)


@shim.kernel
def limit_kernel(plan, params, bound):
    regularize.limit_norms(plan, params, bound, cuda.blockIdx.x, cuda.gridDim.x)


@numba.njit
def limit_norms(plan, params, regular):
    cpu.limit_norms((plan, params), regular, 0, 1)


@both
@pytest.mark.parametrize("blocks", [1, 2])
def test_norms_of_weights(blocks, dtype):
    model, plan, _ = setting(1, dtype)
    model.params *= 2  # the biases too, which nothing bounds
    expected, bound = model.params.copy(), 1.25
    shim.launch(limit_kernel, blocks, dense.THREADS)(plan, model.params, model.dtype.type(bound))
    limit_norms(plan, expected, regular(dtype, max_norm=bound)[1])
    assert np.array_equal(model.params, expected)
    norms = np.concatenate([np.linalg.norm(weight, axis=0) for weight in model.weights])
    assert norms.max() < bound * (1 + 1e-6) and norms.min() < bound / 1.1
