"""What a training did, epoch by epoch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class History(Mapping[str, list[float]]):
    """Columns with one entry per epoch: loss, lr, seconds, and val_loss and a metric where there is validation data.

    loss is the mean over the epoch's samples, each taken before its own step; lr is the learning rate of the epoch's
    last step; seconds is the time of the epoch. An epoch that was ended early has its row too, over the samples it had.
    `stopped` says why it ended: "finished", "early stopping", "target", "tol", "time" (max_seconds), "diverged",
    "interrupted", "error" (an exception), or what a callback gave as its reason.
    `compile_seconds` is the time taken to compile the kernels, or to load them compiled, before the first epoch.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[float]] = {}
        self.stopped = "finished"
        self.compile_seconds = 0.0

    def append(self, row: Mapping[str, float]) -> None:
        """Add one epoch."""
        for name, value in row.items():
            self._columns.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> list[float]:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"{name!r}: this history has {', '.join(self._columns) or 'no epochs'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def epochs(self) -> int:
        """Number of epochs run."""
        return len(self._columns.get("loss", []))

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {column[-1]:.4g}" for name, column in self._columns.items())
        return f"History({self.epochs} epochs, {self.stopped}{': ' + last if last else ''})"

    def plot(self, path: str | Path) -> None:
        """Draw loss and validation loss against epochs, and the metric on a second axis, into a picture file."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("History.plot needs matplotlib: pip install 'hotloop[plot]'") from None
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        self.draw(figure)
        figure.savefig(path, dpi=120)

    def draw(self, figure: Any) -> None:
        """Draw the same on a figure of matplotlib, in place of what is there."""
        figure.clear()
        axes = figure.subplots()
        marker = "o" if self.epochs <= 30 else None
        for name, label in (("loss", "training loss"), ("val_loss", "validation loss")):
            if name in self:
                axes.plot(range(1, len(self[name]) + 1), self[name], marker=marker, markersize=3, label=label)
        axes.set(xlabel="epoch", ylabel="loss", title=f"Training: {self.stopped}, {self.epochs} epochs")
        if min(self["loss"]) > 0 and max(self["loss"]) > 20 * min(self["loss"]):
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        for name in ("val_accuracy", "val_r2"):
            if name in self:
                right = axes.twinx()
                label = "validation " + name.removeprefix("val_")
                handles += right.plot(
                    range(1, len(self[name]) + 1), self[name], color="tab:green", linestyle="--", label=label
                )
                labels.append(label)
                right.set_ylabel(label)
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
