"""Dense rows with zeros against the twin and against the dense kernels: the same bits from what is not zero."""

import numpy as np
import pytest
import reference
from reference import Array

from hotloop.kernels import activations, dense, zeros
from hotloop.kernels.jit import jit
from hotloop.kernels.simd import pointer

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


@jit
def forward_zeros(x, width, weight, out, following):  # type: ignore[no-untyped-def]
    """The kernel on whole arrays; it fetches rows of x ahead, as good as any."""
    rows, x_row = x.shape
    columns, at, z, source = weight.shape[1], pointer(x, 0), pointer(out, 0), pointer(x, 0)
    order = pointer(following, 0)
    zeros.forward_zeros(at, x_row, rows, width, pointer(weight, 0), columns, columns, z, columns, source, order, x_row)


@jit
def update_zeros(x, first, last, delta, weight):  # type: ignore[no-untyped-def]
    """The kernel on whole arrays."""
    rows, x_row = x.shape
    at, back, columns = pointer(x, 0), pointer(delta, 0), weight.shape[1]
    zeros.update_zeros(at, x_row, rows, first, last, back, columns, pointer(weight, 0), columns, columns)


def block(rows: int, width: int, columns: int, density: float, dtype: str) -> tuple[Array, Array, Array, Array]:
    """x (rows, width), padded with zeros to whole lines of 16, weight (width, columns), bias (columns,), delta."""
    rng = np.random.default_rng([rows, width, columns, int(100 * density)])
    x = np.zeros((rows, -(-width // 16) * 16), dtype)
    x[:, :width] = rng.normal(size=(rows, width)) * (rng.random((rows, width)) < density)
    arrays = rng.normal(size=(width, columns)), rng.normal(size=columns), rng.normal(size=(rows, columns))
    weight, bias, delta = (array.astype(dtype) for array in arrays)
    return x, weight, bias, delta


BLOCKS = [
    (1, 1, 16),
    (2, 15, 32),
    (3, 16, 48),
    (5, 17, 128),
    (32, 63, 144),
    (33, 65, 16),
    (64, 300, 16),
    (129, 130, 176),
    (2, 1100, 16),
]


@both
@pytest.mark.parametrize("density", [0.0, 0.01, 0.2, 1.0])
def test_zeros_skipped_in_a_block_leave_the_bits_of_dense(density: float, dtype: str) -> None:
    for rows, width, columns in BLOCKS:
        x, weight, bias, delta = block(rows, width, columns, density, dtype)
        out, dense_out = np.repeat(bias[None], rows, 0), np.empty((rows, columns), dtype)
        forward_zeros(x, width, weight, out, np.arange(rows))
        dense.forward(np.ascontiguousarray(x[:, :width]), weight, bias, activations.IDENTITY, dense_out)
        assert out.tobytes() == dense_out.tobytes(), (rows, width, columns)
        exact = reference.dense_forward(x[:, :width], weight, bias)
        magnitude = reference.dense_forward(abs(x[:, :width]), abs(weight), abs(bias))
        assert np.all(abs(out - exact) <= (width + 2) * np.finfo(dtype).eps * magnitude)

        moved, dense_moved = weight.copy(), weight.copy()
        update_zeros(x, 0, width, delta, moved)
        dense.update(np.ascontiguousarray(x[:, :width]), delta, dense_moved, bias.copy())
        assert moved.tobytes() == dense_moved.tobytes(), (rows, width, columns)
        exact, _ = reference.dense_update(x[:, :width], delta, weight, bias)
        magnitude, _ = reference.dense_update(abs(x[:, :width]), abs(delta), abs(weight), bias)
        assert np.all(abs(moved - exact) <= (rows + 2) * np.finfo(dtype).eps * magnitude)


@both
def test_features_that_no_row_of_a_block_has_are_neither_read_nor_written(dtype: str) -> None:
    x, weight, bias, delta = block(6, 100, 48, 0.3, dtype)
    x[:, 10:20] = 0
    weight[10:20] = np.nan
    out = np.repeat(bias[None], 6, 0)
    forward_zeros(x, 100, weight, out, np.arange(6))
    assert np.isfinite(out).all()
    update_zeros(x, 0, 100, delta, weight)
    assert np.isnan(weight[10:20]).all() and np.isfinite(np.delete(weight, range(10, 20), 0)).all()


@both
def test_an_update_keeps_to_its_features(dtype: str) -> None:
    x, weight, _, delta = block(6, 100, 48, 0.3, dtype)
    moved, whole = weight.copy(), weight.copy()
    update_zeros(x, 32, 64, delta, moved)
    update_zeros(x, 0, 100, delta, whole)
    assert moved[32:64].tobytes() == whole[32:64].tobytes()
    rest = np.r_[:32, 64:100]
    assert moved[rest].tobytes() == weight[rest].tobytes()


@both
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_infinity_in_a_block_reach_their_own_row_and_feature(poison: float, dtype: str) -> None:
    x, weight, bias, delta = block(4, 40, 32, 0.3, dtype)
    x[2, 7] = poison
    out = np.repeat(bias[None], 4, 0)
    forward_zeros(x, 40, weight, out, np.arange(4))
    assert not np.isfinite(out[2]).any() and np.isfinite(out[[0, 1, 3]]).all()
    update_zeros(x, 0, 40, delta, weight)
    assert not np.isfinite(weight[7]).any() and np.isfinite(np.delete(weight, 7, 0)).all()
