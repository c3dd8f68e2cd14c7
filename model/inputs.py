"""The rows a model reads: a dense matrix, or a compressed sparse one that is never made dense."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hotloop import check
from hotloop.kernels import sparse
from hotloop.kernels.plan import Inputs
from hotloop.kernels.simd import LANES

MOST_LISTED = 48 << 20  # bytes of a second copy of rows, their entries that are not zero
PROBED = 256  # rows that a density is estimated from


@dataclass(frozen=True)
class Rows:
    """Checked rows in the form the kernels take."""

    arrays: Inputs

    def __len__(self) -> int:
        starts = self.arrays.start
        return len(starts) - 1 if len(starts) else len(self.arrays.X)

    @property
    def on_device(self) -> bool:
        """Whether the rows lie on a GPU; dense, then."""
        return on_device(self.arrays.X)

    @property
    def compressed(self) -> bool:
        """Whether the rows came as a sparse matrix."""
        return len(self.arrays.start) > 0

    def density(self) -> float:
        """Share of non-zero entries, by a sample of the rows: the same for dense and compressed ones."""
        X, starts = self.arrays.X, self.arrays.start
        every = max(1, len(self) // PROBED)
        if self.compressed:
            counts = starts[1::every] - starts[:-1:every]
            return float(counts.sum() / (len(counts) * X.shape[1]))
        some = X[::every]
        return float(np.count_nonzero(some != 0) / some.size)  # of truth values: ten times as fast as of numbers

    def listed(self) -> "Rows":
        """These dense rows with their entries that are not zero beside them, if those fit in MOST_LISTED."""
        X, value, index, start = self.arrays
        n, width = X.shape
        entries = min(n * width, MOST_LISTED // (value.itemsize + index.itemsize)) + width + LANES
        start, index, value = np.empty(n + 1, np.int64), np.empty(entries, index.dtype), np.empty(entries, value.dtype)
        fit = sparse.list_rows(X, start, index, value)  # memory that is not written is not taken
        return Rows(Inputs(X, value, index, start)) if fit else self

    def take(self, chosen: NDArray[np.int64]) -> "Rows":
        """A copy of some of the rows; it lies where they lie."""
        X, values, indices, starts = self.arrays
        if self.on_device:
            from hotloop.kernels.cuda import arrays

            return Rows(self.arrays._replace(X=arrays.take(X, chosen)))
        if not self.compressed:
            return Rows(Inputs(X[chosen], values, indices, starts))
        counts = starts[chosen + 1] - starts[chosen]
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        places = np.repeat(starts[chosen] - ends[:-1], counts) + np.arange(ends[-1])
        return Rows(Inputs(X, values[places], indices[places], ends))

    def host(self) -> "Rows":
        """These rows on the host: themselves, or a copy."""
        return Rows(self.arrays._replace(X=self.arrays.X.copy_to_host())) if self.on_device else self


def read(name: str, value: ArrayLike, columns: int, dtype: DTypeLike) -> Rows:
    """Check rows (n_samples, columns), dense or any SciPy sparse matrix; see check.matrix."""
    if hasattr(value, "tocsr"):
        return _compressed(name, value, columns, dtype)
    return dense(check.matrix(name, value, columns, dtype))


def dense(X: NDArray[Any]) -> Rows:
    """Rows of an array that is already in the form of the kernels."""
    return Rows(Inputs(X, X.reshape(-1)[:0], np.empty(0, np.int32), np.empty(0, np.int64)))


def _sound(name: str, rows: Any) -> None:
    """Refuse a matrix whose arrays do not fit together, before anything follows them out of bounds."""
    indices, starts, (n, columns) = rows.indices, rows.indptr, rows.shape
    whole = len(starts) == n + 1 and starts[0] == 0 and starts[-1] == len(indices) == len(rows.data)
    if not whole or (np.diff(starts) < 0).any():
        raise ValueError(
            f"{name}: got a broken sparse matrix, its indptr does not divide its {len(rows.data)} entries."
        )
    if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
        raise ValueError(
            f"{name}: got column indices {indices.min()} to {indices.max()} in a sparse matrix, "
            f"expected 0 to {columns - 1}."
        )


def _compressed(name: str, value: Any, columns: int, dtype: DTypeLike) -> Rows:
    if value.ndim != 2 or value.shape[1] != columns or value.shape[0] == 0:
        raise ValueError(f"{name}: got shape {value.shape}, expected (n_samples, {columns}), at least one sample.")
    rows = value.tocsr()
    if rows.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got dtype {rows.dtype}, expected numbers.")
    _sound(name, rows)
    if not rows.has_canonical_format:  # unsorted or repeated entries; the matrix given stays as it is
        rows = rows.copy()
        rows.sum_duplicates()
    values = check.for_kernels(rows.data, dtype)
    check.finite(f"{name}.data", values, rows.data)
    indices, starts = check.for_kernels(rows.indices, np.int32), check.for_kernels(rows.indptr, np.int64)
    if np.count_nonzero(values) < len(values):  # a stored zero must not change how sums are rounded
        stays = values != 0
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(stays)])[starts]
        values, indices = values[stays], indices[stays]
    return Rows(Inputs(np.empty((0, columns), values.dtype), values, indices, starts))


def on_device(array: Any) -> bool:
    """Whether an array lies on a GPU: __cuda_array_interface__ (CuPy, Numba, PyTorch, JAX) or DLPack."""
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) in (2, 13)  # CUDA, CUDA managed
