"""Early stopping: when to end a training that no longer improves, or that is good enough."""

import math
from dataclasses import dataclass

from hotloop import check
from hotloop.monitor import falls


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the monitored figure has not improved by more than min_delta for `patience` epochs. Prechelt 1998.

    The weights of the best epoch are restored, unless restore_best is False.
    monitor  a figure of the history: loss, val_loss, val_accuracy, val_r2, ...
    target   stop at once, with the weights of that epoch, when the figure is as good as this
    mode     "min" or "max", what is better, for a figure whose name does not tell
    """

    patience: int = 5
    min_delta: float = 0.0
    monitor: str = "val_loss"
    restore_best: bool = True
    target: float | None = None
    mode: str | None = None

    def __post_init__(self) -> None:
        check.integer("patience", self.patience, 1)
        check.number("min_delta", self.min_delta, 0.0)
        check.boolean("restore_best", self.restore_best)
        falls(self.monitor, self.mode)
        if self.target is not None:
            check.number("target", self.target, -math.inf)

    def score(self, figure: float) -> float:
        """The figure as something to be made small."""
        return figure if falls(self.monitor, self.mode) else -figure

    def reached(self, figure: float) -> bool:
        """Whether the figure is as good as the target."""
        return self.target is not None and self.score(figure) <= self.score(self.target)
