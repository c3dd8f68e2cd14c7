"""Checks of arguments and arrays: what passes unchanged, what is converted, what is refused and with which words."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop import check

OPTIONS = ("relu", "tanh", "sigmoid")


def test_choice() -> None:
    assert check.choice("activation", "tanh", OPTIONS) == "tanh"
    with pytest.raises(ValueError, match=r"activation: got 'sigmoyd'; did you mean 'sigmoid'\? .* relu, tanh, sigmoid"):
        check.choice("activation", "sigmoyd", OPTIONS)
    with pytest.raises(ValueError, match=r"activation: got 'xyz'.*one of relu, tanh, sigmoid") as error:
        check.choice("activation", "xyz", OPTIONS)
    assert "did you mean" not in str(error.value)
    for other in (None, 3, ["relu"], b"relu"):
        with pytest.raises(ValueError, match=r"activation: got .*one of relu, tanh, sigmoid"):
            check.choice("activation", other, OPTIONS)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integer(value: int) -> None:
    found = check.integer("n", value, 1, 3)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("value", [3.0, "3", None, True, np.bool_(True), np.float64(3), [3], 3j])
def test_integer_refuses_other_types(value: object) -> None:
    with pytest.raises(TypeError, match=rf"n: got .* of type {type(value).__name__}, expected a whole number"):
        check.integer("n", value, 1)


def test_integer_bounds() -> None:
    with pytest.raises(ValueError, match="n: got 0, expected at least 1"):
        check.integer("n", 0, 1)
    with pytest.raises(ValueError, match="n: got 4, expected between 1 and 3"):
        check.integer("n", 4, 1, 3)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int8(1)])
def test_number(value: float) -> None:
    found = check.number("lr", value, 0.0, 1.0)
    assert found == 1.0 and type(found) is float


@pytest.mark.parametrize("value", ["1", None, True, np.bool_(False), [1.0], 1j])
def test_number_refuses_other_types(value: object) -> None:
    with pytest.raises(TypeError, match=rf"lr: got .* of type {type(value).__name__}, expected a number"):
        check.number("lr", value, 0.0)


@pytest.mark.parametrize(
    "value", [-1.0, math.nan, math.inf, -math.inf, 1.5, pytest.param(10**400, id="huge"), np.float32("nan")]
)
def test_number_bounds(value: float) -> None:
    with pytest.raises(ValueError, match=r"lr: got .*, expected at least 0 and at most 1\."):
        check.number("lr", value, 0.0, 1.0)


def test_number_open_below() -> None:
    with pytest.raises(ValueError, match=r"lr: got 0, expected more than 0\."):
        check.number("lr", 0, 0.0, open_below=True)
    assert check.number("lr", 5e-324, 0.0, open_below=True) > 0


def test_boolean() -> None:
    assert check.boolean("shuffle", True) is True and check.boolean("shuffle", np.bool_(False)) is False
    for other in (0, 1, "yes", None):
        with pytest.raises(TypeError, match=r"shuffle: got .*, expected True or False"):
            check.boolean("shuffle", other)


@pytest.mark.parametrize("value", ["float32", np.float32, np.dtype("f4"), "float64", float])
def test_float_dtype(value: object) -> None:
    assert check.float_dtype("dtype", value) in (np.float32, np.float64)  # type: ignore[arg-type]
    assert check.float_dtype("dtype", value).isnative  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["float16", "int32", "flaot32", complex, object, None, 3, ">f4"])
def test_float_dtype_refuses_others(value: object) -> None:
    with pytest.raises(ValueError, match=r"dtype: got .*, expected 'float32' or 'float64'"):
        check.float_dtype("dtype", value)  # type: ignore[arg-type]


def variants(plain: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """The same numbers in every form an array can have."""
    n, k = plain.shape
    shifted = np.zeros(plain.nbytes + 1, np.uint8)[1:]
    misaligned = shifted.view(plain.dtype).reshape(n, k)
    misaligned[:] = plain
    assert not misaligned.flags.aligned
    read_only = plain.copy()
    read_only.flags.writeable = False
    wide = np.zeros((n, 2 * k), plain.dtype)
    wide[:, ::2] = plain
    np.save(folder / "x.npy", plain)
    backwards = np.ascontiguousarray(plain[::-1, ::-1])[::-1, ::-1]
    return {
        "plain": plain,
        "Fortran": np.asfortranarray(plain),
        "big-endian": plain.astype(plain.dtype.newbyteorder(">")),
        "misaligned": misaligned,
        "misaligned big-endian": misaligned.view(misaligned.dtype.newbyteorder(">")).byteswap(),
        "read-only": read_only,
        "strided": wide[:, ::2],
        "backwards": backwards,
        "read-only map": np.load(folder / "x.npy", mmap_mode="r"),
        "map": np.load(folder / "x.npy", mmap_mode="c"),
        "float64": plain.astype(np.float64),
        "list": plain.tolist(),  # type: ignore[dict-item]
    }


VARIANTS = [
    "plain",
    "Fortran",
    "big-endian",
    "misaligned",
    "misaligned big-endian",
    "read-only",
    "strided",
    "backwards",
    "read-only map",
    "map",
    "float64",
    "list",
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matrix_leaves_as_the_kernels_need_it(variant: str, dtype: type, tmp_path: Path) -> None:
    plain = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    given_array = variants(plain, tmp_path)[variant]
    found = check.matrix("X", given_array, 3, dtype)
    np.testing.assert_array_equal(np.asarray(found), plain)
    assert found.dtype == dtype and found.dtype.isnative
    assert found.flags.c_contiguous and found.flags.aligned and found.flags.writeable


def test_nothing_is_copied_without_need(tmp_path: Path) -> None:
    plain = np.zeros((5, 3), np.float32)
    forms = variants(plain, tmp_path)
    for form in ("plain", "read-only", "read-only map", "map"):
        assert np.shares_memory(check.matrix("X", forms[form], 3, np.float32), forms[form])


def test_a_read_only_array_stays_read_only() -> None:
    plain = np.zeros((2, 3), np.float32)
    plain.flags.writeable = False
    alias = check.for_kernels(plain, np.float32)
    assert not plain.flags.writeable
    del plain
    assert not alias.any()  # its memory lives on


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(3), ValueError, r"X: got shape \(3,\), one row; expected \(n_samples, 3\): X\[None, :\]"),
        (np.zeros(4), ValueError, r"X: got shape \(4,\), expected \(n_samples, 3\)"),
        (np.zeros((2, 4)), ValueError, r"X: got shape \(2, 4\), expected \(n_samples, 3\)"),
        (np.zeros((2, 3, 1)), ValueError, r"X: got shape \(2, 3, 1\), expected \(n_samples, 3\)"),
        (3.0, ValueError, r"X: got shape \(\)"),
        (np.zeros((0, 3)), ValueError, "X: got no rows, expected at least one"),
        ([], ValueError, r"X: got shape \(0,\)"),
        ([[1, 2, 3], [4, 5]], ValueError, "X: expected an array, got rows of different lengths"),
        ([["a", "b", "c"]], TypeError, "X: got dtype <U1, expected numbers"),
        (np.array([[1, 2, None]]), TypeError, "X: got dtype object, expected numbers"),
        (np.zeros((2, 3), complex), TypeError, "X: got dtype complex128, expected numbers"),
        (np.zeros((2, 3), "M8[s]"), TypeError, r"X: got dtype datetime64\[s\], expected numbers"),
        (None, TypeError, "X: got dtype object"),
        ([[1, np.nan, 3]], ValueError, r"X: got nan at \[0, 1\]; expected finite numbers only"),
        ([[1, 2, 3], [4, 5, -np.inf]], ValueError, r"X: got -inf at \[1, 2\]"),
        ([[1, 2, 1e39]], ValueError, r"X: got 1e\+39 at \[0, 2\], too large for float32; expected finite"),
        ([[1, 2, 10**400]], TypeError, "X: got dtype object"),
    ],
)
def test_matrix_says_what_is_wrong(X: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check.matrix("X", X, 3, np.float32)  # type: ignore[arg-type]


def test_a_sparse_matrix_is_named_as_such() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for form in (sparse.csr_matrix, sparse.coo_array):
        with pytest.raises(TypeError, match=r"X: got a sparse matrix, expected a dense array; pass X.toarray\(\)"):
            check.matrix("X", form(np.eye(3)), 3, np.float32)


@given(st.integers(1, 9000), st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_one_bad_number_is_found_wherever_it_is(n: int, data: st.DataObject, bad: float) -> None:
    X = np.ones((n, 2), np.float32)
    row, column = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, 1))
    X[row, column] = bad
    with pytest.raises(ValueError, match=rf"X: got {bad} at \[{row}, {column}\]"):
        check.matrix("X", X, 2, np.float32)


def test_the_largest_numbers_are_finite() -> None:
    for dtype in (np.float32, np.float64):
        largest = np.finfo(dtype).max
        assert check.matrix("X", [[largest, -largest]], 2, dtype).tolist() == [[largest, -largest]]
    assert check.matrix("X", [[1e-60, 5e-324]], 2, np.float32).tolist() == [[0, 0]]  # too small is zero
