"""Tables of people: pandas and polars frames, dicts of columns, arrays of objects; and values of classes, with care."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Column:
    """One column: its values as Python's own, None where one is missing."""

    name: str  # as a message shows it
    values: list[Any]
    missing: NDArray[np.bool_]
    numeric: bool

    def numbers(self) -> NDArray[np.float64]:
        """The values as float64, NaN where one is missing."""
        try:
            return np.array([math.nan if value is None else value for value in self.values], np.float64)
        except OverflowError:
            raise ValueError(f"{self.name}: got a whole number too large for float64.") from None

    def categories(self) -> list[Any]:
        """The distinct values, sorted; some, all text or all numbers."""
        present = [value for value in self.values if value is not None]
        if not present:
            raise ValueError(f"{self.name}: got no values at all, expected some to learn from.")
        return distinct(self.name, sorted(set(present), key=lambda value: (isinstance(value, str), value)))

    def text(self) -> str | None:
        """The first value that is text, if any."""
        return next((value for value in self.values if isinstance(value, str)), None)


def distinct(name: str, values: Any) -> list[Any]:
    """A list of distinct values, all text or all finite numbers; ValueError otherwise."""
    if not isinstance(values, list) or not values:
        raise ValueError(f"{name}: got {values!r}, expected a list of values.")
    for value in values:
        if not isinstance(value, str | bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{name}: got {value!r}, expected text or finite numbers.")
    if len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(f"{name}: got both text and numbers, expected one of the two.")
    if len(set(values)) < len(values):
        raise ValueError(f"{name}: got {values!r}, expected every value once.")
    return values


def plain(values: Any) -> list[Any]:
    """The values of one column or of y (n,) as Python's own objects; None for None, NaN and NA."""
    if hasattr(values, "to_list"):  # a series of pandas or polars, whatever it is stored as
        given = values.to_list()
    else:
        given = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [_own(value) for value in given]


def _own(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    absent = value is None or type(value).__name__ in ("NAType", "NaTType") or (value != value) is True
    return None if absent else value


def read(name: str, table: Any, expected: Sequence[str] | None) -> dict[str, Column]:
    """The columns of a table by name ("0", "1", ... for an array); only the expected ones, in their order."""
    given = _by_name(name, table, expected)
    if expected is not None:
        if lacking := [column for column in expected if column not in given]:
            raise ValueError(f"{name}: got no column {lacking[0]!r}; it has {', '.join(given)}.")
        given = {column: given[column] for column in expected}
    lists = {column: plain(values) for column, values in given.items()}
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"{name}: got columns of {sorted(lengths)} rows, expected one or more, as many in each.")
    return {
        column: _column(f"{name}[{column!r}]", lists[column], str(getattr(given[column], "dtype", "")))
        for column in lists
    }


def _by_name(name: str, table: Any, expected: Sequence[str] | None) -> dict[str, Any]:
    if isinstance(table, Mapping):
        return {str(column): values for column, values in table.items()}
    if hasattr(table, "columns") and hasattr(table, "__getitem__"):  # pandas, polars
        labels = list(table.columns)
        if len({str(label) for label in labels}) < len(labels):
            raise ValueError(f"{name}: got columns {labels}, expected every name once.")
        return {str(label): table[label] for label in labels}
    if isinstance(table, list | tuple):
        try:
            table = np.array(table, dtype=object)
        except ValueError as error:
            raise ValueError(f"{name}: expected rows of one length ({error}).") from None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or 0 in table.shape:
        shape = f"shape {table.shape}" if hasattr(table, "shape") else type(table).__name__
        raise ValueError(
            f"{name}: got {shape}, expected a frame, a dict of columns or an array (n_samples, n_columns)."
        )
    if expected is not None and table.shape[1] != len(expected):
        raise ValueError(f"{name}: got shape {table.shape}, expected {len(expected)} columns: {', '.join(expected)}.")
    names = [str(i) for i in range(table.shape[1])] if expected is None else expected
    return {column: table[:, i] for i, column in enumerate(names)}


def _column(name: str, values: list[Any], dtype: str) -> Column:
    """A column, which is numeric unless it holds text or is stored as categories."""
    for value in values:
        if value is not None and not isinstance(value, str | bool | int | float):
            raise TypeError(f"{name}: got {value!r} of type {type(value).__name__}, expected numbers or text.")
    stored = dtype.lower().startswith(("category", "categorical", "enum"))
    numeric = not stored and not any(isinstance(value, str) for value in values)
    return Column(name, values, np.array([value is None for value in values], bool), numeric)
