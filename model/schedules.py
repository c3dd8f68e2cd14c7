"""Learning-rate schedules: schedule(epoch, epochs) is the factor of the optimiser's lr in an epoch, counted from 0.

Any function of that form is a schedule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hotloop import check

Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class Constant:
    """factor = 1."""

    def __call__(self, epoch: int, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """factor = rate ** (epoch // every): a cut every few epochs."""

    every: int = 10
    rate: float = 0.1

    def __post_init__(self) -> None:
        check.integer("every", self.every, 1)
        check.number("rate", self.rate, 0.0, 1.0, open_below=True)

    def __call__(self, epoch: int, epochs: int) -> float:
        return self.rate ** (epoch // self.every)


@dataclass(frozen=True)
class ExponentialDecay:
    """factor = rate ** epoch."""

    rate: float = 0.95

    def __post_init__(self) -> None:
        check.number("rate", self.rate, 0.0, 1.0, open_below=True)

    def __call__(self, epoch: int, epochs: int) -> float:
        return self.rate**epoch


@dataclass(frozen=True)
class CosineDecay:
    """factor = floor + (1 - floor) (1 + cos(pi epoch / epochs)) / 2, from 1 down to floor (Loshchilov and Hutter 2017).

    epochs: where the floor is reached; None: the trainer's epochs.
    """

    epochs: int | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check.integer("epochs", self.epochs, 1)
        check.number("floor", self.floor, 0.0, 1.0)

    def __call__(self, epoch: int, epochs: int) -> float:
        share = min(1.0, epoch / (self.epochs or epochs))
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * share))
