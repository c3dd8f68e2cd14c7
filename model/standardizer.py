"""Columns brought to mean 0 and standard deviation 1 before the first layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hotloop import check, inputs
from hotloop.inputs import Rows
from hotloop.kernels.plan import Inputs
from hotloop.kernels.standardize import standardize, standardize_row

CHUNK = 1 << 17  # elements read at once, as float64
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
NO_CENTER = (
    "taking the mean away would make it dense; "
    "expected Standardizer(center=False), or one fitted on sparse rows, which only scales."
)
State = tuple[NDArray[Any], NDArray[Any], NDArray[Any], int]  # as Standardizer._set takes it
EMPTY: State = (np.empty(0), np.empty(0), np.empty(0), 0)


class Standardizer:
    """z = (x - mean) / scale for each column, scale the standard deviation; stored with a model as `model.prepare`.

    >>> model.prepare = Standardizer().fit(X_train)

    center  True, False, or None: True for dense rows. Sparse rows are never made dense: they are scaled only, and a
            standardiser fitted on dense rows refuses them unless center is False

    A constant column has scale 1. Sums are float64, in two passes over each chunk of rows, and chunks are joined as in
    Chan, Golub and LeVeque 1983; the deviations are taken from the first row, so a large mean costs no digits.
    mean, scale (n_features,) float64; count rows seen; width columns.
    """

    kind = "standardizer"

    def __init__(self, center: bool | None = None) -> None:
        self.center = None if center is None else check.boolean("center", center)
        self._centers = bool(self.center)
        self._set(*EMPTY)

    def _set(self, origin: NDArray[Any], mean: NDArray[Any], squares: NDArray[Any], count: int) -> None:
        """The state: mean of the deviations from origin, the sum of their squares about it, rows; all else follows."""
        self._origin, self._deviation, self._squares, self.count = origin, mean, squares, count
        self.mean = origin + mean
        spread = np.sqrt(squares / max(count, 1))
        self.scale = np.where(spread > np.finfo(np.float64).tiny, spread, 1.0)
        self._shift = self.mean if self._centers else np.zeros_like(self.mean)
        self._inverse, self._shape = 1.0 / self.scale, self.mean.shape

    @property
    def width(self) -> int:
        """Columns of the rows it gives; 0 before it is fitted."""
        return len(self.mean)

    @property
    def columns(self) -> int:
        """Columns of the rows it takes."""
        return len(self.mean)

    def fit(self, X: ArrayLike) -> "Standardizer":
        """Learn mean and scale from X (n, n_features), dense or sparse, forgetting earlier rows."""
        return self._learn(X, fresh=True)

    def partial_fit(self, X: ArrayLike) -> "Standardizer":
        """Learn from more rows X (n, n_features); a model that holds this standardiser sees the change at once."""
        return self._learn(X, fresh=self.count == 0)

    def _learn(self, X: Any, fresh: bool) -> "Standardizer":
        sparse = hasattr(X, "tocsr")
        given = X if sparse else check.numeric("X", X)
        if given.ndim != 2 or 0 in given.shape or (not fresh and given.shape[1] != self.width):
            raise ValueError(
                f"X: got shape {given.shape}, expected (n_samples, {'n_features' if fresh else self.width})."
            )
        centers = self._centers
        if fresh:
            centers = not sparse if self.center is None else self.center
        if sparse and centers:
            raise ValueError(f"X: got a sparse matrix, but {NO_CENTER}")
        state = EMPTY if fresh else (self._origin, self._deviation, self._squares, self.count)
        with np.errstate(all="ignore"):  # what is not finite is told below
            state = _sparse(given, state) if sparse else _dense(given, state)
        if not np.isfinite(state[2]).all():
            place = int(np.argmin(np.isfinite(state[2])))
            raise ValueError(f"X: column {place} spreads too far for float64.")
        self._centers = centers
        self._set(*state)
        return self

    def read(self, name: str, X: ArrayLike, dtype: DTypeLike) -> Rows:
        """Checked rows X (n, n_features), standardised, in the form and dtype of the kernels."""
        if hasattr(X, "tocsr"):
            return self._read_sparse(name, X, dtype)
        given = check.samples(name, X, self.width)
        out = np.empty(given.shape, dtype)
        if given.dtype in FLOATS and given.flags.carray:
            standardize(given, self._shift, self._inverse, out)
        else:
            step = max(1, CHUNK // self.width)
            for start in range(0, len(given), step):
                rows = check.for_kernels(given[start : start + step], np.float64)
                standardize(rows, self._shift, self._inverse, out[start : start + step])
        check.finite(name, out, given)
        return inputs.dense(out)

    def _read_sparse(self, name: str, X: Any, dtype: DTypeLike) -> Rows:
        if self._centers:
            raise ValueError(f"{name}: got a sparse matrix, but {NO_CENTER}")
        rows = inputs.read(name, X, self.width, np.float64)
        _, value, index, start = rows.arrays
        scaled = check.for_kernels(value * self._inverse[index], dtype)
        check.finite(f"{name}.data", scaled, value)
        return Rows(Inputs(np.empty((0, self.width), dtype), scaled, index, start))

    def row(self, x: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
        """One row x (n_features,), standardised; finiteness is not checked."""
        if isinstance(x, np.ndarray) and x.dtype in FLOATS and x.flags.carray:
            given = x
        else:
            given = check.for_kernels(check.numeric("x", x), np.float64)
        if given.shape != self._shape:
            raise ValueError(f"x: got shape {given.shape}, expected {self._shape}.")
        out = np.empty(self._shape, dtype)
        standardize_row(given, self._shift, self._inverse, out)
        return out

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a file keeps: entries of the header, and arrays."""
        return (
            {"kind": self.kind, "center": self._centers, "count": self.count},
            {"mean": self.mean, "squares": self._squares},  # the variance times the count
        )

    @classmethod
    def restore(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "Standardizer":
        """The standardiser of a file; ValueError, KeyError or TypeError where it is damaged."""
        found = cls(check.boolean("center", header["center"]))
        count = check.integer("count", header["count"], 1, 2**53)
        mean, squares = arrays["mean"], arrays["squares"]
        if set(arrays) != {"mean", "squares"} or mean.ndim != 1 or mean.shape != squares.shape or len(mean) == 0:
            raise ValueError("the arrays of its standardiser do not fit each other")
        if (squares < 0).any():
            raise ValueError("a variance is negative")
        found._set(mean, np.zeros_like(mean), squares, count)
        return found

    def __repr__(self) -> str:
        state = f"{self.width} columns, {'centred and scaled' if self._centers else 'scaled only'}, {self.count:,} rows"
        return f"Standardizer({state if self.count else 'not fitted'})"


def _dense(given: NDArray[Any], state: State) -> State:
    step = max(1, CHUNK // given.shape[1])
    for start in range(0, len(given), step):
        rows = given[start : start + step].astype(np.float64, order="C")
        origin = state[0] if state[3] else rows[0].copy()
        rows -= origin
        mean = rows.mean(axis=0)
        rows -= mean
        state = _joined(origin, state, mean, np.square(rows).sum(axis=0), len(rows))
        if not np.isfinite(state[2]).all():
            check.finite("X", given.astype(np.float64), given)
    return state


def _sparse(given: Any, state: State) -> State:
    """The same sums over the entries that are there, and so many zeros."""
    n, k = given.shape
    _, value, index, start = inputs.read("X", given, k, np.float64).arrays
    origin = state[0]
    if not state[3]:
        origin = np.zeros(k)
        origin[index[: start[1]]] = value[: start[1]]
    zeros = n - np.bincount(index, minlength=k)
    mean = (np.bincount(index, value - origin[index], k) - zeros * origin) / n
    squares = np.bincount(index, np.square(value - origin[index] - mean[index]), k)
    squares += np.where(zeros > 0, zeros * np.square(origin + mean), 0.0)
    return _joined(origin, state, mean, squares, n)


def _joined(origin: NDArray[Any], state: State, mean: NDArray[Any], squares: NDArray[Any], n: int) -> State:
    """Two groups of rows as one (Chan, Golub and LeVeque 1983, eq. 1.5)."""
    if not state[3]:
        return origin, mean, squares, n
    _, old, old_squares, old_n = state
    apart, total = mean - old, old_n + n
    return origin, old + apart * (n / total), old_squares + squares + np.square(apart) * (old_n * n / total), total
