"""Tables as rows of numbers: numeric columns standardised, categories one-hot, missing values as was asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotloop import check, inputs, tables
from hotloop.inputs import Rows
from hotloop.standardizer import Standardizer
from hotloop.tables import Column


@dataclass
class _Numeric:
    """A column as (x - mean) / scale, a missing value as 0 (the mean), and one that tells whether it was missing."""

    mean: float
    scale: float
    indicator: bool

    kind = "numeric"

    @property
    def width(self) -> int:
        return 1 + self.indicator

    def names(self, column: str) -> list[str]:
        return [column, *([f"{column} missing"] if self.indicator else [])]

    def write(self, column: Column, unknown: str, out: NDArray[Any]) -> None:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            out[:, 0] = np.where(column.missing, 0.0, (column.numbers() - self.mean) / self.scale)
        if self.indicator:
            out[:, 1] = column.missing


@dataclass
class _Categories:
    """A column as one column for each category, 1 where it is the one; a missing value has a column of its own."""

    values: list[Any]
    indicator: bool

    kind = "categories"

    @property
    def width(self) -> int:
        return len(self.values) + self.indicator

    def names(self, column: str) -> list[str]:
        return [f"{column}={value}" for value in self.values] + ([f"{column} missing"] if self.indicator else [])

    def write(self, column: Column, unknown: str, out: NDArray[Any]) -> None:
        places = {value: place for place, value in enumerate(self.values)}
        codes = np.array([places.get(value, -1) for value in column.values], np.int64)
        strange = (codes < 0) & ~column.missing
        if unknown == "error" and strange.any():
            at = int(np.argmax(strange))
            known = ", ".join(map(repr, self.values[:8])) + (", ..." if len(self.values) > 8 else "")
            raise ValueError(
                f"{column.name}: got unknown category {column.values[at]!r} in row {at}, expected one of {known}."
            )
        out[:] = 0
        known_rows = np.flatnonzero(codes >= 0)
        out[known_rows, codes[known_rows]] = 1
        if self.indicator:
            out[:, -1] = column.missing


class TableEncoder:
    """A table as rows of numbers: numeric columns standardised, categories one-hot; stored as `model.prepare`.

    >>> encoder = TableEncoder().fit(table)
    >>> model = MLP([encoder.width, 32, 2], output="softmax")
    >>> model.prepare = encoder

    A table is a pandas or polars frame, a dict of columns, or an array (n_samples, n_columns) of objects, text or
    numbers. Columns of a frame or dict are found by name, in any order, others are left alone; those of an array by
    place. A numeric column becomes (x - mean) / scale as in Standardizer, one of text one column of 0 and 1 for each
    category, in sorted order.

    categorical  names (or numbers) of columns whose numbers are categories too
    missing      "error", or "mean": a missing number (None, NaN, NA) is its column's mean, a missing category none of
                 them, and a column that lacked values when fitted gets one more, 1 where the value is missing
    unknown      a category that was not there when fitted: "zeros" in all columns of the category, or "error"

    width columns of the rows it gives, columns of those it takes, names of the former.
    """

    kind = "table"

    def __init__(self, categorical: Sequence[str | int] = (), missing: str = "error", unknown: str = "zeros") -> None:
        if isinstance(categorical, str) or not all(isinstance(name, str | int) for name in categorical):
            raise TypeError(f"categorical: got {categorical!r}, expected a list of names of columns.")
        self.categorical = tuple(categorical)
        self.missing = check.choice("missing", missing, ("error", "mean"))
        self.unknown = check.choice("unknown", unknown, ("zeros", "error"))
        self._parts: dict[str, _Numeric | _Categories] = {}

    @property
    def width(self) -> int:
        """Columns of the rows it gives; 0 before it is fitted."""
        return sum(part.width for part in self._parts.values())

    @property
    def columns(self) -> int:
        """Columns of the table it takes."""
        return len(self._parts)

    @property
    def names(self) -> list[str]:
        """A name for each column of the rows it gives."""
        return [name for column, part in self._parts.items() for name in part.names(column)]

    def fit(self, X: Any) -> "TableEncoder":
        """Learn means, scales and categories from a table, forgetting earlier ones."""
        found = tables.read("X", X, None)
        chosen = [str(name) for name in self.categorical]
        for name in chosen:
            if name not in found:
                raise ValueError(f"categorical: got {name!r}, expected some of {', '.join(found)}.")
        self._parts = {name: self._part(column, name in chosen) for name, column in found.items()}
        return self

    def _part(self, column: Column, categorical: bool) -> _Numeric | _Categories:
        gaps = self._gaps(column)
        if categorical or not column.numeric:
            return _Categories(column.categories(), gaps)
        numbers = column.numbers()[~column.missing]
        if not len(numbers):
            raise ValueError(f"{column.name}: got no values at all, expected some to learn from.")
        check.finite(column.name, numbers, numbers)
        learned = Standardizer().fit(numbers[:, None])
        return _Numeric(float(learned.mean[0]), float(learned.scale[0]), gaps)

    def _gaps(self, column: Column) -> bool:
        """Whether values are missing, which has to be allowed."""
        gaps = bool(column.missing.any())
        if gaps and self.missing == "error":
            raise ValueError(
                f"{column.name}: got no value in row {np.argmax(column.missing)}; "
                "fill it in, or use TableEncoder(missing='mean')."
            )
        return gaps

    def read(self, name: str, X: Any, dtype: DTypeLike) -> Rows:
        """The table as checked rows (n, width) in the form of the kernels."""
        found = tables.read(name, X, list(self._parts))
        n = len(next(iter(found.values())).values)
        out, start = np.empty((n, self.width), dtype), 0
        for column, part in zip(found.values(), self._parts.values(), strict=True):
            self._gaps(column)
            if isinstance(part, _Numeric) and (text := column.text()) is not None:
                raise TypeError(f"{column.name}: got {text!r}, expected numbers.")
            part.write(column, self.unknown, out[:, start : start + part.width])
            if isinstance(part, _Numeric):
                check.finite(column.name, out[:, start].copy(), column.numbers())
            start += part.width
        return inputs.dense(out)

    def row(self, x: Any, dtype: DTypeLike) -> NDArray[Any]:
        """One row, a dict of values or as many values as there were columns, as numbers (width,)."""
        if isinstance(x, Mapping):
            table: Any = {name: [value] for name, value in x.items()}
        else:
            values = list(x) if isinstance(x, list | tuple | np.ndarray) else []
            if len(values) != self.columns:
                raise ValueError(f"x: got {x!r}, expected a dict, or {self.columns} values: {', '.join(self._parts)}.")
            table = {name: [value] for name, value in zip(self._parts, values, strict=True)}
        return np.asarray(self.read("x", table, dtype).arrays.X[0])

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a file keeps: entries of the header, and arrays."""
        numeric = [part for part in self._parts.values() if isinstance(part, _Numeric)]
        described = [
            {"name": name, "kind": part.kind, "indicator": part.indicator}
            | ({"values": part.values} if isinstance(part, _Categories) else {})
            for name, part in self._parts.items()
        ]
        header = {"kind": self.kind, "missing": self.missing, "unknown": self.unknown, "columns": described}
        moments = [[part.mean for part in numeric], [part.scale for part in numeric]]
        return header, dict(zip(("mean", "scale"), np.array(moments, np.float64), strict=True))

    @classmethod
    def restore(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "TableEncoder":
        """The encoder of a file; ValueError, KeyError or TypeError where it is damaged."""
        found = cls((), header["missing"], header["unknown"])
        mean, scale = arrays["mean"], arrays["scale"]
        described = header["columns"]
        numeric = sum(entry["kind"] == _Numeric.kind for entry in described)
        if set(arrays) != {"mean", "scale"} or mean.shape != (numeric,) or scale.shape != (numeric,):
            raise ValueError("the arrays of its encoder do not fit its columns")
        if not (scale > 0).all():
            raise ValueError("a scale is not positive")
        moments = zip(mean.tolist(), scale.tolist(), strict=True)
        for entry in described:
            name, indicator = entry["name"], check.boolean("indicator", entry["indicator"])
            if not isinstance(name, str) or name in found._parts:
                raise ValueError(f"column {name!r}")
            if entry["kind"] == _Numeric.kind:
                found._parts[name] = _Numeric(*next(moments), indicator)
            elif entry["kind"] == _Categories.kind:
                found._parts[name] = _Categories(tables.distinct(name, entry["values"]), indicator)
            else:
                raise ValueError(f"column {name!r} is of kind {entry['kind']!r}")
        found.categorical = tuple(name for name, part in found._parts.items() if isinstance(part, _Categories))
        return found

    def __repr__(self) -> str:
        state = f"{self.columns} columns -> {self.width}" if self._parts else "not fitted"
        return f"TableEncoder({state}, missing={self.missing!r}, unknown={self.unknown!r})"
