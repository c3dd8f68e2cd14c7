"""What is done to X before the first layer: kept with the model, saved with the model, applied wherever it reads X."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hotloop.encoder import TableEncoder
from hotloop.inputs import Rows
from hotloop.standardizer import Standardizer

KINDS: dict[str, Any] = {one.kind: one for one in (Standardizer, TableEncoder)}
PREFIX = "prepare."  # of its arrays in a model's file


class Preparation(Protocol):
    """A fitted Standardizer or TableEncoder."""

    kind: str

    @property
    def width(self) -> int:
        """Columns of the rows it gives: sizes[0] of its model; 0 before it is fitted."""

    @property
    def columns(self) -> int:
        """Columns of the rows it takes."""

    def read(self, name: str, X: Any, dtype: DTypeLike) -> Rows:
        """Checked and prepared rows in the form and dtype of the kernels."""

    def row(self, x: Any, dtype: DTypeLike) -> NDArray[Any]:
        """One prepared row (width,), contiguous, of this dtype; finiteness is not checked."""

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a file keeps: entries of the header, and float64 arrays."""


def checked(value: Any, width: int) -> Preparation | None:
    """A preparation that is fitted and gives rows of this width, or None."""
    if value is None:
        return None
    if not isinstance(value, Standardizer | TableEncoder):
        raise TypeError(f"prepare: got {type(value).__name__}, expected a Standardizer, a TableEncoder or None.")
    if value.width == 0:
        raise ValueError(f"prepare: got {value!r}; expected a fitted one: call its fit first.")
    if value.width != width:
        raise ValueError(f"prepare: gives rows of {value.width} columns, the model takes {width} (its sizes[0]).")
    return value


def pack(prepare: Preparation | None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Entries of a file's header, and arrays, for a model's preparation."""
    if prepare is None:
        return {}, {}
    header, arrays = prepare.state()
    return {"prepare": header}, {PREFIX + name: np.ascontiguousarray(array) for name, array in arrays.items()}


def unpack(header: Mapping[str, Any], arrays: dict[str, NDArray[Any]]) -> Preparation | None:
    """The preparation of a file, whose arrays are taken out of `arrays`; ValueError where they are no such thing."""
    mine = {name.removeprefix(PREFIX): arrays.pop(name) for name in list(arrays) if name.startswith(PREFIX)}
    entry = header.get("prepare")
    if entry is None:
        if mine:
            raise ValueError(f"it has arrays {list(mine)} of a preparation, but its header does not speak of one")
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str) or entry["kind"] not in KINDS:
        raise ValueError(f"prepare {entry!r}")
    for name, array in mine.items():
        if array.dtype != np.float64 or not np.isfinite(array).all():
            raise ValueError(f"{PREFIX}{name} is no array of finite float64 numbers")
    found: Preparation = KINDS[entry["kind"]].restore(entry, mine)
    return found
