"""Tables: frames, dicts and arrays of objects become the same rows of numbers, and what cannot is named."""

import math

import numpy as np
import pytest

from hotloop import MLP, TableEncoder, Trainer

AGE = [20.0, 30.0, 40.0, 50.0]
COLOUR = ["red", "blue", "red", "green"]
FLAG = [True, False, True, True]
TABLE = {"age": AGE, "colour": COLOUR, "flag": FLAG}
DEVIATION = math.sqrt(125)


def rows(encoder: TableEncoder, table: object, dtype: str = "float64") -> np.ndarray:
    """The table as numbers."""
    return encoder.read("X", table, dtype).arrays.X  # type: ignore[no-any-return]


def expected() -> np.ndarray:
    """The table above, by hand."""
    flag = (np.array(FLAG) - 0.75) / np.std(FLAG)
    one_hot = [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]  # blue, green, red
    return np.column_stack([(np.array(AGE) - 35) / DEVIATION, one_hot, flag])


def forms() -> dict[str, object]:
    """The table in every form that can be had here."""
    objects = np.array(list(zip(AGE, COLOUR, FLAG, strict=True)), object)
    found: dict[str, object] = {
        "dict": TABLE,
        "dict of arrays": {"age": np.array(AGE, np.float32), "colour": np.array(COLOUR), "flag": np.array(FLAG)},
        "objects": objects,
        "lists": objects.tolist(),
    }
    for library in ("pandas", "polars"):
        try:
            frame = __import__(library).DataFrame(TABLE)
        except ImportError:
            continue
        found[library] = frame
    return found


@pytest.mark.parametrize("form", forms())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_form_gives_the_same_rows(form: str, dtype: str) -> None:
    table = forms()[form]
    encoder = TableEncoder().fit(table)
    assert encoder.width == 5 and encoder.columns == 3
    found = rows(encoder, table, dtype)
    assert found.dtype == dtype and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected(), rtol=1e-6 if dtype == "float32" else 1e-14)
    np.testing.assert_array_equal(encoder.row([40.0, "red", True], dtype), found[2])
    if form not in ("objects", "lists"):
        assert encoder.names == ["age", "colour=blue", "colour=green", "colour=red", "flag"]
        np.testing.assert_array_equal(encoder.row({"flag": True, "colour": "red", "age": 40}, dtype), found[2])


def test_columns_are_found_by_name_and_others_left_alone() -> None:
    encoder = TableEncoder().fit(TABLE)
    other = {"flag": FLAG, "target": [1, 2, 3, object()], "colour": COLOUR, "age": AGE}
    np.testing.assert_array_equal(rows(encoder, other), rows(encoder, TABLE))
    with pytest.raises(ValueError, match=r"X: got no column 'colour'; it has age, flag"):
        rows(encoder, {"age": AGE, "flag": FLAG})
    with pytest.raises(ValueError, match=r"X: got shape \(4, 2\), expected 3 columns: age, colour, flag"):
        rows(encoder, np.zeros((4, 2)))


def test_numbers_as_categories() -> None:
    encoder = TableEncoder(categorical=["zip"]).fit({"zip": [10, 20, 10], "n": [1, 2, 3]})
    assert encoder.names == ["zip=10", "zip=20", "n"]
    np.testing.assert_array_equal(rows(encoder, {"zip": np.array([20.0]), "n": [2]}), [[0, 1, 0]])
    assert TableEncoder(categorical=[1]).fit([[1, 5], [2, 6]]).names == ["0", "1=5", "1=6"]
    with pytest.raises(ValueError, match=r"categorical: got 'zap', expected some of zip, n"):
        TableEncoder(categorical=["zap"]).fit({"zip": [1], "n": [2]})
    with pytest.raises(TypeError, match=r"categorical: got 'zip', expected a list"):
        TableEncoder(categorical="zip")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_stored_as_categories_are_categories(library: str) -> None:
    frames = pytest.importorskip(library)
    if library == "pandas":
        frame = frames.DataFrame({"a": frames.Categorical([3, 1, 3]), "b": [1.0, 2.0, 3.0]})
        assert TableEncoder().fit(frame).names == ["a=1", "a=3", "b"]
    else:
        frame = frames.DataFrame({"a": frames.Series(["x", "y", "x"], dtype=frames.Categorical), "b": [1, 2, 3]})
        assert TableEncoder().fit(frame).names == ["a=x", "a=y", "b"]


def missing_tables() -> dict[str, object]:
    """Missing values as each library has them."""
    found: dict[str, object] = {
        "None": {"a": [1, None, 3], "b": ["x", "y", None], "c": [1, 2, 3]},
        "NaN": {"a": np.array([1, np.nan, 3]), "b": np.array(["x", "y", np.nan], object), "c": [1, 2, 3]},
    }
    for library in ("pandas", "polars"):
        try:
            frames = __import__(library)
        except ImportError:
            continue
        found[library] = frames.DataFrame(found["None"])
        if library == "pandas":
            found["NA"] = found[library].astype({"a": "Int64", "b": "string"})  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("form", missing_tables())
