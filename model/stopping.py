"""Early stopping: when to end a training that no longer improves."""

from dataclasses import dataclass

from hotloop import check
from hotloop.metrics import METRICS, smaller_is_better

MONITORS = ("val_loss", "loss", *(f"val_{name}" for name in METRICS))


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the monitored figure has not improved by more than min_delta for `patience` epochs.

    The weights of the best epoch are restored, unless restore_best is False. Prechelt 1998.
    """

    patience: int = 5
    min_delta: float = 0.0
    monitor: str = "val_loss"
    restore_best: bool = True

    def __post_init__(self) -> None:
        check.integer("patience", self.patience, 1)
        check.number("min_delta", self.min_delta, 0.0)
        check.choice("monitor", self.monitor, MONITORS)
        check.boolean("restore_best", self.restore_best)

    def score(self, figure: float) -> float:
        """The figure as something to be made small."""
        return figure if smaller_is_better(self.monitor) else -figure
