"""The learning rate falls when a figure of the training no longer improves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hotloop import check
from hotloop.monitor import falls


@dataclass(frozen=True)
class ReduceOnPlateau:
    """The factor is multiplied by `factor` when the monitored figure has not improved for more than `patience` epochs.

    An improvement is one by more than min_delta: relative to the best so far, or absolute with relative=False. After a
    cut, `cooldown` epochs are not counted; floor is the least factor. monitor and mode as in EarlyStopping. Each
    training starts at 1. Definition of PyTorch's ReduceLROnPlateau.
    """

    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    cooldown: int = 0
    floor: float = 0.0
    monitor: str = "val_loss"
    relative: bool = True
    mode: str | None = None

    def __post_init__(self) -> None:
        if check.number("factor", self.factor, 0.0, 1.0) == 1.0:
            raise ValueError("factor: got 1, expected at least 0 and less than 1.")
        check.integer("patience", self.patience, 0)
        check.number("min_delta", self.min_delta, 0.0)
        check.integer("cooldown", self.cooldown, 0)
        check.number("floor", self.floor, 0.0, 1.0)
        check.boolean("relative", self.relative)
        falls(self.monitor, self.mode)

    def __call__(self, step: int, steps: int) -> float:
        """1: without figures there is nothing to go by."""
        return 1.0

    def begin(self) -> "Plateau":
        """The schedule of one run."""
        return Plateau(self)


class Plateau:
    """ReduceOnPlateau in one run."""

    def __init__(self, rule: ReduceOnPlateau) -> None:
        self.rule, self.factor = rule, 1.0
        self.sign = 1.0 if falls(rule.monitor, rule.mode) else -1.0
        self.best, self.waited, self.resting = math.inf, 0, 0

    def __call__(self, step: int, steps: int) -> float:
        return self.factor

    def see(self, figures: Mapping[str, float]) -> None:
        """Learn an epoch's figures."""
        rule, score = self.rule, self.sign * figures[self.rule.monitor]
        margin = rule.min_delta * (abs(self.best) if rule.relative and math.isfinite(self.best) else 1.0)
        better = score < self.best - margin
        if better:
            self.best = score
        self.waited = 0 if better or self.resting else self.waited + 1
        self.resting = max(0, self.resting - 1)
        if self.waited > rule.patience:
            self.factor, self.waited, self.resting = max(rule.floor, self.factor * rule.factor), 0, rule.cooldown
