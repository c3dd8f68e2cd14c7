"""One training from its first step to its last: epochs, piece by piece, until there is a reason to stop."""

import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hotloop import callbacks as calls
from hotloop import together
from hotloop.chunks import Chunks
from hotloop.curvature import largest_stable_lr
from hotloop.engine import Engine, Interrupts
from hotloop.history import History
from hotloop.kernels import inference
from hotloop.kernels.random import permutation
from hotloop.mlp import MLP
from hotloop.optimizers import SGD, AveragedSGD, State
from hotloop.progress import Progress
from hotloop.rates import Rates
from hotloop.sets import Set, columns, figures

if TYPE_CHECKING:
    from hotloop.trainer import Trainer

EXPLODED = 10.0  # an epoch's loss this many times that of the start, and of constant outputs, is divergence


class DivergenceWarning(UserWarning):
    """Training diverged; the message says at which learning rate it would not."""


@dataclass
class Course:
    """What partial_fit and learn_one carry on: the optimiser's state and the place in the schedule."""

    model: MLP
    state: State
    rates: Rates
    step: int = 0
    passes: int = 0

    def __post_init__(self) -> None:
        self.look_ahead()

    def look_ahead(self) -> None:
        """Learning rates of single steps from here on."""
        self.ahead = self.rates.stream(self.passes, self.step)


