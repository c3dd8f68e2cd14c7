"""Learning from one row at a time, in microseconds."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import check
from hotloop.engine import Engine
from hotloop.kernels import online
from hotloop.kernels.updates import Rule
from hotloop.mlp import MLP
from hotloop.objectives import Objective
from hotloop.optimizers import State
from hotloop.rates import Rates

AHEAD = 1024  # learning rates of a schedule by step that are drawn at once
SCALARS, KNOWN = (int, float, str, np.int64), 4096  # truths of which the checked form is kept, and how many at most


class Learner:
    """A model, a rule and the working memory of a step, kept ready between the calls of Trainer.learn_one.

    read turns a truth y into an Objective of one row, and raises for a wrong one.
    """

    def __init__(
        self, model: MLP, engine: Engine, rule: Rule, rates: Rates, read: Callable[[ArrayLike], Objective]
    ) -> None:
        self.model, self.state = model, State(rule.first, rule.second, rule.clock)
        self._read, self._rate, self._schedule, self._steps = read, rule.rates, rates, 0
        self._upcoming = rates.at(0, 0, AHEAD)
        self._rate[0] = self._upcoming[0]
        samples, regular, scratch = engine.samples, engine.regular, engine.scratch
        self._truth = samples.labels if len(samples.labels) else samples.targets[0]
        self._known: dict[Any, Any] = {}
        constants = [rule.beta1, rule.beta2, rule.eps, rule.weight_decay, regular.l1, regular.l2, regular.clip_value]
        self._arrays: dict[str, NDArray[Any]] = {  # alive as long as their addresses are in the book
            "plan": engine.network.plan,
            "starts": samples.inputs.start,
            "codes": np.array([engine.code, rule.code, regular.seed, 0, samples.listed]),
            "constants": np.array([*constants, regular.clip_norm, regular.max_norm, regular.noise]),
            "dropout": regular.dropout,
            "params": model.params,
        }
        for owner in (samples, rule, scratch, scratch.lists):
            self._arrays |= {name: getattr(owner, name) for name in online.ARRAYS if name in owner._fields}
        book = [[self._arrays[name].ctypes.data, self._arrays[name].size] for name in online.ARRAYS]
        self._book = np.array(book).reshape(-1)
        self._step = online.learn_direct if engine.per_sample else online.learn

    def learn(self, x: ArrayLike, y: Any) -> float:
        """Train on one row x (n_features,) with its truth y; the loss before the step."""
        row = self.model._row(x)
        if y.__class__ in SCALARS and y in self._known:
            self._truth[0] = self._known[y]
        else:
            self._truth[:] = self._checked(y)
        if self._schedule.by_step:
            self._rate[0] = self._next_rate()
        loss = self._step(row, self._book)
        if loss != loss:
            check.finite("x", row, np.asarray(x))
            raise FloatingPointError(
                f"the loss of this row is not a number with lr={self._rate[0]:g}: training has diverged."
            )
        return float(loss)

    def _next_rate(self) -> float:
        place = self._steps % AHEAD
        if place == 0:
            self._upcoming = self._schedule.at(0, self._steps, AHEAD)
        self._steps += 1
        return float(self._upcoming[place])

    def _checked(self, y: Any) -> Any:
        """The truth as the kernels take it."""
        objective = self._read([y])
        value = objective.labels[0] if len(objective.labels) else objective.targets[0].copy()
        if y.__class__ in SCALARS and len(self._truth) == 1 and len(self._known) < KNOWN:
            self._known[y] = value.item()
        return value
