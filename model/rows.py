"""Rows of numbers from files of people, read with care: nothing is run, nothing allocated on a header's word."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_rows(file: Path) -> NDArray[Any]:
    """Read rows of numbers, (n_samples, n_features), from a .npy file or a .csv file with or without a line of names.

    A .npy file is mapped, not read, and keeps its dtype; a .csv file gives float64.
    Raises FileNotFoundError, or ValueError naming the file, what came and what was expected.
    """
    suffix = file.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise ValueError(f"{file}: expected a .npy or .csv file")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        X = np.load(file, mmap_mode="r", allow_pickle=False) if suffix == ".npy" else _read_csv(file)
    except OSError:
        raise
    except Exception as error:  # a damaged .npy file can raise nearly anything, tokenize.TokenError for one
        raise ValueError(f"{file} cannot be read: {error}") from error
    if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "biuf":
        raise ValueError(f"{file}: expected rows of numbers, (n_samples, n_features); {X.dtype} {X.shape} came")
    return X


def _read_csv(file: Path) -> NDArray[np.float64]:
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    try:
        [float(cell) for cell in lines[0].split(",")]
        head = 0
    except (ValueError, IndexError):
        head = 1  # names of the columns
    if not any(line.strip() for line in lines[head:]):
        raise ValueError("there are no rows of numbers")
    return np.loadtxt(lines[head:], dtype=np.float64, delimiter=",", comments=None, ndmin=2)
