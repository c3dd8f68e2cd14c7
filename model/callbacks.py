"""Callbacks: code of the user's that runs while a model trains, between two pieces of about 20 ms."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hotloop import check
from hotloop.history import History
from hotloop.monitor import falls, require

if TYPE_CHECKING:
    from hotloop.mlp import MLP
    from hotloop.trainer import Trainer


class Run:
    """A training as its callbacks see it.

    model, trainer, history; epochs counted from 0; samples done in this epoch; lr, that of the last step.
    """

    def __init__(self, model: "MLP", trainer: "Trainer", history: History, columns: Sequence[str]) -> None:
        self.model, self.trainer, self.history, self.columns = model, trainer, history, tuple(columns)
        self.epoch, self.samples, self.lr = 0, 0, math.nan
        self.reason = ""  # to stop, once there is one
        self.learned: NDArray[np.floating] = model.params  # what `save` writes: differs for averaged SGD
        self._lr_factor = 1.0

    @property
    def lr_factor(self) -> float:
        """What the schedule's learning rates are multiplied by, from the next piece on; may be set."""
        return self._lr_factor

    @lr_factor.setter
    def lr_factor(self, value: float) -> None:
        self._lr_factor = check.number("lr_factor", value, 0.0)

    @property
    def figures(self) -> dict[str, float]:
        """The last epoch's row of the history."""
        return {name: column[-1] for name, column in self.history.items()}

    def stop(self, reason: str = "callback") -> None:
        """End the training behind this piece; history.stopped will give the reason."""
        if not isinstance(reason, str) or not reason:
            raise ValueError(f"reason: got {reason!r}, expected a text.")
        self.reason = self.reason or reason

    def save(self, path: str | Path) -> None:
        """Write the model as it would be if the training ended now; see MLP.save."""
        present = self.model.params.copy()
        self.model.params[:] = self.learned
        try:
            self.model.save(path)
        finally:
            self.model.params[:] = present


class Callback:
    """Override what is needed. An exception ends the training and comes through; `end` is called in any case."""

    def begin(self, run: Run) -> None:
        """Before the first epoch."""

    def piece(self, run: Run) -> None:
        """Behind every piece of an epoch, about 20 ms."""

    def epoch(self, run: Run) -> None:
        """Behind every epoch, with its row in run.history."""

    def end(self, run: Run) -> None:
        """When the training is over, for whatever reason: run.history.stopped."""


class _Function(Callback):
    """A plain function, called behind every epoch."""

    def __init__(self, function: Callable[[Run], object]) -> None:
        self._function = function

    def epoch(self, run: Run) -> None:
        self._function(run)


def read(value: Sequence[Callback | Callable[[Run], object]]) -> tuple[Callback, ...]:
    """The trainer's argument: callbacks and plain functions."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"callbacks: got {value!r}, expected a list of callbacks and functions.")
    for i, one in enumerate(value):
        if isinstance(one, type) or not (isinstance(one, Callback) or callable(one)):
            raise TypeError(f"callbacks[{i}]: got {one!r}, expected a Callback or a function of the run.")
    return tuple(one if isinstance(one, Callback) else _Function(one) for one in value)


class Calls:
    """Calls the callbacks of one run; a context that ends them all."""

    def __init__(self, callbacks: Sequence[Callback], run: Run) -> None:
        self._callbacks, self._run = callbacks, run
        self._ends = ExitStack()

    def __enter__(self) -> "Calls":
        with ExitStack() as ends:  # the last is ended first, and an error in one does not keep another from its end
            for one in self._callbacks:
                ends.callback(one.end, self._run)
                one.begin(self._run)
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.__exit__(kind, error, trace)

    def piece(self) -> None:
        """Behind a piece."""
        for one in self._callbacks:
            one.piece(self._run)

    def epoch(self) -> None:
        """Behind an epoch."""
        for one in self._callbacks:
            one.epoch(self._run)


class BestModel(Callback):
    """Saves the model whenever the monitored figure has improved by more than min_delta.

    The file is written beside and takes the place of the old one when it is whole. monitor, mode: see EarlyStopping.
    """

    def __init__(
        self, path: str | Path, monitor: str = "val_loss", min_delta: float = 0.0, mode: str | None = None
    ) -> None:
        self.path, self.monitor = Path(path), monitor
        self.min_delta = check.number("min_delta", min_delta, 0.0)
        self._sign = 1.0 if falls(monitor, mode) else -1.0
        self.best = math.inf

    def begin(self, run: Run) -> None:
        """Check the figure and the folder; a new run begins from nothing."""
        require("BestModel", self.monitor, run.columns)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"path: folder {self.path.parent} does not exist.")
        self.best = math.inf

    def epoch(self, run: Run) -> None:
        """Save a better model."""
        score = self._sign * run.figures[self.monitor]
        if score < self.best - self.min_delta:
            self.best = score
            run.save(self.path)
