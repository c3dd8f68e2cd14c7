"""Rows from files, good and bad."""

from pathlib import Path

import numpy as np
import pytest

from hotloop.rows import read_rows


def test_npy_is_mapped_and_keeps_its_dtype(tmp_path: Path) -> None:
    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", X)
    rows = read_rows(tmp_path / "x.npy")
    assert isinstance(rows, np.memmap) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows, X)


@pytest.mark.parametrize(
    "text", ["1,2,3\n4,5,6\n", "a,b,c\n1,2,3\n4,5,6", "\ufeff1, 2 ,3\r\n4,5,6\r\n", "1,2,3\n\n4,5,6\n\n"]
)
def test_csv_with_or_without_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_rows(tmp_path / "x.csv"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows of numbers"),
        ("a,b\n", "no rows of numbers"),
        ("1,2\n3,x\n", "'x'"),
        ("1,2\n3\n", "columns"),
        ("1,2\n3,\n", "''"),
        ("a,b\n#,2\n", "'#'"),
    ],
)
def test_csv_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"x\.csv cannot be read: .*{message}"):
        read_rows(tmp_path / "x.csv")


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.csv cannot be read"):
        read_rows(tmp_path / "x.csv")


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 4)), np.array([["a"]])])
def test_npy_of_something_else(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=r"x\.npy"):
        read_rows(tmp_path / "x.npy")


def test_npy_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x\.npy cannot be read"):
        read_rows(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "shape", [b"(9999999999, 3), } ", b"(-1, -3), }        ", b"(2, 3                ", b"(2.5, 3), }        "]
)
def test_npy_with_a_forged_header(tmp_path: Path, shape: bytes) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    content = (tmp_path / "x.npy").read_bytes()
    assert b"(2, 3), }          " in content
    (tmp_path / "x.npy").write_bytes(content.replace(b"(2, 3), }          ", shape[:19], 1))
    with pytest.raises(ValueError, match=r"x\.npy"):
        read_rows(tmp_path / "x.npy")


@pytest.mark.parametrize("content", [b"", b"not numpy at all"])
def test_npy_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npy cannot be read"):
        read_rows(tmp_path / "x.npy")


def test_other_files_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.parquet.*\.npy or \.csv"):
        read_rows(tmp_path / "x.parquet")
    with pytest.raises(FileNotFoundError, match=r"x\.csv"):
        read_rows(tmp_path / "x.csv")
