"""Compiling ahead: every kernel that training and inference use, so that no later process waits for the compiler."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hotloop import (
    MLP,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AveragedSGD,
    Lion,
    PassiveAggressive,
    RMSprop,
    Standardizer,
    Trainer,
    inputs,
    together,
)
from hotloop.engine import no_lazy_rows
from hotloop.kernels import activations, figures, jit, lazy, loading, losses, parts

Step = tuple[str, Callable[[], object]]

OPTIMIZERS = {
    "momentum": SGD(momentum=0.5),
    "Nesterov momentum": SGD(momentum=0.5, nesterov=True),
    **{type(one).__name__: one for one in (Adam(), RMSprop(), Adagrad(), Adadelta(), Lion(), AveragedSGD())},
}
REGULARIZATION: dict[str, Any] = {"l2": 0.1, "dropout": [0.1, 0.1], "input_noise": 0.1, "max_norm": 1.0}


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
    together.Spent.seconds = math.inf  # at any price
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
        per_sample, mini_batch = _fitting(1), _fitting(2)
        yield f"{dtype}: first weights", partial(_draw_weights, dtype)
        yield f"{dtype}: standardize", partial(_standardize, dtype)
        yield f"{dtype}: activations and losses", partial(_functions, np.dtype(dtype))
        yield f"{dtype}: per-sample training", partial(per_sample.fit, model, X, y)
        yield f"{dtype}: mini-batch training", partial(mini_batch.fit, model, X, y)
        yield f"{dtype}: rows with zeros", partial(_inputs, np.dtype(dtype))
        for name, rule in OPTIMIZERS.items():
            yield f"{dtype}: {name}", partial(_fitting(optimizer=rule).fit, model, X, y)
        yield f"{dtype}: regularisation", partial(_fitting(optimizer=SGD(), **REGULARIZATION).fit, model, X, y)
        yield f"{dtype}: very sparse rows", partial(lazy.ready, no_lazy_rows(), dtype)
        restrained, linear = _fitting(1, optimizer=PassiveAggressive(), loss="hinge"), MLP([4, 1], dtype=dtype)
        yield f"{dtype}: PassiveAggressive", partial(restrained.fit, linear, X, 2.0 * y - 1.0)
        for optimizer in (SGD(), SGD(momentum=0.5)):  # a rule with state takes another kernel than one without
            learner = Trainer(optimizer=optimizer)
            yield f"{dtype}: learn_one, momentum {optimizer.momentum}", partial(learner.learn_one, model, X[0], 0)
        yield f"{dtype}: evaluate", partial(mini_batch.evaluate, model, X, y)
        yield f"{dtype}: predict", partial(model.predict, X)
        yield f"{dtype}: predict_one", partial(model.predict_one, X[0])


def _fitting(batch_size: int = 2, **options: Any) -> Trainer:
    return Trainer(batch_size=batch_size, epochs=2, progress=False, **options)


def _functions(dtype: np.dtype[Any]) -> None:
    parts.of_loss(losses.MSE, dtype)
    for code in activations.CODES.values():
        activations.ready(code, dtype)
    for code in losses.PARTS:
        losses.ready(code, dtype)
    figures.r2(np.eye(2), np.eye(2))


def _inputs(dtype: np.dtype[Any]) -> None:
    inputs.dense(np.eye(2, dtype=dtype)).listed()
    for kind in (loading.LISTED, loading.ZEROS):
        for window in (0, 1, 2):
            for compressed in (False, True):
                parts.of_inputs(kind, window, compressed, dtype)


def _draw_weights(dtype: str) -> None:
    for shape in ("uniform", "normal"):
        MLP([2, 1], init=f"he_{shape}", dtype=dtype)


def _standardize(dtype: str) -> None:
    prepare = Standardizer().fit(np.eye(2))
    for rows in (np.eye(2, dtype=given) for given in ("float32", "float64")):
        prepare.read("X", rows, dtype)
        prepare.row(rows[0], dtype)