def test_missing_values(form: str) -> None:
    table = missing_tables()[form]
    with pytest.raises(ValueError, match=r"X\['a'\]: got no value in row 1; fill it in, or use .*missing='mean'"):
        TableEncoder().fit(table)
    encoder = TableEncoder(missing="mean").fit(table)
    assert encoder.names == ["a", "a missing", "b=x", "b=y", "b missing", "c"]
    third = math.sqrt(2 / 3)
    np.testing.assert_allclose(
        rows(encoder, table), [[-1, 0, 1, 0, 0, -1 / third], [0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 1, 1 / third]], atol=1e-15
    )
    # A column that lacked nothing then: the mean, with no column to say so.
    np.testing.assert_allclose(encoder.row({"a": 3, "b": "x", "c": None}, "float64"), [1, 0, 1, 0, 0, 0])
    strict = TableEncoder().fit({"a": [1, 2], "b": ["x", "y"]})
    with pytest.raises(ValueError, match=r"x\['b'\]: got no value in row 0"):
        strict.row({"a": 1, "b": None}, "float64")


def test_unknown_categories() -> None:
    table = {"b": ["x", "y"]}
    np.testing.assert_array_equal(rows(TableEncoder().fit(table), {"b": ["z", "x"]}), [[0, 0], [1, 0]])
    strict = TableEncoder(unknown="error").fit(table)
    with pytest.raises(ValueError, match=r"X\['b'\]: got unknown category 'z' in row 1, expected one of 'x', 'y'"):
        rows(strict, {"b": ["x", "z"]})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (5, "X: got int, expected a frame, a dict of columns or an array"),
        (np.zeros(3), r"X: got shape \(3,\)"),
        (np.zeros((0, 3)), r"X: got shape \(0, 3\)"),
        ([[1, 2], [3]], r"X: got shape \(2,\)"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], "X: expected rows of one length"),
        ({}, r"X: got columns of \[\] rows"),
        ({"a": []}, r"X: got columns of \[0\] rows"),
        ({"a": [1], "b": [1, 2]}, r"X: got columns of \[1, 2\] rows, expected one or more, as many in each"),
        ({"a": [1, "x"]}, r"X\['a'\]: got both text and numbers"),
        ({"a": [1, b"x"]}, r"X\['a'\]: got b'x' of type bytes, expected numbers or text"),
        ({"a": [1j]}, r"X\['a'\]: got 1j of type complex"),
        ({"a": np.array(["2020-01-01"], "M8[D]")}, r"X\['a'\]: got datetime.date"),
        ({"a": [1.0, math.inf]}, r"X\['a'\]: got inf at \[1\]"),
        ({"a": [1, 10**400]}, r"X\['a'\]: got a whole number too large for float64"),
        ({"a": [None, None]}, r"X\['a'\]: got no value in row 0"),
    ],
)
def test_tables_that_cannot_be_read(table: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        TableEncoder().fit(table)


def test_a_column_without_any_value() -> None:
    for column in ([None, None], np.array([np.nan, np.nan])):
        with pytest.raises(ValueError, match=r"X\['a'\]: got no values at all"):
            TableEncoder(missing="mean").fit({"a": column})


def test_two_columns_of_one_name() -> None:
    frames = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="expected every name once"):
        TableEncoder().fit(frames.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0, "red"], r"x: got \[1.0, 'red'\], expected a dict, or 3 values: age, colour, flag"),
        (5, "x: got 5, expected a dict"),
        ({"age": 1}, "x: got no column 'colour'"),
        ({"age": "old", "colour": "red", "flag": 1}, r"x\['age'\]: got 'old', expected numbers"),
        ({"age": 1e300, "colour": "red", "flag": 1}, r"x\['age'\]: got 1e\+300 at \[0\], too large for float32"),
    ],
)
def test_a_row_that_cannot_be_read(row: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        TableEncoder().fit(TABLE).row(row, "float32")


def test_bad_options_and_text() -> None:
    with pytest.raises(ValueError, match="missing: got 'man'; did you mean 'mean'"):
        TableEncoder(missing="man")
    with pytest.raises(ValueError, match="unknown: got 'zero'; did you mean 'zeros'"):
        TableEncoder(unknown="zero")
    assert repr(TableEncoder()) == "TableEncoder(not fitted, missing='error', unknown='zeros')"
    assert repr(TableEncoder().fit(TABLE)) == "TableEncoder(3 columns -> 5, missing='error', unknown='zeros')"


@pytest.mark.parametrize("form", forms())
def test_a_model_learns_and_predicts_from_a_table(form: str) -> None:
    table = forms()[form]
    encoder = TableEncoder().fit(table)
    model = MLP([encoder.width, 8, 2], output="softmax", seed=1)
    model.prepare = encoder
    Trainer(batch_size=1, epochs=100).fit(model, table, ["yes", "no", "yes", "no"])
    assert model.predict(table).tolist() == ["yes", "no", "yes", "no"]
    assert model.predict_one([30, "blue", False]) == "no"
