"""Short epochs, many in one compiled call: what the kernel is told, and what it found, written down."""

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import typeof, types

from hotloop import layout
from hotloop import metrics as merit
from hotloop.engine import LONG_STEP, PIECE_SECONDS, PREDICT_ROWS, Engine, products, replan
from hotloop.kernels import figures, inference, losses, runs
from hotloop.kernels.jit import CACHE_FOLDER, address
from hotloop.kernels.plan import Network
from hotloop.schedules import Curve, Floats, innermost

if TYPE_CHECKING:
    from hotloop.fitting import Fitting

DECISIONS = {"value": figures.VALUE, "argmax": figures.ARGMAX}
DECISIONS |= {"threshold": figures.THRESHOLD, "sign": figures.THRESHOLD}
REASONS = {
    runs.ON: "",
    runs.DIVERGED: "diverged",
    runs.TARGET: "target",
    runs.WAITED: "early stopping",
    runs.STILL: "tol",
}
PAYS = 0.1  # seconds of Python's between epochs, after which compiling run_epochs, once and for all, is not too much
BETWEEN, VALIDATING = 25e-6, 75e-6  # seconds that it takes for each, caches cold: see bench/short.py


class Spent:
    """What Python has taken between epochs in this process, while run_epochs was not compiled."""

    seconds = 0.0


def of(fitting: "Fitting") -> "Together | None":
    """The epochs of this fit in calls, if that is possible, and compiled already or worth it.

    A first fit of twenty epochs should not wait for a compiler that saves it a millisecond.
    """
    if not _possible(fitting):
        return None
    kernel: Any = runs.run_epochs
    if not kernel.overloads and not any(CACHE_FOLDER.glob("runs.run_epochs-*.nbi")):
        Spent.seconds += fitting.trainer.epochs * (BETWEEN + (VALIDATING if fitting.validation else 0.0))
        if Spent.seconds < PAYS:
            return None
    return Together(fitting)


def _possible(fitting: "Fitting") -> bool:
    """Whether nothing of Python's has a part in what happens between two epochs, and they are short enough to count.

    Callbacks have one, schedules other than formulas, and metrics that only Python knows.
    """
    trainer, engine, held = fitting.trainer, fitting.engine, fitting.validation
    if not (isinstance(engine, Engine) and engine.runs_epochs and fitting.ahead == trainer.epochs > 1):
        return False
    if trainer.callbacks or not isinstance(innermost(trainer.schedule), Curve) or _monitored(fitting) is None:
        return False
    if held is None:
        return True
    known = held.objective.decision in DECISIONS and len(held.objective.figures) == 1
    return known and len(held.rows) * products(engine.network) < LONG_STEP


def _monitored(fitting: "Fitting") -> int | None:
    """The column of the figure that early stopping watches."""
    early, held = fitting.trainer.early_stopping, fitting.validation
    known = {"loss": runs.LOSS, "val_loss": runs.HELD_LOSS}
    if held is not None:
        known[f"val_{held.objective.metric}"] = runs.FIGURE
    return known.get(early.monitor if early else "loss")


def _held(fitting: "Fitting") -> runs.Held:
    """The samples held out, or none of the same types."""
    engine, held = fitting.engine, fitting.validation
    assert isinstance(engine, Engine)
    network, given = engine.network, engine.samples
    objective = held.objective if held else fitting.training.objective
    n, k, dtype = len(held.rows) if held else 0, objective.targets.shape[1], network.params.dtype
    plan, size = replan(network, objective.activation, PREDICT_ROWS)
    inputs, net = held.rows.arrays if held else given.inputs, Network(plan, network.params)
    work, outputs = layout.aligned(size, dtype), np.empty((n, k), dtype)
    predict, whole = 0, [types.int64] * 3
    if held:
        predict = address(inference.predict, typeof(net), typeof(inputs), *whole, typeof(work), typeof(outputs))
    bounds = merit.bounds(objective)
    return runs.Held(
        predict,
        plan,
        inputs,
        objective.targets,
        objective.labels,
        objective.weights[:0],
        losses.ready(objective.code, dtype),
        DECISIONS.get(objective.decision, figures.VALUE),
        *bounds,
        PREDICT_ROWS,
        work,
        outputs,
        np.empty(k, dtype),
    )


def _watch(fitting: "Fitting") -> runs.Watch:
    """What decides on the end of a training, and on the parameters to go back to."""
    early, tol, column = fitting.trainer.early_stopping, fitting.trainer.tol, _monitored(fitting)
    assert column is not None
    if early is None:
        return runs.Watch(column, 1.0, 0.0, 0, -math.inf, float(tol), np.empty(2))
    target = -math.inf if early.target is None else early.score(early.target)
    numbers = early.score(1.0), float(early.min_delta), int(early.patience), float(target), float(tol)
    return runs.Watch(column, *numbers, np.empty(2))


class Together:
    """The epochs of one fit, in calls of about 20 ms."""

    def __init__(self, fitting: "Fitting") -> None:
        self._held, self._watch = _held(fitting), _watch(fitting)
        self._call(fitting, np.empty((0, 1)), math.inf)  # compiles it, or loads it

    def at_once(self, fitting: "Fitting", epoch: int) -> int:
        """How many epochs from this one on are to be run in one call."""
        some = int(PIECE_SECONDS / max(fitting.history["seconds"][-1], 1e-6))
        return max(1, min(some, fitting.trainer.epochs - epoch))

    def _call(self, fitting: "Fitting", rates: Floats, limit: float) -> tuple[Floats, int]:
        """Train one epoch for each row of rates; the figures of those it took, and why none followed."""
        trainer, engine, watch = fitting.trainer, fitting.engine, self._watch
        found = np.empty((len(rates), 3))
        assert isinstance(engine, Engine)
        watch.state[:] = fitting.best_score, fitting.waited
        places = fitting.start, fitting.kept, fitting.learned
        told = trainer.seed, fitting.passes, trainer.shuffle, limit, rates
        rule = trainer.optimizer.rule(np.empty(rates.shape[1]), fitting.grad, fitting.state)
        done, reason = engine.run_epochs(rule, runs.Course(*told, *places, found, self._held, watch))
        fitting.best_score, fitting.waited = float(watch.state[runs.BEST]), int(watch.state[runs.SINCE])
        return found[:done], reason

    def run(self, fitting: "Fitting", first: int, count: int, limit: float) -> str:
        """Train some epochs and write them down; the reason to stop, or nothing. A loss above the limit is one."""
        live = fitting.live
        rates = fitting.rates.ahead(first, count, fitting.step, fitting.steps)
        began = time.perf_counter()
        found, reason = self._call(fitting, rates, limit)
        done, seconds = len(found), (time.perf_counter() - began) / len(found)
        fitting.passes, fitting.step = fitting.passes + done, fitting.step + done * fitting.steps
        live.epoch, live.samples = first + done - 1, len(fitting.training.rows)
        loss, *held = found.T.tolist()
        known = zip(live.columns, (loss, rates[:done, -1].tolist(), [seconds] * done, *held), strict=False)
        fitting.history.extend(dict(known))  # figures of no validation have no column
        return REASONS[reason]
