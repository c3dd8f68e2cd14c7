"""Learning from one row at a time, in microseconds."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from hotloop import check
from hotloop.engine import Engine
from hotloop.kernels import online, steps
from hotloop.kernels.plan import VALUE
from hotloop.kernels.updates import Rule
from hotloop.mlp import MLP
from hotloop.objectives import CUSTOM, Objective

if TYPE_CHECKING:
    from hotloop.fitting import Course

FLOATS = (float, np.float64, np.float32)
SCALARS = (int, str, np.int64, np.int32, np.str_, *FLOATS)  # truths of which the checked form is kept
KNOWN = 4096  # of them at most
PLAIN = ("mse", "mae", "huber", CUSTOM)  # losses whose targets may be any finite number


def _entry(kernel: Any, *arguments: Any) -> Callable[..., float]:
    """A kernel's machine code for arguments of these types; Numba's look at them costs 0.4 us a call."""
    return kernel.compile(tuple(numba.typeof(argument) for argument in arguments))


class Learner:
    """A model, a rule and the working memory of a step, kept ready between the calls of Trainer.learn_one.

    course is what is carried on from step to step; read turns a truth y into an Objective of one row, and raises for a
    wrong one.
    """

    def __init__(
        self, model: MLP, engine: Engine, rule: Rule, course: "Course", read: Callable[[ArrayLike], Objective]
    ) -> None:
        self.model, self._read, self._rate, self._lr, self._course = model, read, rule.rates, 0.0, course
        samples, regular, scratch, rule = engine.samples, engine.regular, engine.scratch, steps.ready(rule)
        self._truth = samples.labels if len(samples.labels) else samples.targets[0]
        self._known: dict[Any, Any] = {}
        self._truth_at = memoryview(self._truth)  # a third of the time to write to
        plain = model.loss in PLAIN and len(samples.labels) == 0 and len(self._truth) == 1
        self._plain, self._largest = FLOATS if plain else (), float(np.finfo(model.dtype).max)  # need no check
        codes = engine.code, rule.code, regular.seed, -1, samples.listed  # -1: the epoch before the first row
        constants = [rule.beta1, rule.beta2, rule.eps, rule.weight_decay, regular.l1, regular.l2, regular.clip_value]
        self._arrays: dict[str, NDArray[Any]] = {  # alive as long as their addresses are in the book
            "plan": engine.network.plan,
            "starts": samples.inputs.start,
            "codes": np.array([*codes, rule.part, rule.move, *regular.parts, *samples.parts]),
            "constants": np.array([*constants, regular.clip_norm, regular.max_norm, regular.noise]),
            "dropout": regular.dropout,
            "row": scratch.work[engine.network.plan[0, VALUE] :][: model.sizes[0]],
            "params": model.params,
        }
        for owner in (samples, rule, scratch, scratch.lists):
            self._arrays |= {name: getattr(owner, name) for name in online.ARRAYS if name in owner._fields}
        book = [[self._arrays[name].ctypes.data, self._arrays[name].size] for name in online.ARRAYS]
        self._book = np.array(book).reshape(-1)
        self._address = self._book.ctypes.data
        self._step = _entry(online.learn_direct if engine.per_sample else online.learn, model.params, self._address)
        self._dtype = model.params.dtype

    def learn(self, x: Any, y: Any) -> float:
        """Train on one row x (n_features,) with its truth y; the loss before the step."""
        course = self._course
        try:
            ready = x.__class__ is ndarray and x.dtype is self._dtype and x.ndim == 1 and self.model._prepare is None
            row = x if ready else self.model._row(x)
            kind = y.__class__
            if kind in self._plain and -self._largest <= y <= self._largest:
                self._truth_at[0] = y
            elif kind in SCALARS and (known := self._known.get(y)) is not None:
                self._truth_at[0] = known
            else:
                self._truth[:] = self._checked(y)
            lr = next(course.ahead)
            if lr != self._lr:
                self._rate[0] = self._lr = lr
            loss = self._step(row, self._address)
            if loss != loss:
                loss = self._again(x, row)
        except Exception:
            course.look_ahead()  # this step was not taken
            raise
        course.step += 1
        return loss

    def _again(self, x: Any, row: NDArray[Any]) -> float:
        """The loss of a row that was not yet in the form of the kernels; raises if that was not what was wrong."""
        if row is x and (row := self.model._row(x)) is not x:
            loss = self._step(row, self._address)
            if loss == loss:
                return loss
        check.finite("x", row, np.asarray(x))
        raise FloatingPointError(f"the loss of this row is not a number with lr={self._lr:g}: training has diverged.")

    def _checked(self, y: Any) -> Any:
        """The truth as the kernels take it."""
        objective = self._read([y])
        value = objective.labels[0] if len(objective.labels) else objective.targets[0].copy()
        if y.__class__ in SCALARS and len(self._truth) == 1 and len(self._known) < KNOWN:
            self._known[y] = value.item()
        return value
