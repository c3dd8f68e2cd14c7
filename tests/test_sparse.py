"""Sparse rows against their twins and against the dense kernels: the same bits from the entries that are not zero."""

from itertools import product

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import Array

from hotloop.kernels import activations, dense, sparse
from hotloop.kernels.jit import jit
from hotloop.kernels.simd import pointer

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 100)

both = pytest.mark.parametrize("dtype", ["float32", "float64"])


def compact(x: Array) -> tuple[Array, Array, int]:
    """Index and value buffers as the kernel fills them: as long as x, the first nnz entries used."""
    index, value = np.full(len(x), -1, np.int32), np.full(len(x), np.nan, x.dtype)
    return index, value, sparse.compact(x, len(x), index, value)


def layer(fan_in: int, fan_out: int, density: float, dtype: str) -> tuple[Array, Array, Array, Array]:
    """x (fan_in,) of the given density, weight, bias and delta (fan_out,)."""
    rng = np.random.default_rng([fan_in, fan_out, int(100 * density)])
    x = rng.normal(size=fan_in) * (rng.random(fan_in) < density)
    arrays = x, rng.normal(size=(fan_in, fan_out)), rng.normal(size=fan_out), rng.normal(size=fan_out)
    x, weight, bias, delta = (array.astype(dtype) for array in arrays)
    return x, weight, bias, delta


@both
@given(data=st.data())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_compact_keeps_what_is_not_zero(data: st.DataObject, dtype: str) -> None:
    special = st.sampled_from([0.0, -0.0, 1.0, -2.5, np.nan, np.inf, float(np.finfo(dtype).smallest_subnormal)])
    x = data.draw(hnp.arrays(dtype, st.integers(0, 70), elements=special))
    index, value, nnz = compact(x)
    exact_index, exact_value = reference.sparse_compact(x)
    assert nnz == len(exact_index)
    np.testing.assert_array_equal(index[:nnz], exact_index)
    np.testing.assert_array_equal(value[:nnz], exact_value)


@both
def test_compact_reads_the_first_n_only(dtype: str) -> None:
    x = np.ones(9, dtype)
    index, value = np.full(9, -1, np.int32), np.zeros(9, dtype)
    assert sparse.compact(x, 4, index, value) == 4
    np.testing.assert_array_equal(index, [0, 1, 2, 3, -1, -1, -1, -1, -1])


@both
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_forward_row_agrees_with_the_twin_and_has_the_bits_of_dense(density: float, dtype: str) -> None:
    for fan_in in SIZES:
        for fan_out in SIZES:
            x, weight, bias, _ = layer(fan_in, fan_out, density, dtype)
            index, value, nnz = compact(x)
            out, dense_out = np.full(fan_out, np.nan, dtype), np.empty(fan_out, dtype)
            sparse.forward_row(index, value, nnz, weight, bias, out)
            exact = reference.sparse_forward_row(index[:nnz], value[:nnz], weight, bias)
            magnitude = reference.sparse_forward_row(index[:nnz], abs(value[:nnz]), abs(weight), abs(bias))
            assert np.all(abs(out - exact) <= (nnz + 2) * np.finfo(dtype).eps * magnitude)
            dense.forward_row(x, weight, bias, activations.IDENTITY, dense_out)
            assert out.tobytes() == dense_out.tobytes(), (fan_in, fan_out)


@both
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_update_row_agrees_with_the_twin_and_has_the_bits_of_dense(density: float, dtype: str) -> None:
    for fan_in in SIZES:
        for fan_out in SIZES:
            x, weight, bias, delta = layer(fan_in, fan_out, density, dtype)
            index, value, nnz = compact(x)
            dense_weight = weight.copy()
            exact = reference.sparse_update_row(index[:nnz], value[:nnz], delta, weight)
            sparse.update_row(index, value, nnz, delta, weight)
            np.testing.assert_allclose(weight, exact, rtol=0, atol=4 * np.finfo(dtype).eps * (1 + abs(exact).max()))
            dense.update_row(x, delta, dense_weight, bias)
            assert weight.tobytes() == dense_weight.tobytes(), (fan_in, fan_out)


