"""Compiling ahead: every kernel that training and inference use, so that no later process waits for the compiler."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hotloop import MLP, Standardizer, Trainer
from hotloop.kernels import jit

Step = tuple[str, Callable[[], object]]


@dataclass(frozen=True)
class Warmup:
    """What `warmup` did."""

    compiled: int  # kernels that had to be compiled
    loaded: int  # kernels that the cache held
    seconds: float
    folder: Path  # of the cache
    kept: bool  # whether the next process finds them there

    def __str__(self) -> str:
        took = f"in {self.seconds:.1f} s"
        if self.compiled == 0:
            already = f"loaded {self.loaded} kernels from" if self.loaded else "all kernels were in use already, from"
            return f"{already} {self.folder} {took}; nothing had to be compiled"
        where = f"kept in {self.folder}" if self.kept else f"lost with this process: {self.folder} cannot be written"
        return f"compiled {self.compiled} kernels, loaded {self.loaded}, {took}; {where}"


def warmup(report: Callable[[str], None] | None = None) -> Warmup:
    """Compile every kernel that training and inference use, float32 and float64, or load it from the cache.

    report is called with a line of text before the first step and after each. The compiled code is kept in the folder
    that HOTLOOP_CACHE_DIR names, else in the user's cache folder: later processes on this kind of processor load it.
    """
    tell = report or (lambda line: None)
    tell(f"compiled kernels are kept in {jit.CACHE_FOLDER}")
    began, before = time.perf_counter(), jit.compiled_and_loaded()
    for name, work in _steps():
        started = time.perf_counter()
        work()
        tell(f"{name:<32}{time.perf_counter() - started:6.2f} s")
    compiled, loaded = (after - earlier for after, earlier in zip(jit.compiled_and_loaded(), before, strict=True))
    return Warmup(compiled, loaded, time.perf_counter() - began, jit.CACHE_FOLDER, jit.all_kept())


def _steps() -> Iterator[Step]:
    """Small work that calls every kernel once in each dtype; dense and compressed rows share what is compiled."""
    for dtype in ("float32", "float64"):
        X, y = np.eye(4, dtype=dtype), np.arange(4) % 2
        model = MLP([4, 2, 2], output="softmax", init="zeros", dtype=dtype)

        def train(batch_size: int, model: MLP = model, X: Any = X, y: Any = y) -> object:
            return Trainer(batch_size=batch_size, epochs=1, progress=False).fit(model, X, y)

        def weights(dtype: str = dtype) -> list[MLP]:
            return [MLP([2, 1], init=f"he_{shape}", dtype=dtype) for shape in ("uniform", "normal")]

        def standardize(dtype: str = dtype) -> list[object]:
            prepare, both = Standardizer().fit(np.eye(2)), [np.eye(2, dtype=given) for given in ("float32", "float64")]
            return [(prepare.read("X", rows, dtype), prepare.row(rows[0], dtype)) for rows in both]

        yield f"{dtype}: first weights", weights
        yield f"{dtype}: standardize", standardize
        yield f"{dtype}: per-sample training", lambda train=train: train(1)
        yield f"{dtype}: mini-batch training", lambda train=train: train(2)
        yield f"{dtype}: evaluate", lambda model=model, X=X, y=y: Trainer().evaluate(model, X, y)
        yield f"{dtype}: predict", lambda model=model, X=X: model.predict(X)
        yield f"{dtype}: predict_one", lambda model=model, X=X: model.predict_one(X[0])
