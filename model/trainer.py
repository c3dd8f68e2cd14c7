"""The trainer: validate once, then run epochs piece by piece until there is a reason to stop."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import check, inputs
from hotloop.curvature import gradient, largest_stable_lr
from hotloop.custom import Loss
from hotloop.engine import Engine, Interrupts, infer
from hotloop.history import History
from hotloop.inputs import Rows
from hotloop.kernels import activations, updates
from hotloop.kernels import epochs as kernels
from hotloop.kernels.network import Network
from hotloop.kernels.random import permutation
from hotloop.machine import available_threads
from hotloop.mlp import MLP
from hotloop.objectives import OUTPUTS, Objective, bind
from hotloop.optimizers import SGD, Optimizer, PassiveAggressive
from hotloop.progress import Progress
from hotloop.regularization import Regularization
from hotloop.schedules import Constant, Schedule
from hotloop.stopping import EarlyStopping
from hotloop.weights import ClassWeight, weigh

EXPLODED = 10.0  # an epoch's loss this many times that of the start, and of constant outputs, is divergence


class DivergenceWarning(UserWarning):
    """Training diverged; the message says at which learning rate it would not."""


@dataclass(frozen=True)
class _Set:
    """Samples with their objective."""

    rows: Rows
    objective: Objective


class Trainer:
    """Fits a model to data by gradient descent: whole batch, mini-batch, or sample by sample.

    loss              mse, mae, huber, hinge, squared_hinge, logistic, cross_entropy, poisson or perceptron;
                      None: the output's own (softmax cross_entropy, sigmoid logistic, step perceptron, else mse);
                      or a Loss of your own
    optimizer         SGD(lr, momentum, nesterov), Adam(lr), ...: see hotloop.optimizers
    schedule          factor of lr by (epoch, epochs), such as CosineDecay(); None: constant
    batch_size        1: per-sample SGD; n: mini-batch; None: full batch (gradient descent)
    shuffle, seed     a new order of the samples each epoch, drawn from the seed
    validation_split  share of the samples held out, drawn from the seed
    early_stopping    EarlyStopping(...); needs validation data if it monitors a validation figure
    tol               stop when no parameter moved by more than this in an epoch; 0: never
    l1, l2            penalties l1 sum |w| + l2/2 sum w^2 on all weights, no biases; not part of the loss shown
    dropout           share of hidden units dropped; a sequence: of the input, then of each hidden layer. Those that
                      stay are scaled by 1 / (1 - share): predictions need no change (Srivastava et al. 2014)
    input_noise       standard deviation of normal noise added to the inputs of every step (Bishop 1995)
    clip_norm         largest norm of a step's whole gradient; a larger one is scaled down (Pascanu et al. 2013)
    clip_value        largest absolute value of an entry of the gradient, after the penalties, before clip_norm
    max_norm          largest norm of the weights into one unit; kept after every step
    label_smoothing   share of every label that is spread over all classes while training
    threads           at most; None: all this process may use. As many run as pay; results do not depend on it
    progress          None: a bar on a terminal or in a notebook if training takes over a second; True, False
    """

    def __init__(
        self,
        loss: str | Loss | None = None,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        batch_size: int | None = 32,
        epochs: int = 10,
        shuffle: bool = True,
        seed: int = 0,
        validation_split: float = 0.0,
        early_stopping: EarlyStopping | None = None,
        tol: float = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        dropout: float | Sequence[float] = 0.0,
        input_noise: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        max_norm: float | None = None,
        label_smoothing: float = 0.0,
        threads: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.loss = loss if loss is None or isinstance(loss, Loss) else check.choice("loss", loss, OUTPUTS)
        self.optimizer = SGD() if optimizer is None else optimizer
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"optimizer: got {optimizer!r}, expected an optimiser such as SGD(lr=0.05).")
        self.schedule = Constant() if schedule is None else schedule
        if not callable(self.schedule):
            raise TypeError(f"schedule: got {schedule!r}, expected a schedule such as CosineDecay().")
        self.batch_size = None if batch_size is None else check.integer("batch_size", batch_size, 1)
        self.epochs = check.integer("epochs", epochs, 1)
        self.shuffle = check.boolean("shuffle", shuffle)
        self.seed = check.integer("seed", seed, 0, 2**63 - 1)
        self.validation_split = check.number("validation_split", validation_split, 0.0, 0.999)
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            raise TypeError(f"early_stopping: got {early_stopping!r}, expected EarlyStopping(patience=...).")
        self.early_stopping = early_stopping
        self.tol = check.number("tol", tol, 0.0)
        self.regularization = Regularization(l1, l2, clip_value, clip_norm, max_norm, dropout, input_noise)
        self.label_smoothing = check.number("label_smoothing", label_smoothing, 0.0, 1.0)
        chosen = available_threads() if threads is None else check.integer("threads", threads, 1, 1024)
        self.threads = min(chosen, available_threads())  # more would only wait for one another
        self.progress = None if progress is None else check.boolean("progress", progress)
        self.history = History()  # of the last fit, also of one that Ctrl-C ended

    def fit(
        self,
        model: MLP,
        X: ArrayLike,
        y: ArrayLike,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
    ) -> History:
        """Train the model in place on X (n, n_features) and y; return what happened epoch by epoch.

        y is (n,) or (n, n_outputs): class numbers for cross_entropy, -1/+1 for hinge, 0/1 for logistic and
        perceptron, else values. Each sample's loss, and with it its step, is multiplied by its sample_weight (n,) and
        by its class's class_weight: a dict, or "balanced", n / (classes * samples of the class).

        Raises ValueError or TypeError before anything is changed. Ctrl-C raises KeyboardInterrupt and leaves the model
        as of the last finished piece, and trainer.history as far as it came. A training that diverges stops with a
        DivergenceWarning and leaves the weights from before the epoch with the lowest loss (with early stopping: those
        of the best epoch).
        """
        whole = self._set(model, X, y)
        if sample_weight is not None or class_weight is not None:
            whole = _Set(whole.rows, weigh(whole.objective, sample_weight, class_weight))
        training, validation = self._data(model, whole, validation_data)
        if self.label_smoothing:
            training = _Set(training.rows, training.objective.smoothed(self.label_smoothing))
        self._suits(model, training)
        rates = (self._rate(epoch) for epoch in range(self.epochs))
        first = next(rates)  # a schedule that is wrong is found before anything is changed
        run = _Run(self, model, training, validation, chain([first], rates))
        self.history = run.history
        return run.train()

    def evaluate(self, model: MLP, X: ArrayLike, y: ArrayLike) -> dict[str, float]:
        """Mean loss over X and y, and accuracy (classes, labels) or r2 (values)."""
        data = self._set(model, X, y)
        return _figures(model._network, data, self.threads)

    def gradients(self, model: MLP, X: ArrayLike, y: ArrayLike) -> tuple[float, list[NDArray[Any]], list[NDArray[Any]]]:
        """Mean loss over X and y with l1 and l2, and its gradient.

        One dweight (fan_in, fan_out) and dbias (fan_out,) per layer.
        """
        data, penalties = self._set(model, X, y), Regularization(self.regularization.l1, self.regularization.l2)
        loss, grad = gradient(model._network, data.rows, data.objective, penalties)
        for weight in model.weights:
            sizes = np.abs(weight, dtype=np.float64)
            loss += penalties.l1 * float(sizes.sum()) + 0.5 * penalties.l2 * float(np.square(sizes).sum())
        twin = MLP(model.sizes, list(model.activations), model.output, model.bias, "zeros", model.dtype)
        twin.params[:] = grad
        return loss, twin.weights, twin.biases

    def _set(self, model: MLP, X: ArrayLike, y: ArrayLike, name: str = "") -> _Set:
        if not isinstance(model, MLP):
            raise TypeError(f"model: got {type(model).__name__}, expected an MLP.")
        rows = inputs.read(f"{name}X", X, model.sizes[0], model.dtype)
        return _Set(rows, bind(self.loss, model, y, len(rows), f"{name}y"))

    def _suits(self, model: MLP, data: _Set) -> None:
        """Refuse what the optimiser or the regularisation cannot do with this model."""
        self.regularization.shares(len(model.weights))
        if isinstance(self.optimizer, PassiveAggressive):
            plain = self.regularization.direct and not self.regularization.changes_inputs(len(model.weights))
            one_slope = len(data.objective.labels) or model.sizes[-1] == 1
            if not (len(model.weights) == 1 and self.batch_size == 1 and one_slope and plain):
                raise ValueError(
                    "optimizer: PassiveAggressive needs one layer, batch_size 1, one output or class labels, and no "
                    "penalties, clipping, input dropout or noise."
                )
            if data.objective.loss not in ("hinge", "mae") or data.objective.activation != activations.IDENTITY:
                raise ValueError(
                    f"optimizer: PassiveAggressive got loss {data.objective.loss!r}, expected hinge, or mae, of the "
                    "plain output."
                )

    def _data(self, model: MLP, data: _Set, given: Any) -> tuple[_Set, _Set | None]:
        """Training and validation data."""
        validation = None
        if given is not None:
            if self.validation_split:
                raise ValueError("validation_data: got data beside validation_split, expected one of the two.")
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise ValueError("validation_data: expected a pair (X, y).")
            validation = self._set(model, given[0], given[1], "validation ")
        elif self.validation_split:
            data, validation = self._split(data)
        monitor = self.early_stopping.monitor if self.early_stopping else "loss"
        if monitor not in ("loss", "val_loss", f"val_{data.objective.metric}"):
            raise ValueError(
                f"early_stopping: monitors {monitor!r}, but with loss {data.objective.loss!r} there is only "
                f"val_{data.objective.metric}, besides val_loss and loss."
            )
        if monitor != "loss" and validation is None:
            raise ValueError(
                f"early_stopping: monitors {monitor!r}, but there is no validation data; "
                "set validation_split or pass validation_data."
            )
        return data, validation

    def _rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""
        factor = self.schedule(epoch, self.epochs)
        if not isinstance(factor, int | float | np.integer | np.floating):
            raise TypeError(f"schedule: gave {factor!r} for epoch {epoch}, expected a finite factor of 0 or more.")
        if not math.isfinite(factor) or factor < 0:
            raise ValueError(f"schedule: gave {factor} for epoch {epoch}, expected a finite factor of 0 or more.")
        return self.optimizer.lr * float(factor)

    def _split(self, data: _Set) -> tuple[_Set, _Set]:
        n = len(data.rows)
        held = max(1, round(n * self.validation_split))
        if held >= n:
            raise ValueError(f"validation_split: {self.validation_split} of {n} samples leaves none to train on.")
        order = np.empty(n, np.int64)
        permutation(self.seed, 2**32 - 1, order)  # a stream of its own, after the last possible epoch
        rows, rest = order[:held], np.sort(order[held:])
        return _Set(data.rows.take(rest), data.objective.take(rest)), _Set(
            data.rows.take(rows), data.objective.take(rows)
        )


class _Run:
    """One call of fit: the state that lives as long as it."""

    def __init__(
        self, trainer: Trainer, model: MLP, training: _Set, validation: _Set | None, rates: Iterator[float]
    ) -> None:
        self.trainer, self.model, self.training, self.validation = trainer, model, training, validation
        self.history, self.rates = History(), rates
        n, optimizer, regularization = len(training.rows), trainer.optimizer, trainer.regularization
        self.batch_size = min(n, trainer.batch_size or n)
        code = optimizer.constants().code
        direct = code in (updates.SGD, updates.PASSIVE_AGGRESSIVE) and regularization.direct
        per_sample = direct and trainer.batch_size == 1 and not regularization.changes_inputs(len(model.weights))
        self.engine = Engine(
            model._network,
            training.rows,
            training.objective,
            self.batch_size,
            trainer.threads,
            per_sample,
            regularization,
            trainer.seed,
        )
        self.state = optimizer.init(model.params)
        buffered = not direct or self.batch_size > kernels.BLOCK
        self.grad = np.zeros(model.params.size if buffered else 0, model.params.dtype)
        self.kept = model.params.copy()  # what to go back to: see _reason
        self.start = model.params.copy()  # of the running epoch
        self.constant_loss = training.objective.constant_loss()
        self.best_score, self.waited = math.inf, 0

    def train(self) -> History:
        """Run the epochs; see Trainer.fit."""
        trainer, model, history = self.trainer, self.model, self.history
        model.loss, model.decision = self.training.objective.loss, self.training.objective.decision
        began = time.perf_counter()
        self.engine.run(0, 0, self._rule(0.0))  # these three compile the kernels, or load them
        kernels.all_finite(model.params)
        permutation(0, 0, self.engine.order[:0])
        history.compile_seconds = time.perf_counter() - began
        try:
            with (
                Interrupts() as self.interrupts,
                Progress(trainer.epochs, len(self.training.rows), trainer.progress) as self.bar,
            ):
                for epoch, lr in enumerate(self.rates):
                    if reason := self._epoch(epoch, lr):
                        history.stopped = reason
                        break
        finally:
            self.engine.close()
        if history.stopped == "diverged":
            self._explain_divergence()
        elif trainer.early_stopping and trainer.early_stopping.restore_best:
            model.params[:] = self.kept
        else:
            model.params[:] = self.learned
        return history

    @property
    def learned(self) -> NDArray[Any]:
        """The parameters as they count: the model's own, or the mean that averaged SGD keeps of them."""
        averaged = self.trainer.optimizer.constants().code == updates.AVERAGED
        return self.state.first if averaged and self.state.clock[0] else self.model.params

    def _rule(self, lr: float) -> updates.Rule:
        return self.trainer.optimizer.rule(np.array([lr]), self.grad, self.state)

    def _epoch(self, epoch: int, lr: float) -> str:
        """Train one epoch and write it down; the reason to stop, or nothing."""
        trainer, engine, n = self.trainer, self.engine, len(self.training.rows)
        rule = self._rule(lr)
        self.start[:] = self.model.params
        began = time.perf_counter()
        if trainer.shuffle:
            permutation(trainer.seed, epoch, engine.order)
        engine.restart(epoch)
        total = 0.0

        def after(stop: int, part: float) -> bool:
            nonlocal total
            total = part
            self.bar.update(epoch, stop)
            self._breathe(epoch, stop)
            return math.isfinite(total) and kernels.all_finite(self.model.params)

        whole = engine.pieces.run(n, lambda start, stop: engine.run(start, stop, rule), after)
        row = {"loss": total / n, "lr": lr, "seconds": time.perf_counter() - began}
        if self.validation is not None:
            figures = {"loss": math.nan, self.validation.objective.metric: math.nan}
            if whole:
                network = self.model._network._replace(params=self.learned)
                figures = _figures(network, self.validation, trainer.threads, lambda: self._breathe(epoch, n))
            row |= {f"val_{name}": value for name, value in figures.items()}
        self.history.append(row)
        self.bar.note("".join(f"  {name} {row[name]:.4g}" for name in row if name.endswith(("loss", "accuracy", "r2"))))
        if not whole or row["loss"] > EXPLODED * max(self.constant_loss, self.history["loss"][0]):
            return "diverged"
        return self._reason(row)

    def _breathe(self, epoch: int, samples: int) -> None:
        """Let Ctrl-C through."""
        try:
            self.interrupts.deliver(
                f"training stopped in epoch {epoch + 1} of {self.trainer.epochs}, after {samples:,} of "
                f"{len(self.training.rows):,} samples; the model keeps what it has learned so far"
            )
        except KeyboardInterrupt:
            self.history.stopped = "interrupted"
            raise

    def _reason(self, row: dict[str, float]) -> str:
        """Early stopping and tolerance; on the way, keeps the weights to go back to.

        With early stopping these are the best epoch's. Without, they are those from before the epoch of lowest loss:
        its losses were taken before its steps, the last of which may already have gone astray.
        """
        early = self.trainer.early_stopping
        score = early.score(row[early.monitor]) if early else row["loss"]
        if score < self.best_score - (early.min_delta if early else 0.0):
            self.best_score, self.waited = score, 0
            self.kept[:] = self.learned if early else self.start
        else:
            self.waited += 1
        if early and self.waited >= early.patience:
            return "early stopping"
        if self.trainer.tol and float(np.abs(self.model.params - self.start).max()) <= self.trainer.tol:
            return "tol"
        return ""

    def _explain_divergence(self) -> None:
        """Back to the best weights, and say what would have worked."""
        model, history, optimizer = self.model, self.history, self.trainer.optimizer
        model.params[:] = self.kept
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