@both
def test_rows_that_are_not_listed_are_neither_read_nor_written(dtype: str) -> None:
    x, weight, bias, delta = layer(100, 33, 0.2, dtype)
    index, value, nnz = compact(x)
    weight[x == 0] = np.nan
    out = np.empty(33, dtype)
    sparse.forward_row(index, value, nnz, weight, bias, out)
    assert np.isfinite(out).all()
    sparse.update_row(index, value, nnz, delta, weight)
    assert np.isfinite(weight[x != 0]).all()
    assert np.isnan(weight[x == 0]).all()


@both
def test_nan_and_infinity_propagate(dtype: str) -> None:
    for poison in (np.nan, np.inf):
        x, weight, bias, delta = layer(31, 17, 0.2, dtype)
        x[5] = poison
        index, value, nnz = compact(x)
        out = np.empty(17, dtype)
        sparse.forward_row(index, value, nnz, weight, bias, out)
        assert not np.isfinite(out).any()
        sparse.update_row(index, value, nnz, delta, weight)
        assert not np.isfinite(weight[5]).any()
        assert np.isfinite(weight[np.arange(31) != 5]).all()


@jit
def accumulate_row(index, value, count, weight, first, last, init, out):  # type: ignore[no-untyped-def]
    """The kernel for the columns first .. last of a weight."""
    at, columns = pointer(weight, first), weight.shape[1]
    begin, into = pointer(init, first), pointer(out, first)
    sparse.accumulate_row(pointer(index, 0), pointer(value, 0), count, at, columns, last - first, begin, into)


@both
@pytest.mark.parametrize("columns", [16, 32, 48, 64, 80, 128])
def test_a_row_by_itself_has_the_bits_of_the_twin(columns: int, dtype: str) -> None:
    """In four sums up to 64 columns, beyond that in one, as all other kernels; whichever columns a thread takes."""
    for fan_in, density in product((1, 3, 4, 5, 7, 8, 30, 101), (0.0, 0.5, 1.0)):
        x, weight, bias, _ = layer(fan_in, columns, density, dtype)
        index, value, nnz = compact(x)
        out, parts = np.full(columns, np.nan, dtype), np.full(columns, np.nan, dtype)
        accumulate_row(index, value, nnz, weight, 0, columns, bias, out)
        for first in range(0, columns, 16):
            accumulate_row(index, value, nnz, weight, first, first + 16, bias, parts)
        assert parts.tobytes() == out.tobytes()
        some = slice(0, columns, 5)  # the twin is slow
        if columns <= sparse.NARROW:
            wanted = reference.sparse_accumulate_row_bits(index[:nnz], value[:nnz], weight[:, some], bias[some])
        else:
            wanted = reference.dense_forward_bits(x[None], weight[:, some], bias[some])[0]
        assert out[some].tobytes() == wanted.tobytes(), (fan_in, density)


@jit
def overlaps(x, table, out):  # type: ignore[no-untyped-def]
    """The kernel on the rows of x, listed as one block each."""
    rows, n = x.shape
    window = out.shape[1]
    index, value, ends = np.zeros(rows * (n + 16), np.int32), np.zeros(rows * (n + 16), x.dtype), np.zeros(2 * rows)
    for r in range(rows):
        into = pointer(index, r * (n + 16)), pointer(value, r * (n + 16))
        ends[2 * r + 1] = sparse.append(pointer(x, r * n), 0, n, into[0], into[1], 0)
    counts = ends.astype(np.int32)
    entries = pointer(index, 0), pointer(value, 0)
    sparse.overlaps(entries, pointer(counts, 0), n + 16, 1, rows, window, pointer(table, 0), pointer(out, 0))


@both
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_overlaps_are_the_products_of_rows_with_the_bits_of_dense(density: float, dtype: str) -> None:
    rng = np.random.default_rng(5)
    for rows, n in product((1, 2, 7, 8), (1, 15, 16, 17, 100)):
        x = (rng.normal(size=(rows, n)) * (rng.random((rows, n)) < density)).astype(dtype)
        table, out = np.zeros(n * 8, dtype), np.full((rows, 8), np.nan, dtype)
        overlaps(x, table, out)
        padded = np.zeros((rows, -(-n // 16) * 16), dtype)
        padded[:, :n] = x
        exact = np.empty((rows, rows), dtype)
        dense.input_gradient(padded, padded, exact)
        below = np.tril_indices(rows, -1)
        assert out[:, :rows][below].tobytes() == exact[below].tobytes()
        np.testing.assert_allclose(exact, np.float64(x) @ np.float64(x).T, rtol=0, atol=1e-4)
        assert not table.any()