class Fitting:
    """One call of fit, or the calls of partial_fit that carry on one another: the state that lives as long as it."""

    def __init__(
        self,
        trainer: "Trainer",
        model: MLP,
        training: Set,
        validation: Set | None,
        chunks: Chunks[Set] | None = None,
        course: Course | None = None,
    ) -> None:
        trainer.suits(model, training)
        self.trainer, self.model, self.validation, self.chunks = trainer, model, validation, chunks
        self.engine: Engine | None = None
        self.together: together.Together | None = None
        self.ahead = 1 if chunks or course else trainer.epochs  # passes over the rows of an engine
        self.history = History()
        self.live = calls.Run(model, trainer, self.history, columns(training, validation))
        self.grad = np.zeros(0, model.params.dtype)
        self.state = course.state if course else trainer.optimizer.init(model.params)
        self._open(training)
        known = 0 if chunks else trainer.epochs * self.steps
        self.rates = course.rates if course else Rates(trainer.schedule, trainer.optimizer.lr, trainer.epochs, known)
        self.rates.at(0, 0, self.steps)  # a schedule that is wrong is found before anything is changed
        self.start, self.kept = np.empty_like(model.params), model.params.copy()  # before the epoch; what to go back to
        self.constant_loss = training.objective.constant_loss()
        self.best_score, self.waited = math.inf, 0
        self.step, self.passes, self.total = 0, 0, 0.0  # steps taken, passes over rows done, losses of this epoch
        self.sound, self.deadline = True, math.inf
        self.bar, self.calls = Progress(trainer.epochs, 0, False), calls.Calls((), self.live)

    def _open(self, training: Set) -> None:
        """Get ready to train on these rows."""
        self.close()
        trainer, model = self.trainer, self.model
        n = len(training.rows)
        self.training, self.batch_size = training, min(n, trainer.batch_size or n)
        self.steps = -(-n // self.batch_size)
        self.engine = trainer.make_engine(model, training, self.batch_size, int(self.state.clock[0]), self.ahead)
        buffered = model.params.size if trainer.buffered(self.batch_size) else 0
        if len(self.grad) != buffered:
            self.grad = np.zeros(buffered, model.params.dtype)

    def close(self) -> None:
        """End the threads."""
        if self.engine is not None:
            self.engine.close()

    def _compile(self) -> None:
        """Compile the kernels, or load them."""
        model, engine = self.model, self.engine
        assert engine is not None
        objective = self.training.objective
        model.loss, model.decision, model.classes = objective.loss, objective.decision, objective.classes
        began = time.perf_counter()
        rule = self.trainer.optimizer.rule(np.zeros(1), self.grad, self.state)
        engine.run(0, 0, rule)
        inference.all_finite(model.params)
        permutation(0, 0, engine.order[:0])
        if self.validation is not None:
            one = np.zeros(1, np.int64)
            rows, objective = self.validation.rows.take(one), self.validation.objective.take(one)
            figures(model._network, Set(rows, objective), 1)
        self.together = together.of(self)
        self.history.compile_seconds = time.perf_counter() - began

    def train(self) -> History:
        """Run the epochs; see Trainer.fit."""
        trainer, history = self.trainer, self.history
        trainer.history = history
        self._compile()
        self.deadline = time.perf_counter() + (trainer.max_seconds or math.inf)
        size = 0 if self.chunks else len(self.training.rows)
        history.stopped = "running"
        try:
            with (
                Interrupts() as self.interrupts,
                Progress(trainer.epochs, size, trainer.progress) as self.bar,
                calls.Calls(trainer.callbacks, self.live) as self.calls,
            ):
                epoch, reason = 0, self.live.reason
                while epoch < trainer.epochs and not reason:
                    some = self.together.at_once(self, epoch) if self.together and epoch else 1
                    reason = self._epochs(epoch, some) if some > 1 else self._epoch(epoch)
                    epoch += some
                history.stopped = reason or "finished"
                self._settle()
        except BaseException:
            history.stopped = history.stopped if history.stopped == "interrupted" else "error"
            raise
        finally:
            self.close()
        if history.stopped == "diverged":
            self._explain_divergence()
        return history

    def go_on(self, data: Set, course: Course) -> float:
        """One pass over more rows; the mean loss. See Trainer.partial_fit."""
        if data is not self.training:
            self._open(data)
        else:
            self._compile()
        self.step, self.passes = course.step, course.passes
        self.start[:] = self.model.params
        self.total, self.live.samples = 0.0, 0
        try:
            with Interrupts() as self.interrupts:
                whole = self._pass(self.passes, data)
        finally:
            self.close()
            course.step, course.passes = self.step, self.passes
            course.look_ahead()
        if not whole:
            self.model.params[:] = self.start
            warnings.warn(
                f"partial_fit diverged with lr={self.live.lr:.4g}; the weights are those from before the call.",
                DivergenceWarning,
                stacklevel=3,
            )
            return math.nan
        return self.total / len(data.rows)

    def _settle(self) -> None:
        """Leave the model with the parameters that count."""
        early = self.trainer.early_stopping
        if self.history.stopped == "diverged" or (early and early.restore_best):
            self.model.params[:] = self.kept
        else:
            self.model.params[:] = self.learned
        self.live.learned = self.model.params

    @property
    def learned(self) -> NDArray[Any]:
        """The parameters as they count: the model's own, or the mean that averaged SGD keeps of them."""
        averaged = isinstance(self.trainer.optimizer, AveragedSGD) and self.state.clock[0]
        return self.state.first if averaged else self.model.params

    def _pass(self, epoch: int, data: Set) -> bool:
        """Train once on rows; whether all is finite. Stops early if there is a reason to."""
        if data is not self.training:
            self._open(data)
        trainer, engine, live = self.trainer, self.engine, self.live
        assert engine is not None
        if trainer.shuffle:
            permutation(trainer.seed, self.passes, engine.order)
        engine.restart(self.passes)
        rates, lost, done = self.rates.at(epoch, self.step, self.steps), self.total, live.samples
        rule = trainer.optimizer.rule(rates, self.grad, self.state)

        def work(start: int, stop: int) -> float:
            factor = live.lr_factor
            return engine.run(start, stop, rule if factor == 1.0 else rule._replace(rates=rates * factor))

        def after(stop: int, part: float) -> bool:
            self.total, live.samples = lost + part, done + stop
            live.lr = float(rates[min(-(-stop // self.batch_size), len(rates)) - 1]) * live.lr_factor
            return self._after(epoch)

        engine.pieces.run(len(data.rows), work, after)
        self.sound = self.sound and inference.all_finite(self.model.params)
        self.passes, self.step = self.passes + 1, self.step + self.steps
        return self.sound

    def _after(self, epoch: int) -> bool:
        """Behind a piece: whether to go on.

        A parameter that is not finite never becomes finite again, so one that the loss does not show is found at the
        end of the epoch; in between they are looked at if someone is about to see them. 3,000,000 take 0.4 ms.
        """
        self.bar.update(epoch, self.live.samples)
        noted = self.interrupts.noted
        seen = noted or len(self.trainer.callbacks) > 0
        self.sound = math.isfinite(self.total) and not (seen and not inference.all_finite(self.model.params))
        if self.sound:
            self.calls.piece()
        return self.sound and not self._ended(epoch, noted)

    def _ended(self, epoch: int, noted: bool = True) -> bool:
        """Let Ctrl-C through, if it was noted; whether there is a reason to stop."""
        if noted:
            self._breathe(epoch)
        if time.perf_counter() > self.deadline:
            self.live.stop("time")
        return bool(self.live.reason)

    def _breathe(self, epoch: int) -> None:
        """Let Ctrl-C through."""
        rows = "" if self.chunks else f"of {len(self.training.rows):,} "
        try:
            self.interrupts.deliver(
                f"training stopped in epoch {epoch + 1} of {self.trainer.epochs}, after {self.live.samples:,} {rows}"
                "samples; the model keeps what it has learned so far"
            )
        except KeyboardInterrupt:
            self.history.stopped = "interrupted"
            raise

    def _epoch(self, epoch: int) -> str:
        """Train one epoch and write it down; the reason to stop, or nothing."""
        live = self.live
        self.start[:] = self.model.params
        began = time.perf_counter()
        self.total, live.epoch, live.samples, whole = 0.0, epoch, 0, True
        for data in self.chunks.epoch(epoch, lambda: self._ended(epoch)) if self.chunks else [self.training]:
            whole = self._pass(epoch, data)
            if not whole or live.reason:
                break
        if not live.samples:
            return live.reason
        row = {"loss": self.total / live.samples, "lr": live.lr, "seconds": time.perf_counter() - began}
        live.learned = self.learned
        if self.validation is not None:
            found = dict.fromkeys(("loss", *self.validation.objective.figures), math.nan)
            if whole:
                network = self.model._network._replace(params=live.learned)
                found = figures(network, self.validation, self.trainer.threads, lambda: self._breathe(epoch))
            row |= {f"val_{name}": value for name, value in found.items()}
        self.history.append(row)
        self._show()
        reason = "diverged" if not whole or row["loss"] > self._limit else self._reason(row)
        self.rates.see(row)
        self.calls.epoch()
        return reason or live.reason

    def _epochs(self, first: int, count: int) -> str:
        """Train some epochs in one call; the reason to stop, or nothing."""
        assert self.together is not None
        reason = self.together.run(self, first, count, self._limit)
        self._show()
        self.bar.update(self.live.epoch, self.live.samples)
        self._ended(self.live.epoch, self.interrupts.noted)
        return reason or self.live.reason

    @property
    def _limit(self) -> float:
        """A larger loss of an epoch is divergence."""
        return EXPLODED * max(self.constant_loss, self.history["loss"][0])

    def _show(self) -> None:
        """The last epoch's figures, beside the bar."""
        if self.bar.enabled:
            shown = (item for item in self.live.figures.items() if item[0].endswith(("loss", "accuracy", "r2")))
            self.bar.note("".join(f"  {name} {figure:.4g}" for name, figure in shown))

    def _reason(self, row: dict[str, float]) -> str:
        """Early stopping and tolerance; on the way, keeps the weights to go back to.

        With early stopping these are the best epoch's. Without, they are those from before the epoch of lowest loss:
        its losses were taken before its steps, the last of which may already have gone astray.
        """
        early, tol = self.trainer.early_stopping, self.trainer.tol
        still = tol and float(np.abs(self.model.params - self.start).max()) <= tol
        score = early.score(row[early.monitor]) if early else row["loss"]
        if score < self.best_score - (early.min_delta if early else 0.0):
            self.best_score, self.waited = score, 0
            if early:
                self.kept[:] = self.learned
            else:  # no copy: the next epoch begins by writing its own over those kept before
                self.kept, self.start = self.start, self.kept
        else:
            self.waited += 1
        if early and early.reached(row[early.monitor]):
            self.kept[:] = self.learned
            return "target"
        if early and self.waited >= early.patience:
            return "early stopping"
        return "tol" if still else ""

    def _explain_divergence(self) -> None:
        """Say what would have worked."""
        model, history, optimizer = self.model, self.history, self.trainer.optimizer
        stable = None
        if isinstance(optimizer, SGD):  # others scale their steps by the gradients: curvature sets no bound
            stable = largest_stable_lr(
                model._network, self.training.rows, self.training.objective, self.batch_size, optimizer.momentum
            )
        advice = f"the largest that would not is about {stable:.2g}" if stable else "try a smaller one"
        losses = history["loss"]
        warnings.warn(
            f"training diverged in epoch {history.epochs}: the loss went from {losses[0]:.4g} to {losses[-1]:.4g} "
            f"with lr={history['lr'][-1]:.4g}; {advice}. The weights are those from before.",
            DivergenceWarning,
            stacklevel=4,
        )
