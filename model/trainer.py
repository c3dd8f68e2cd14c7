"""The trainer: validate once, then run epochs piece by piece until there is a reason to stop."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import callbacks as calls
from hotloop import check, inputs
from hotloop.chunks import Chunks, Source, is_source
from hotloop.curvature import gradient, largest_stable_lr
from hotloop.custom import Loss
from hotloop.engine import Engine, Interrupts, infer
from hotloop.history import History
from hotloop.inputs import Rows
from hotloop.kernels import activations, updates
from hotloop.kernels import epochs as kernels
from hotloop.kernels.network import Network
from hotloop.kernels.random import permutation
from hotloop.machine import available_threads, warn_without_fma
from hotloop.mlp import MLP
from hotloop.monitor import require
from hotloop.objectives import OUTPUTS, Objective, bind
from hotloop.online import Learner
from hotloop.optimizers import SGD, AveragedSGD, Optimizer, PassiveAggressive, State
from hotloop.plateau import ReduceOnPlateau
from hotloop.progress import Progress
from hotloop.rates import Rates
from hotloop.regularization import Regularization
from hotloop.schedules import UNITS, Constant, Schedule, innermost
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
    schedule          factor of lr by (epoch, epochs), such as CosineDecay(), or by step; None: constant
    batch_size        1: per-sample SGD; n: mini-batch; None: full batch (gradient descent)
    shuffle, seed     a new order of the samples each epoch, drawn from the seed
    validation_split  share of the samples held out, drawn from the seed
    early_stopping    EarlyStopping(...); needs validation data if it monitors a validation figure
    tol               stop when no parameter moved by more than this in an epoch; 0: never
    max_seconds       stop behind the piece (about 20 ms) in which this time is up; compilation does not count
    l1, l2            penalties l1 sum |w| + l2/2 sum w^2 on all weights, no biases; not part of the loss shown
    dropout           share of hidden units dropped; a sequence: of the input, then of each hidden layer. Those that
                      stay are scaled by 1 / (1 - share): predictions need no change (Srivastava et al. 2014)
    input_noise       standard deviation of normal noise added to the inputs of every step (Bishop 1995)
    clip_norm         largest norm of a step's whole gradient; a larger one is scaled down (Pascanu et al. 2013)
    clip_value        largest absolute value of an entry of the gradient, after the penalties, before clip_norm
    max_norm          largest norm of the weights into one unit; kept after every step
    label_smoothing   share of every label that is spread over all classes while training
    threads           at most; None: all this process may use. As many run as pay; results do not depend on it
    callbacks         Callback objects, and plain functions of the run that are called behind every epoch
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
        max_seconds: float | None = None,
        callbacks: Sequence[calls.Callback | Callable[[calls.Run], object]] = (),
    ) -> None:
        self.loss = loss if loss is None or isinstance(loss, Loss) else check.choice("loss", loss, OUTPUTS)
        self.optimizer = SGD() if optimizer is None else optimizer
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"optimizer: got {optimizer!r}, expected an optimiser such as SGD(lr=0.05).")
        self.schedule = Constant() if schedule is None else schedule
        if not callable(self.schedule):
            raise TypeError(f"schedule: got {schedule!r}, expected a schedule such as CosineDecay().")
        check.choice("schedule.per", getattr(self.schedule, "per", "epoch"), UNITS)
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
        limit = None if max_seconds is None else check.number("max_seconds", max_seconds, 0.0, open_below=True)
        self.max_seconds = limit
        self.callbacks = calls.read(callbacks)
        self._learner: Learner | None = None  # what learn_one goes on with
        self.history = History()  # of the last fit, also of one that Ctrl-C ended
        self._online: _Run | None = None  # what partial_fit goes on with
        self._course: _Course | None = None  # what both share

    def fit(
        self,
        model: MLP,
        X: ArrayLike | Source,
        y: ArrayLike | None = None,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
    ) -> History:
        """Train the model in place on X (n, n_features) and y; return what happened epoch by epoch.

        y is (n,) or (n, n_outputs): class numbers for cross_entropy, -1/+1 for hinge, 0/1 for logistic and
        perceptron, else values. Each sample's loss, and with it its step, is multiplied by its sample_weight (n,) and
        by its class's class_weight: a dict, or "balanced", n / (classes * samples of the class).

        Without y, X is a source of chunks (X, y) or (X, y, sample_weight), one pass over it being an epoch: a list or
        any object that can be iterated again, a function that returns a new iterator, or for one epoch an iterator. The
        next chunk is made and checked on a thread while the present one trains. No step spans two chunks, samples are
        shuffled within theirs, and to a schedule by step the number of steps is not known beforehand.

        Raises ValueError or TypeError before anything is changed. Ctrl-C raises KeyboardInterrupt and leaves the model
        as of the last finished piece, and trainer.history as far as it came. A training that diverges stops with a
        DivergenceWarning and leaves the weights from before the epoch with the lowest loss (with early stopping: those
        of the best epoch).
        """
        self._forget()
        warn_without_fma()
        if y is None and is_source(X):
            with self._chunks(model, X, sample_weight, class_weight) as chunks:
                training, validation = self._data(model, chunks.first(), validation_data)
                return _Run(self, model, training, validation, chunks=chunks).train()
        data = self._set(model, cast(ArrayLike, X), cast(ArrayLike, y))
        whole = self._weighed(data, sample_weight, class_weight)
        training, validation = self._data(model, whole, validation_data)
        return _Run(self, model, self._smoothed(training), validation).train()

    def partial_fit(
        self,
        model: MLP,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
    ) -> float:
        """Train the model in place on X and y in one pass, and go on from there at the next call.

        Returns the mean loss, each sample's taken before its own step. The optimiser's state and the schedule are
        carried on from call to call, as long as it is the same model; a call counts as an epoch of `epochs`, and to a
        schedule by step the number of steps is not known beforehand. Callbacks, early stopping, validation and limits
        are those of fit alone. Errors as in fit; a call that diverges leaves the weights from before it.
        """
        if isinstance(self.optimizer, AveragedSGD):
            raise ValueError("optimizer: AveragedSGD gives its mean at the end of a fit; partial_fit has no end.")
        data = self._smoothed(self._weighed(self._set(model, X, y), sample_weight, class_weight))
        self._suits(model, data)
        warn_without_fma()
        course = self._carried(model)
        if self._online is None or self._online.model is not model:
            self._online = _Run(self, model, data, None, course=course)
        loss = self._online.go_on(data, course)
        if not math.isfinite(loss):
            self._forget()
        return loss

    def _carried(self, model: MLP) -> "_Course":
        """What partial_fit and learn_one carry on for this model."""
        if self._course is None or self._course.model is not model:
            if isinstance(innermost(self.schedule), ReduceOnPlateau):
                raise ValueError(
                    "schedule: ReduceOnPlateau goes by the figures of epochs; partial_fit and learn_one have none."
                )
            self._forget()
            rates = Rates(self.schedule, self.optimizer.lr, self.epochs, 0)
            rates.at(0, 0, 1)  # a schedule that is wrong is found before anything is changed
            self._course = _Course(model, self.optimizer.init(model.params), rates)
        return self._course

    def _forget(self) -> None:
        """End what was carried on."""
        self._online = self._learner = self._course = None

    def learn_one(self, model: MLP, x: ArrayLike, y: Any) -> float:
        """Train on one row x (n_features,) and its truth y with one step; return the loss before it.

        In microseconds, for streams. The optimiser's state and the schedule's step are carried on from call to call
        with the same model, of partial_fit too. batch_size, epochs and validation do not count. Raises ValueError or
        TypeError before anything is changed.
        """
        learner, course = self._learner, self._course
        if learner is None or course is None or learner.model is not model:
            learner = self._learner = self._make_learner(model, y)
            course = self._carried(model)
        try:
            loss = learner.learn(x, y, next(course.ahead))
        except Exception:
            course.look_ahead()  # this step was not taken
            raise
        course.step += 1
        return loss

    def _make_learner(self, model: MLP, y: Any) -> Learner:
        def read(truth: ArrayLike) -> Objective:
            objective = bind(self.loss, model, truth, 1)
            return objective.smoothed(self.label_smoothing) if self.label_smoothing else objective

        if not isinstance(model, MLP):
            raise TypeError(f"model: got {type(model).__name__}, expected an MLP.")
        one_by_one = copy(self)
        one_by_one.batch_size, one_by_one.threads = 1, 1
        data = _Set(inputs.dense(np.zeros((1, model.sizes[0]), model.dtype)), read([y]))
        one_by_one._suits(model, data)
        engine, grad = one_by_one._engine(model, data, 1)
        state = self._carried(model).state
        model.loss, model.decision = data.objective.loss, data.objective.decision
        return Learner(model, engine, self.optimizer.rule(np.array([self.optimizer.lr]), grad, state), read)

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

    def _engine(self, model: MLP, data: _Set, batch_size: int) -> tuple[Engine, NDArray[Any]]:
        """The working memory for this data, and the gradient buffer, empty where the weights are moved directly."""
        regularization, layers = self.regularization, len(model.weights)
        direct = self.optimizer.constants().code in (updates.SGD, updates.PASSIVE_AGGRESSIVE) and regularization.direct
        per_sample = direct and self.batch_size == 1 and not regularization.changes_inputs(layers)
        engine = Engine(
            model._network, data.rows, data.objective, batch_size, self.threads, per_sample, regularization, self.seed
        )
        buffered = not direct or batch_size > kernels.BLOCK
        return engine, np.zeros(model.params.size if buffered else 0, model.params.dtype)

    def _weighed(self, data: _Set, sample_weight: ArrayLike | None, class_weight: ClassWeight | None) -> _Set:
        if sample_weight is None and class_weight is None:
            return data
        return _Set(data.rows, weigh(data.objective, sample_weight, class_weight))

    def _smoothed(self, data: _Set) -> _Set:
        """The data to train on, labels smoothed."""
        return _Set(data.rows, data.objective.smoothed(self.label_smoothing)) if self.label_smoothing else data

    def _chunks(
        self, model: MLP, source: Any, sample_weight: ArrayLike | None, class_weight: ClassWeight | None
    ) -> Chunks[_Set]:
        """A source of chunks, each to be checked when it comes."""
        if sample_weight is not None:
            raise ValueError("sample_weight: got weights beside chunks, expected them in chunks (X, y, sample_weight).")
        if class_weight == "balanced":
            raise ValueError("class_weight: got 'balanced' with chunks, whose classes nobody has counted; give a dict.")
        if self.validation_split:
            raise ValueError("validation_split: got a share of chunks, expected 0 and validation_data.")

        def read(i: int, chunk: Any) -> _Set:
            if not isinstance(chunk, tuple | list) or len(chunk) not in (2, 3):
                raise ValueError(f"chunks[{i}]: expected (X, y) or (X, y, sample_weight), got {type(chunk).__name__}.")
            data = self._set(model, chunk[0], chunk[1], f"chunks[{i}] ")
            return self._smoothed(self._weighed(data, chunk[2] if len(chunk) == 3 else None, class_weight))

        return Chunks(source, self.epochs, read)

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
        for owner, watcher in (("early_stopping", self.early_stopping), ("schedule", innermost(self.schedule))):
            if isinstance(watcher, EarlyStopping | ReduceOnPlateau):
                require(owner, watcher.monitor, _columns(data, validation))
        return data, validation

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


@dataclass
class _Course:
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


class _Run:
    """One call of fit, or the calls of partial_fit that carry on one another: the state that lives as long as it."""

    def __init__(
        self,
        trainer: Trainer,
        model: MLP,
        training: _Set,
        validation: _Set | None,
        chunks: Chunks[_Set] | None = None,
        course: _Course | None = None,
    ) -> None:
        trainer._suits(model, training)
        self.trainer, self.model, self.validation, self.chunks = trainer, model, validation, chunks
        self.engine: Engine | None = None
        self.history = History()
        self.live = calls.Run(model, trainer, self.history, _columns(training, validation))
        self._open(training)
        known = 0 if chunks else trainer.epochs * self.steps
        self.rates = course.rates if course else Rates(trainer.schedule, trainer.optimizer.lr, trainer.epochs, known)
        self.rates.at(0, 0, self.steps)  # a schedule that is wrong is found before anything is changed
        self.state = course.state if course else trainer.optimizer.init(model.params)
        self.kept = model.params.copy()  # what to go back to: see _reason
        self.start = model.params.copy()  # of the running epoch
        self.constant_loss = training.objective.constant_loss()
        self.best_score, self.waited = math.inf, 0
        self.step, self.passes, self.total = 0, 0, 0.0  # steps taken, passes over rows done, losses of this epoch
        self.sound, self.deadline = True, math.inf
        self.bar, self.calls = Progress(trainer.epochs, 0, False), calls.Calls((), self.live)

    def _open(self, training: _Set) -> None:
        """Get ready to train on these rows."""
        self.close()
        self.training, n = training, len(training.rows)
        self.batch_size = min(n, self.trainer.batch_size or n)
        self.steps = -(-n // self.batch_size)
        self.engine, self.grad = self.trainer._engine(self.model, training, self.batch_size)

    def close(self) -> None:
        """End the threads."""
        if self.engine is not None:
            self.engine.close()

    def _compile(self) -> None:
        """Compile the kernels, or load them."""
        model, engine = self.model, self.engine
        assert engine is not None
        model.loss, model.decision = self.training.objective.loss, self.training.objective.decision
        began = time.perf_counter()
        engine.run(0, 0, self.trainer.optimizer.rule(np.zeros(1), self.grad, self.state))
        kernels.all_finite(model.params)
        permutation(0, 0, engine.order[:0])
        if self.validation is not None:
            one = np.zeros(1, np.int64)
            rows, objective = self.validation.rows.take(one), self.validation.objective.take(one)
            _figures(model._network, _Set(rows, objective), 1)
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
                for epoch in range(trainer.epochs):
                    if reason := self.live.reason or self._epoch(epoch):
                        break
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

    def go_on(self, data: _Set, course: _Course) -> float:
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

    def _pass(self, epoch: int, data: _Set) -> bool:
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
        self.passes, self.step = self.passes + 1, self.step + self.steps
        return self.sound

    def _after(self, epoch: int) -> bool:
        """Behind a piece: whether to go on."""
        self.bar.update(epoch, self.live.samples)
        self.sound = math.isfinite(self.total) and kernels.all_finite(self.model.params)
        if self.sound:
            self.calls.piece()
        return self.sound and not self._ended(epoch)

    def _ended(self, epoch: int) -> bool:
        """Let Ctrl-C through; whether there is a reason to stop."""
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
            figures = {"loss": math.nan, self.validation.objective.metric: math.nan}
            if whole:
                network = self.model._network._replace(params=live.learned)
                figures = _figures(network, self.validation, self.trainer.threads, lambda: self._breathe(epoch))
            row |= {f"val_{name}": value for name, value in figures.items()}
        self.history.append(row)
        self.bar.note("".join(f"  {name} {row[name]:.4g}" for name in row if name.endswith(("loss", "accuracy", "r2"))))
        diverged = not whole or row["loss"] > EXPLODED * max(self.constant_loss, self.history["loss"][0])
        reason = "diverged" if diverged else self._reason(row)
        self.rates.see(row)
        self.calls.epoch()
        return reason or live.reason

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
        if early and early.reached(row[early.monitor]):
            self.kept[:] = self.learned
            return "target"
        if early and self.waited >= early.patience:
            return "early stopping"
        if self.trainer.tol and float(np.abs(self.model.params - self.start).max()) <= self.trainer.tol:
            return "tol"
        return ""

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


def _columns(training: _Set, validation: _Set | None) -> list[str]:
    """The history's columns."""
    validated = ["val_loss", f"val_{training.objective.metric}"] if validation else []
    return ["loss", "lr", "seconds", *validated]


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
