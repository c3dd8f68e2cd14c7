"""Callbacks that write a training down: lines of text, a picture, TensorBoard."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from hotloop import check
from hotloop.callbacks import Callback, Run


class _Lines(Callback):
    """A text file that grows by one whole line an epoch, written at once, whatever ends the program."""

    def __init__(self, path: str | Path, append: bool = False) -> None:
        self.path, self.append = Path(path), check.boolean("append", append)
        self._file: IO[bytes] | None = None

    def begin(self, run: Run) -> None:
        """Open the file; of one that is continued, a last line that was cut short is taken off."""
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"path: folder {self.path.parent} does not exist.")
        before = self.path.read_bytes() if self.append and self.path.exists() else b""
        whole = before[: before.rfind(b"\n") + 1]
        head = self.head(("epoch", *run.columns))
        if whole and head and whole.split(b"\n", 1)[0].rstrip(b"\r") != head.encode():
            raise ValueError(f"path: {self.path} begins with other columns than {head}; expected the same to append.")
        self._file = self.path.open("ab" if self.append else "wb", buffering=0)
        self._file.truncate(len(whole))
        if head and not whole:
            self._write(head)

    def epoch(self, run: Run) -> None:
        """Write the epoch's line."""
        self._write(self.line({"epoch": run.epoch + 1, **run.figures}))

    def end(self, run: Run) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, text: str) -> None:
        assert self._file is not None
        self._file.write(text.encode() + b"\n")

    def head(self, columns: tuple[str, ...]) -> str:
        """The first line; empty for none."""
        raise NotImplementedError

    def line(self, row: Mapping[str, float]) -> str:
        """One epoch."""
        raise NotImplementedError


class CSVLog(_Lines):
    """Writes a line of comma-separated figures for every epoch, below one of names: epoch (from 1), loss, lr, ...

    append: go on at the end of a file with the same columns; False: replace it.
    """

    def head(self, columns: tuple[str, ...]) -> str:
        return ",".join(columns)

    def line(self, row: Mapping[str, float]) -> str:
        return ",".join(f"{value!r}" for value in row.values())


class JSONLLog(_Lines):
    """Writes one JSON object for every epoch: {"epoch": 1, "loss": ...}; a figure that is not finite is null.

    append: go on at the end of the file; False: replace it.
    """

    def head(self, columns: tuple[str, ...]) -> str:
        return ""

    def line(self, row: Mapping[str, float]) -> str:
        return json.dumps({name: value if math.isfinite(value) else None for name, value in row.items()})


class LivePlot(Callback):
    """Draws the history while the model trains, at most every `every` seconds: in a notebook, or in a window.

    path: also write the picture there; a window is opened only where matplotlib can show one.
    """

    def __init__(self, path: str | Path | None = None, every: float = 0.5) -> None:
        self.path = None if path is None else Path(path)
        self.every = check.number("every", every, 0.0)
        self._screen: Any = None

    def begin(self, run: Run) -> None:
        """Open the window, or the notebook's output."""
        if self.path is not None and not self.path.parent.is_dir():
            raise FileNotFoundError(f"path: folder {self.path.parent} does not exist.")
        self._screen, self._figure = _screen()
        self._drawn, self._shown = -math.inf, 0

    def epoch(self, run: Run) -> None:
        """Draw, unless it was done a moment ago."""
        if time.monotonic() - self._drawn >= self.every:
            self._draw(run)

    def end(self, run: Run) -> None:
        """Draw the rest."""
        if self._screen is not None and run.history.epochs:
            self._draw(run)

    def _draw(self, run: Run) -> None:
        run.history.draw(self._figure)
        self._screen(self._figure)
        if self.path is not None:
            self._figure.savefig(self.path, dpi=120)
        self._drawn = time.monotonic()


def _screen() -> tuple[Any, Any]:
    """How a figure is shown here, and the figure."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("LivePlot needs matplotlib: pip install 'hotloop[plot]'") from None
    if "ipykernel" in sys.modules:
        from IPython.display import display

        figure = Figure(figsize=(7, 4.2), layout="constrained")
        handle = display(figure, display_id=True)
        return handle.update, figure
    if matplotlib.get_backend().lower() in ("agg", "pdf", "svg", "ps", "cairo", "template"):  # draws, shows nothing
        return (lambda figure: None), Figure(figsize=(7, 4.2), layout="constrained")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(7, 4.2), layout="constrained")
    figure.show()

    def show(figure: Any) -> None:
        figure.canvas.draw_idle()
        figure.canvas.flush_events()

    return show, figure


class TensorBoard(Callback):
    """Writes every figure of every epoch into a folder that TensorBoard shows, by tensorboardX or tensorboard."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: Any = None

    def begin(self, run: Run) -> None:
        """Open the log."""
        self._writer = _writer(self.folder)

    def epoch(self, run: Run) -> None:
        """Write the epoch's figures."""
        for name, value in run.figures.items():
            self._writer.add_scalar(name, value, run.epoch + 1)
        self._writer.flush()

    def end(self, run: Run) -> None:
        """Close the log."""
        if self._writer is not None:
            self._writer.close()


def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        pass
    else:
        return SummaryWriter(str(folder))
    try:
        from tensorboard.summary import Writer
    except ImportError:
        raise ImportError("TensorBoard needs a writer of its logs: pip install tensorboardX, or tensorboard") from None
    return Writer(str(folder))
