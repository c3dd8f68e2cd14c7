"""Standardising: NumPy's mean and deviation in any chunks, sparse rows left sparse, constant columns safe."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from test_check import VARIANTS, variants

from hotloop import Standardizer
from hotloop import standardizer as module
from hotloop.kernels.standardize import standardize, standardize_row

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 7)) * 10.0 ** np.arange(-3, 4) + 5
HOLES = np.where(RNG.random((60, 7)) < 0.6, 0.0, X)
HOLES[:, 2] = 0.1  # constant, every entry there
HOLES[:, 4] = 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("out_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 15), (3, 16), (17, 17)])
def test_kernels_are_numpys(dtype: type, out_dtype: type, shape: tuple[int, int]) -> None:
    rows, shift, inverse = RNG.normal(size=shape).astype(dtype), RNG.normal(size=shape[1]), RNG.normal(size=shape[1])
    out = np.empty(shape, out_dtype)
    standardize(rows, shift, inverse, out)
    expected = ((rows.astype(np.float64) - shift) * inverse).astype(out_dtype)
    np.testing.assert_array_equal(out, expected)
    for row, line in zip(rows, expected, strict=True):
        one = np.empty(shape[1], out_dtype)
        standardize_row(row, shift, inverse, one)
        np.testing.assert_array_equal(one, line)


@given(cuts=st.lists(st.integers(0, 60), max_size=5), chunk=st.sampled_from([1, 7, 40, 1 << 17]))
def test_any_chunks_give_numpys_mean_and_deviation(cuts: list[int], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = Standardizer()
        for rows in np.split(X, sorted(cuts)):
            if len(rows):
                found.partial_fit(rows)
    assert found.count == 60 and found.width == found.columns == 7
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.scale, X.std(axis=0), rtol=1e-12)


@pytest.mark.parametrize("offset", [1e6, 1e12])
def test_a_large_mean_costs_no_digits(offset: float) -> None:
    small = RNG.integers(-8, 9, size=(5000, 2)) / 16
    found = Standardizer().fit(small + offset)
    np.testing.assert_allclose(found.scale, small.std(axis=0), rtol=1e-9)
    z = found.read("X", small + offset, np.float32).arrays.X
    np.testing.assert_allclose(z, (small - small.mean(axis=0)) / small.std(axis=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e200, 1e-310])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_a_constant_column_has_scale_1(value: float, as_sparse: bool) -> None:
    rows = np.full((10_000, 2), value)
    rows[:, 1] = np.arange(10_000) % 2
    found = Standardizer()
    for _ in range(3):
        found.partial_fit(sparse.csr_matrix(rows) if as_sparse else rows)
    assert found.scale[0] == 1.0
    if not as_sparse:
        assert not found.read("X", rows, np.float64).arrays.X[:, 0].any()


@pytest.mark.parametrize("split", [0, 1, 30])
def test_sparse_rows_are_scaled_only_and_stay_sparse(split: int) -> None:
    matrix = sparse.csr_matrix(HOLES)
    found = Standardizer()
    for part in (matrix[:split], matrix[split:]):
        if part.shape[0]:
            found.partial_fit(part)
    dense = Standardizer().fit(HOLES)
    np.testing.assert_allclose(found.scale, dense.scale, rtol=1e-12)
    np.testing.assert_allclose(found.mean, dense.mean, rtol=1e-12)
    assert found.scale[2] == found.scale[4] == 1.0
    rows = found.read("X", matrix, np.float32)
    assert rows.compressed and len(rows.arrays.value) == matrix.nnz
    expected = (HOLES * (1 / found.scale)).astype(np.float32)
    value, index, start = rows.arrays.value, rows.arrays.index, rows.arrays.start
    np.testing.assert_array_equal(sparse.csr_matrix((value, index, start), HOLES.shape).toarray(), expected)
    np.testing.assert_array_equal(found.read("X", HOLES, np.float32).arrays.X, expected)  # dense rows the same way
    assert "scaled only" in repr(found)


def test_centring_and_sparse_rows_do_not_go_together() -> None:
    matrix, message = sparse.csr_matrix(HOLES), "X: got a sparse matrix, but taking the mean away would make it dense"
    for attempt in (
        lambda: Standardizer(center=True).fit(matrix),
        lambda: Standardizer().fit(HOLES).partial_fit(matrix),
        lambda: Standardizer().fit(HOLES).read("X", matrix, np.float32),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()
    scaled = Standardizer(center=False).fit(HOLES)
    assert scaled.read("X", matrix, np.float32).compressed
    scaled.partial_fit(matrix)
    assert scaled.count == 120
    again = Standardizer().fit(matrix).fit(HOLES)  # fit forgets what there was
    assert "centred" in repr(again)
    np.testing.assert_array_equal(Standardizer().fit(matrix).partial_fit(HOLES)._shift, np.zeros(7))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_form_of_an_array_does_not_change_a_bit(variant: str, dtype: type, tmp_path: Path) -> None:
    plain = X.astype(np.float32)
    form = variants(plain, tmp_path)[variant]
    one, other = Standardizer().fit(plain), Standardizer().fit(form)
    assert one.mean.tobytes() == other.mean.tobytes() and one.scale.tobytes() == other.scale.tobytes()
    rows = one.read("X", plain, dtype).arrays.X
    assert rows.dtype == dtype and rows.flags.c_contiguous
    assert rows.tobytes() == one.read("X", form, dtype).arrays.X.tobytes()
    assert (
        rows[3].tobytes() == one.row(np.asarray(form)[3], dtype).tobytes() == one.row(list(plain[3]), dtype).tobytes()
    )


def test_whole_numbers_and_booleans() -> None:
    numbers = RNG.integers(-5, 6, (20, 3))
    expected = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    for rows in (numbers, numbers.astype(np.int8), numbers.astype(np.float16), numbers.tolist()):
        np.testing.assert_allclose(Standardizer().fit(rows).read("X", rows, np.float64).arrays.X, expected)
    assert Standardizer().fit(numbers > 0).read("X", numbers > 0, np.float32).arrays.X.shape == (20, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(3), r"X: got shape \(3,\), expected \(n_samples, n_features\)"),
        (np.zeros((0, 3)), r"X: got shape \(0, 3\)"),
        (np.zeros((3, 0)), r"X: got shape \(3, 0\)"),
        (sparse.csr_matrix((0, 3)), r"X: got shape \(0, 3\)"),
        ([["a"]], "X: got dtype <U1, expected numbers"),
        (np.where(np.arange(420).reshape(60, 7) == 23, np.nan, X), r"X: got nan at \[3, 2\]"),
        (np.where(np.arange(420).reshape(60, 7) == 23, np.inf, X), r"X: got inf at \[3, 2\]"),
        (sparse.csr_matrix(np.array([[0, np.nan]])), "X.data: got nan"),
        (np.array([[1e300, 1], [-1e300, 2]]), "X: column 0 spreads too far for float64"),
    ],
)
def test_what_cannot_be_learned_changes_nothing(rows: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Standardizer().fit(rows)  # type: ignore[arg-type]
    found = Standardizer(center=False).fit(X)
    before = found.mean.tobytes(), found.scale.tobytes(), found.count
    with pytest.raises((ValueError, TypeError)):
        found.partial_fit(rows)  # type: ignore[arg-type]
    assert before == (found.mean.tobytes(), found.scale.tobytes(), found.count)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (X[:, :3], r"rows: got shape \(60, 3\), expected \(n_samples, 7\)"),
        (X[0], "rows: got shape .*one row"),
        (np.where(X[2, 1] == X, np.nan, X), r"rows: got nan at \[2, 1\]"),
        (np.where(X[2, 0] == X, 1e60, X), r"rows: got 1e\+60 at \[2, 0\], too large for float32"),
        (sparse.csr_matrix(X), "rows: got a sparse matrix"),
    ],
)
def test_rows_that_cannot_be_read(rows: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Standardizer().fit(X).read("rows", rows, np.float32)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [X[:1], X[0, :3], 1.0, [], [[1.0]], ["a"] * 7])
def test_a_row_of_another_shape(row: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^x: got"):
        Standardizer().fit(X).row(row, np.float32)  # type: ignore[arg-type]


def test_options_and_text() -> None:
    with pytest.raises(TypeError, match="center: got 1 of type int"):
        Standardizer(center=1)  # type: ignore[arg-type]
    assert repr(Standardizer()) == "Standardizer(not fitted)"
    assert repr(Standardizer().fit(X)) == "Standardizer(7 columns, centred and scaled, 60 rows)"
