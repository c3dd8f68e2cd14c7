"""Data sets to start with, and seeded splits: `load("digits")` needs no network, `load("mnist")` may.

`digits` is shipped inside the package (ATTRIBUTION.txt beside this file has its source and licence). `mnist` is read
from the folder named by the environment variable HOTLOOP_DATA, else fetched through scikit-learn's OpenML loader.
"""

import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hotloop import check
from hotloop.data.idx import read_idx
from hotloop.data.partition import divide, partition

__all__ = ["DATASETS", "Dataset", "load", "load_digits", "load_mnist", "partition", "read_idx", "split"]


class Dataset(NamedTuple):
    """Rows to learn from and rows to test on: X (n_samples, n_features), y (n_samples,)."""

    X_train: npt.NDArray[Any]
    y_train: npt.NDArray[Any]
    X_test: npt.NDArray[Any]
    y_test: npt.NDArray[Any]


def load_digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Load the 1,797 handwritten digits of UCI, 8 x 8 pixels, shipped with the package.

    Returns X float32 (1797, 64) in [0, 1] (ink / 16) and y int64 (1797,), the digits 0 to 9.
    Source: Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI, DOI 10.24432/C50P49, CC BY 4.0.
    """
    file = resources.files(__name__).joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(16), labels.astype(np.int64)


def load_mnist() -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 pixels.

    Returns X float32 (n, 784) in [0, 1] (pixel / 255) and y int64 (n,).
    Where HOTLOOP_DATA is set, reads the four idx files (plain or .gz) from HOTLOOP_DATA/mnist, else from HOTLOOP_DATA
    itself; where it is not, downloads through scikit-learn (extra `hotloop[sklearn]`), which keeps a copy.
    Raises FileNotFoundError when HOTLOOP_DATA has no such files, ValueError when one is damaged, ImportError without
    scikit-learn, ConnectionError when the download fails.
    Source: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    folder = os.environ.get("HOTLOOP_DATA")
    return _mnist_from_folder(Path(folder).expanduser()) if folder else _mnist_from_openml()


def split(
    X: npt.NDArray[Any], y: npt.NDArray[Any], test_fraction: float = 0.2, seed: int = 0, stratify: bool = False
) -> Dataset:
    """Shuffle the rows and put `test_fraction` of them aside; the same seed gives the same rows everywhere.

    X (n_samples, ...) and y (n_samples, ...) of any dtype; nothing is written in place.
    stratify: every class of y (n_samples,) gets its share of the test rows, to within one row.
    `partition` divides into more parts, and more than two arrays.
    Raises ValueError when the lengths differ or either part would be empty.
    """
    n = X.shape[0]
    if y.shape[0] != n:
        raise ValueError(f"X and y must have as many rows as each other; {n} and {y.shape[0]} came")
    n_test = round(n * test_fraction) if 0.0 < test_fraction < 1.0 else 0
    if not 0 < n_test < n:
        raise ValueError(f"test_fraction={test_fraction} of {n} rows leaves the training or the test part empty")
    if stratify and y.ndim != 1:
        raise ValueError(f"stratify needs one class per row, y of shape ({n},); the shape {y.shape} came")
    codes = np.unique(y, return_inverse=True)[1] if stratify else None
    train, test = divide(n, (n - n_test, n_test), seed, codes=codes)
    return Dataset(X[train], y[train], X[test], y[test])


def _digits() -> Dataset:
    return split(*load_digits(), test_fraction=0.2, seed=0, stratify=True)


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": _digits, "mnist": load_mnist}


def load(name: str) -> Dataset:
    """Load a data set by name, already split: `X_train, y_train, X_test, y_test = load("digits")`.

    digits: 1,438 rows to train and 359 to test, stratified, always the same ones. mnist: its own 60,000 and 10,000.
    X float32 in [0, 1], y int64. Raises ValueError for an unknown name, and what the loader raises.
    """
    return DATASETS[check.choice("data set", name, DATASETS)]()


def _mnist_from_folder(folder: Path) -> Dataset:
    X_train, y_train = _images_and_labels(folder, "train")
    X_test, y_test = _images_and_labels(folder, "t10k")
    if X_train.shape[1] != X_test.shape[1]:
        raise ValueError(
            f"{folder}: the training images have {X_train.shape[1]} pixels each and the test images {X_test.shape[1]}"
        )
    return Dataset(X_train, y_train, X_test, y_test)


def _find(folder: Path, name: str) -> Path:
    for place in (folder / "mnist", folder):
        for candidate in (name, name + ".gz"):
            if (place / candidate).is_file():
                return place / candidate
    raise FileNotFoundError(
        f"HOTLOOP_DATA is {folder}, but neither it nor its folder mnist has the file {name} or {name}.gz; "
        "point HOTLOOP_DATA at the MNIST files, or unset it to download them through scikit-learn"
    )


def _images_and_labels(folder: Path, part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    images, labels = _find(folder, f"{part}-images-idx3-ubyte"), _find(folder, f"{part}-labels-idx1-ubyte")
    pixels, classes = read_idx(images, ndim=3), read_idx(labels, ndim=1)
    if pixels.size == 0:
        raise ValueError(f"{images}: expected images, but the header gives the shape {pixels.shape}")
    if len(pixels) != len(classes):
        raise ValueError(f"{images}: {len(pixels)} images, but {labels.name} has {len(classes)} labels")
    return _scaled(pixels.reshape(len(pixels), -1)), classes.astype(np.int64)


def _scaled(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    values = pixels.astype(np.float32)
    values /= np.float32(255)
    return values


def _mnist_from_openml() -> Dataset:
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise ImportError(
            "MNIST is not here: point the environment variable HOTLOOP_DATA at a folder with its four idx files, "
            'or install scikit-learn, which downloads it: pip install "hotloop[sklearn]"'
        ) from error
    try:
        # liac-arff: the other parser would need pandas.
        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="liac-arff")
    except (OSError, ValueError) as error:  # no network, or a damaged answer
        raise ConnectionError(
            f"MNIST could not be downloaded from OpenML ({error}); "
            "point the environment variable HOTLOOP_DATA at a folder with its four idx files instead"
        ) from error
    values, classes = _scaled(X), y.astype(np.int64)
    return Dataset(values[:60_000], classes[:60_000], values[60_000:], classes[60_000:])
