"""What a training did, epoch by epoch."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

ERRORS = ("val_mae", "val_rmse")  # figures with the units of y


class History(Mapping[str, list[float]]):
    """Columns with one entry per epoch: loss, lr, seconds, and val_loss and a metric where there is validation data.

    loss is the mean over the epoch's samples, each taken before its own step; lr is the learning rate of the epoch's
    last step; seconds is the time of the epoch, or of short ones, which run many in one call, their mean. An epoch that
    was ended early has its row too, over the samples it had.
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

    def extend(self, columns: Mapping[str, list[float]]) -> None:
        """Add some epochs, column by column."""
        for name, values in columns.items():
            self._columns.setdefault(name, []).extend(values)

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

    def to_frame(self) -> Any:
        """The columns as a pandas DataFrame, or a polars one where only that is installed, one row for each epoch.

        Raises ImportError where neither is (extra `data`).
        """
        for library in ("pandas", "polars"):
            if find_spec(library):
                columns = {"epoch": list(range(1, self.epochs + 1)), **self._columns}
                return import_module(library).DataFrame(columns)
        raise ImportError("History.to_frame needs pandas or polars: pip install 'hotloop[data]'")

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw losses and metrics against epochs; into a picture file, or without a path as a figure that is returned.

        A notebook shows the figure. Raises ImportError without matplotlib (extra `plot`).
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("History.plot needs matplotlib: pip install 'hotloop[plot]'") from None

        class Picture(Figure):
            """A figure that a notebook shows without pyplot."""

            def _repr_png_(self) -> bytes:
                stream = BytesIO()
                self.savefig(stream, format="png")
                return stream.getvalue()

        figure = Picture(figsize=(7, 4.2), layout="constrained", dpi=120)
        self.draw(figure)
        if path is None:
            return figure
        figure.savefig(path)
        return None

    def draw(self, figure: Any) -> None:
        """Draw the same on a figure of matplotlib, in place of what is there.

        Losses on the left axis, shares such as accuracy, f1 and r2 on the right one, errors in units of y below them.
        """
        figure.clear()
        errors = [name for name in self if name in ERRORS]
        axes, *below = figure.subplots(2 if errors else 1, sharex=True, squeeze=False)[:, 0]
        losses = {"loss": "training loss", "val_loss": "validation loss", "val_log_loss": "validation log loss"}
        left = [name for name in losses if name in self]
        self._lines(axes, left, losses)
        axes.grid(alpha=0.3)
        axes.set(ylabel="loss", title=f"Training: {self.stopped} after {self.epochs} epochs")
        if min(self["loss"]) > 0 and max(self["loss"]) > 20 * min(self["loss"]):
            axes.set_yscale("log")
        handles, labels = axes.get_legend_handles_labels()
        shares = [name for name in self if name.startswith("val_") and name not in (*losses, *errors)]
        if shares:
            right = axes.twinx()
            self._lines(right, shares, _spoken(shares), linestyle="--", first=len(left))
            more, names = right.get_legend_handles_labels()
            handles, labels = handles + more, labels + names
            right.set_ylabel(names[0] if len(names) == 1 else "validation metrics")
            axes.set_zorder(right.get_zorder() + 1)  # the legend above the lines of both
            axes.patch.set_visible(False)
        axes.legend(handles, labels, loc="center right" if shares else "best")
        for other in below:
            self._lines(other, errors, _spoken(errors), linestyle="--")
            other.set_ylabel("error, in units of y")
            other.grid(alpha=0.3)
            other.legend(loc="best")
        (below or [axes])[-1].set_xlabel("epoch")

    def _lines(
        self, axes: Any, names: list[str], labels: Mapping[str, str], linestyle: str = "-", first: int = 0
    ) -> None:
        """Columns against epochs; first: the colour to begin with."""
        marker = "o" if self.epochs <= 30 else None
        for i, name in enumerate(names, first):
            style = {"marker": marker, "markersize": 3, "linestyle": linestyle, "color": f"C{i}"}
            axes.plot(range(1, len(self[name]) + 1), self[name], label=labels[name], **style)


def _spoken(names: list[str]) -> dict[str, str]:
    """The names of columns as a legend shows them."""
    return {name: "validation " + name.removeprefix("val_").replace("_", " ") for name in names}
