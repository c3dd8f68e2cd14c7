"""The learning rates of one training: its schedule, begun afresh, times the optimiser's lr."""

import math
from collections.abc import Iterator, Mapping
from itertools import chain, count, repeat

import numpy as np
from numpy.typing import NDArray

from hotloop.schedules import Constant, Floats, Schedule, begin, factors

AHEAD = 256  # steps of a stream that are worked out together


class Rates:
    """Learning rates by epoch or by step, checked as they come.

    steps: those of the whole training, 0 where they are not known beforehand.
    """

    def __init__(self, schedule: Schedule, lr: float, epochs: int, steps: int) -> None:
        self.by_step = getattr(schedule, "per", "epoch") == "step"
        self._schedule, self._lr, self._epochs, self._steps = begin(schedule), lr, epochs, steps
        self._constant = isinstance(schedule, Constant)
        self._epoch, self._rates = -1, np.empty(0)  # a schedule by epoch is asked once for each

    def at(self, epoch: int, step: int, steps: int) -> Floats:
        """The rates of the steps from `step` on, (steps,), or the one of their epoch, (1,)."""
        if self.by_step:
            return self._checked(np.arange(step, step + steps), self._steps, "step")
        if self._epoch < 0 or (epoch != self._epoch and not self._constant):
            self._epoch, self._rates = epoch, self._checked(np.array([epoch]), self._epochs, "epoch")
        return self._rates

    def ahead(self, epoch: int, epochs: int, step: int, steps: int) -> Floats:
        """The rates of so many epochs of `steps` steps each: (epochs, steps), or by epoch (epochs, 1)."""
        if self.by_step:
            rates = self._checked(np.arange(step, step + epochs * steps), self._steps, "step")
            return rates.reshape(epochs, steps)
        return self._checked(np.arange(epoch, epoch + epochs), self._epochs, "epoch")[:, None]

    def stream(self, epoch: int, step: int) -> Iterator[float]:
        """The rates of single steps, without end."""
        if not self.by_step:
            return repeat(float(self.at(epoch, step, 1)[0]))
        return chain.from_iterable(self.at(epoch, first, AHEAD).tolist() for first in count(step, AHEAD))

    def see(self, figures: Mapping[str, float]) -> None:
        """Show the schedule the figures of an epoch."""
        if hasattr(self._schedule, "see"):
            self._schedule.see(figures)

    def _checked(self, at: NDArray[np.int64], total: int, unit: str) -> Floats:
        found = factors(self._schedule, at, total)
        if not isinstance(found, np.ndarray):
            for place, factor in zip(at, found, strict=True):
                message = f"schedule: gave {factor!r} for {unit} {place}, expected a finite factor of 0 or more."
                if not isinstance(factor, int | float | np.integer | np.floating):
                    raise TypeError(message)
                if not math.isfinite(factor) or factor < 0:
                    raise ValueError(message)
        return self._lr * np.asarray(found, np.float64)