def _figures(
    network: Network, data: _Set, threads: int, breathe: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Mean loss, and accuracy or r2, of a network on checked data."""
    objective = data.objective
    outputs = infer(network, data.rows, objective.activation, threads, breathe)
    delta = np.empty(outputs.shape[1], outputs.dtype)
    total = kernels.total_loss(objective.code, outputs, objective.targets, objective.labels, delta)
    figures = {"loss": total / len(outputs)}
    targets, labels = objective.targets, objective.labels
    if objective.metric == "r2":
        predictions = np.exp(outputs) if objective.decision == "exp" else outputs
        figures["r2"] = _r2(predictions.astype(np.float64), targets.astype(np.float64))
    elif objective.decision == "argmax":
        truth = labels if len(labels) else targets.argmax(axis=1)
        figures["accuracy"] = float((outputs.argmax(axis=1) == truth).mean())
    else:
        signed = targets > (0.0 if objective.decision == "sign" else 0.5)
        middle = 0.5 if objective.activation == activations.SIGMOID else 0.0
        figures["accuracy"] = float(((outputs > middle) == signed).mean())
    return figures


def _r2(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    """Coefficient of determination, averaged over outputs; 0 for an output whose targets are all equal."""
    residual = ((targets - predictions) ** 2).sum(axis=0)
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    return float(np.where(spread > 0, 1.0 - residual / np.where(spread > 0, spread, 1.0), 0.0).mean())
