"""The trainer: what to do, checked once; `fitting` does it."""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import callbacks as calls
from hotloop import check, inputs
from hotloop import metrics as merit
from hotloop.chunks import Chunks, Source, is_source
from hotloop.curvature import gradient
from hotloop.custom import Loss
from hotloop.engine import Engine, infer
from hotloop.fitting import Course, Fitting
from hotloop.history import History
from hotloop.kernels import activations, updates
from hotloop.kernels import epochs as kernels
from hotloop.kernels.lazy import RULES
from hotloop.kernels.random import permutation
from hotloop.machine import available_threads, warn_without_fma
from hotloop.mlp import MLP
from hotloop.monitor import require
from hotloop.objectives import OUTPUTS, Objective, bind, learn_classes
from hotloop.online import Learner
from hotloop.optimizers import SGD, AveragedSGD, Optimizer, PassiveAggressive
from hotloop.plateau import ReduceOnPlateau
from hotloop.rates import Rates
from hotloop.regularization import Regularization
from hotloop.schedules import UNITS, Constant, Schedule, innermost
from hotloop.sets import Set, columns, figures
from hotloop.stopping import EarlyStopping
from hotloop.weights import ClassWeight, weigh


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
    metrics           names of figures beside the loss and accuracy or r2, such as ("f1", "auc"): see hotloop.metrics
    label_smoothing   share of every label that is spread over all classes while training
    threads           at most; None: all this process may use. As many run as pay; results do not depend on it
    device            "cpu", or "cuda": steps are taken on an NVIDIA GPU; needs the extra `cuda`. An X that lies there
                      already (CuPy, PyTorch, Numba, DLPack) is read in place; y and weights are brought to the host
    stream            of device "cuda": numba-cuda's, PyTorch's, CuPy's, or a handle; 0: the default stream
    tf32              of device "cuda" with compute capability 8.0 (Ampere, 2020) or newer, float32: True has tensor
                      cores compute the larger products of training, from operands rounded to 10 bits behind the
                      leading one (relative error 2^-11; sums are float32). For wide layers and large batches; the
                      steps are no longer the processor's. Predictions and evaluation stay in float32
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
        metrics: Sequence[str] = (),
        device: str = "cpu",
        stream: Any = 0,
        tf32: bool = False,
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
        self.metrics = merit.checked(metrics)
        self.device, self.stream = check.choice("device", device, ("cpu", "cuda")), stream
        self.tf32 = check.boolean("tf32", tf32)
        if self.tf32 and device == "cpu":
            raise ValueError("tf32: got True with device='cpu', but only a GPU has tensor cores; use device='cuda'.")
        self.history = History()  # of the last fit, also of one that Ctrl-C ended
        self._online: Fitting | None = None  # what partial_fit goes on with
        self._learner: Learner | None = None  # what learn_one goes on with
        self._course: Course | None = None  # what both share

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: not what learn_one and partial_fit go on with, which has addresses in it."""
        return self.__dict__ | {"_online": None, "_learner": None, "_course": None}

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
        perceptron, else values; or values of model.classes, which text sets (sorted) where there are none yet. Each
        sample's loss, and with it its step, is multiplied by its sample_weight (n,) and by its class's class_weight: a
        dict, or "balanced", n / (classes * samples of the class).

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
                return Fitting(self, model, training, validation, chunks=chunks).train()
        if y is None:
            raise TypeError("y: got None, expected what to learn; only a source of chunks brings its own.")
        rows, y = cast(ArrayLike, X), self._on_host("y", y)
        classes = learn_classes(self.loss, model, y) if isinstance(model, MLP) else None
        whole = self._weighed(self._set(model, rows, y, classes=classes), sample_weight, class_weight)
        training, validation = self._data(model, whole, validation_data)
        return Fitting(self, model, self._smoothed(training), validation).train()

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
        self.suits(model, data)
        warn_without_fma()
        course = self._carried(model)
        if self._online is None or self._online.model is not model:
            self._online = Fitting(self, model, data, None, course=course)
        loss = self._online.go_on(data, course)
        if not math.isfinite(loss):
            self._forget()
        return loss

    def learn_one(self, model: MLP, x: ArrayLike, y: Any) -> float:
        """Train on one row x (n_features,) and its truth y with one step; return the loss before it.

        In microseconds, for streams. The optimiser's state and the schedule's step are carried on from call to call
        with the same model, of partial_fit too. batch_size, epochs and validation do not count. The same steps as a
        per-sample fit's, to rounding. Raises ValueError or TypeError before anything is changed.
        """
        learner = self._learner
        if learner is None or learner.model is not model:
            warn_without_fma()
            learner = self._learner = self._make_learner(model, x, y)
        return learner.learn(x, y)

    def _make_learner(self, model: MLP, x: ArrayLike, y: Any) -> Learner:
        def read(truth: ArrayLike) -> Objective:
            objective = bind(self.loss, model, truth, 1)
            return objective.smoothed(self.label_smoothing) if self.label_smoothing else objective

        if not isinstance(model, MLP):
            raise TypeError(f"model: got {type(model).__name__}, expected an MLP.")
        if isinstance(self.optimizer, AveragedSGD):
            raise ValueError("optimizer: AveragedSGD gives its mean at the end of a fit; learn_one has no end.")
        if self.device == "cuda":
            raise ValueError(
                "device: learn_one steps in microseconds, which a launch on 'cuda' alone takes; use device='cpu', or "
                "partial_fit."
            )
        check.finite("x", model._row(x), np.asarray(x))
        one_by_one = copy(self)
        one_by_one.batch_size, one_by_one.threads = 1, 1
        data = Set(inputs.dense(np.zeros((1, model.sizes[0]), model.dtype)), read([y]))
        one_by_one.suits(model, data)
        course, engine = self._carried(model), one_by_one.make_engine(model, data, 1, 0)
        grad = np.zeros(model.params.size if one_by_one.buffered(1) else 0, model.params.dtype)
        objective = data.objective
        model.loss, model.decision, model.classes = objective.loss, objective.decision, objective.classes
        return Learner(model, engine, self.optimizer.rule(np.zeros(1), grad, course.state), course, read)

    def _carried(self, model: MLP) -> Course:
        """What partial_fit and learn_one carry on for this model."""
        if self._course is None or self._course.model is not model:
            if isinstance(innermost(self.schedule), ReduceOnPlateau):
                raise ValueError(
                    "schedule: ReduceOnPlateau goes by the figures of epochs; partial_fit and learn_one have none."
                )
            self._forget()
            rates = Rates(self.schedule, self.optimizer.lr, self.epochs, 0)
            rates.at(0, 0, 1)  # a schedule that is wrong is found before anything is changed
            self._course = Course(model, self.optimizer.init(model.params), rates)
        return self._course

    def _forget(self) -> None:
        """End what was carried on."""
        self._online = self._learner = self._course = None

    def evaluate(
        self, model: MLP, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> dict[str, float]:
        """Mean loss over X and y, accuracy (classes, labels) or r2 (values), and the metrics of the trainer.

        With sample_weight (n,) all of them are weighted means.
        """
        data = self._set(model, X, y)
        if sample_weight is not None:
            data = self._weighed(data, sample_weight, None)
        return figures(model._network, data, self.threads)

    def evaluate_each(self, model: MLP, X: ArrayLike, y: ArrayLike) -> dict[str, NDArray[Any]]:
        """What evaluate gives, without the loss, for every output (n_outputs,): value, label, or class against rest."""
        data = self._set(model, X, y)
        objective = data.objective
        outputs = infer(model._network, data.rows, objective.activation, self.threads)
        return merit.each(objective.figures, objective, outputs)

    def gradients(self, model: MLP, X: ArrayLike, y: ArrayLike) -> tuple[float, list[NDArray[Any]], list[NDArray[Any]]]:
        """Mean loss over X and y with l1 and l2, and its gradient.

        One dweight (fan_in, fan_out) and dbias (fan_out,) per layer.
        """
        data, penalties = self._set(model, X, y), Regularization(self.regularization.l1, self.regularization.l2)
        loss, grad = gradient(model._network, data.rows.host(), data.objective, penalties)
        loss += penalties.penalty(model.weights)
        twin = MLP(model.sizes, list(model.activations), model.output, model.bias, "zeros", model.dtype)
        twin.params[:] = grad
        return loss, twin.weights, twin.biases

    def _set(self, model: MLP, X: ArrayLike, y: ArrayLike, name: str = "", classes: NDArray[Any] | None = None) -> Set:
        if not isinstance(model, MLP):
            raise TypeError(f"model: got {type(model).__name__}, expected an MLP.")
        rows = self._read(model, f"{name}X", X)
        objective = bind(self.loss, model, self._on_host(f"{name}y", y), len(rows), f"{name}y", classes)
        merit.suit(self.metrics, objective)
        return Set(rows, replace(objective, metrics=self.metrics))

    def _on_gpu(self, name: str, value: Any) -> bool:
        """Whether an array lies on a GPU; there it must be meant to."""
        if inputs.on_device(value) and self.device != "cuda":
            raise ValueError(f"{name}: got an array on a GPU with device='cpu'; use device='cuda', or pass NumPy's.")
        return inputs.on_device(value)

    def _read(self, model: MLP, name: str, X: Any) -> inputs.Rows:
        """Checked rows; those on a GPU stay there, and are not copied."""
        if not self._on_gpu(name, X):
            return model._read(name, X)
        from hotloop import cuda

        return cuda.read(model, name, X, self.stream)

    def _on_host(self, name: str, value: Any) -> Any:
        """What came on the host as it is, what lies on a GPU copied."""
        if not self._on_gpu(name, value):
            return value
        from hotloop import cuda

        return cuda.to_host(value, self.stream)

    @property
    def _direct(self) -> bool:
        """Whether a step moves the weights without a gradient buffer."""
        code = self.optimizer.constants().code
        return code in (updates.SGD, updates.PASSIVE_AGGRESSIVE) and self.regularization.direct

    def buffered(self, batch_size: int) -> bool:
        return not self._direct or batch_size > kernels.BLOCK

    def make_engine(self, model: MLP, data: Set, batch_size: int, steps: int, passes: int = 1) -> Engine:
        """The working memory for so many passes over this data, `steps` steps after the first."""
        changes_inputs = self.regularization.changes_inputs(len(model.sizes) - 1)
        plain_rates = getattr(self.schedule, "per", "epoch") == "epoch" and not self.callbacks
        lazy = self.optimizer.constants().code in RULES and self.regularization.direct and plain_rates
        lazy = lazy and not changes_inputs  # noise moves every weight
        make: Any = partial(Engine, passes=passes)
        if self.device == "cuda":
            from hotloop import cuda

            make = partial(cuda.Engine, stream=self.stream, tf32=self.tf32)
        engine: Engine = make(
            model._network,
            data.rows,
            data.objective,
            batch_size,
            self.threads,
            self._direct and self.batch_size == 1 and not changes_inputs,
            self.regularization,
            self.seed,
            lazy_from=steps if lazy else None,
        )
        return engine

    def _weighed(self, data: Set, sample_weight: ArrayLike | None, class_weight: ClassWeight | None) -> Set:
        if sample_weight is None and class_weight is None:
            return data
        weights = self._on_host("sample_weight", sample_weight)
        return Set(data.rows, weigh(data.objective, weights, class_weight))

    def _smoothed(self, data: Set) -> Set:
        """The data to train on, labels smoothed."""
        return Set(data.rows, data.objective.smoothed(self.label_smoothing)) if self.label_smoothing else data

    def _chunks(
        self, model: MLP, source: Any, sample_weight: ArrayLike | None, class_weight: ClassWeight | None
    ) -> Chunks[Set]:
        """A source of chunks, each to be checked when it comes."""
        if sample_weight is not None:
            raise ValueError("sample_weight: got weights beside chunks, expected them in chunks (X, y, sample_weight).")
        if class_weight == "balanced":
            raise ValueError("class_weight: got 'balanced' with chunks, whose classes nobody has counted; give a dict.")
        if self.validation_split:
            raise ValueError("validation_split: got a share of chunks, expected 0 and validation_data.")

        def read(i: int, chunk: Any) -> Set:
            if not isinstance(chunk, tuple | list) or len(chunk) not in (2, 3):
                raise ValueError(f"chunks[{i}]: expected (X, y) or (X, y, sample_weight), got {type(chunk).__name__}.")
            data = self._set(model, chunk[0], chunk[1], f"chunks[{i}] ")
            return self._smoothed(self._weighed(data, chunk[2] if len(chunk) == 3 else None, class_weight))

        return Chunks(source, self.epochs, read)

    def suits(self, model: MLP, data: Set) -> None:
        """Refuse what the optimiser or the regularisation cannot do with this model."""
        layers = len(model.sizes) - 1
        self.regularization.shares(layers)
        if isinstance(self.optimizer, AveragedSGD) and self.regularization.max_norm:
            raise ValueError("optimizer: AveragedSGD got max_norm beside it, but its mean is taken before that.")
        if isinstance(self.optimizer, PassiveAggressive):
            plain = self.regularization.direct and not self.regularization.changes_inputs(layers)
            one_slope = len(data.objective.labels) or model.sizes[-1] == 1
            if not (layers == 1 and self.batch_size == 1 and one_slope and plain):
                raise ValueError(
                    "optimizer: PassiveAggressive needs one layer, batch_size 1, one output or class labels, and no "
                    "penalties, clipping, input dropout or noise."
                )
            if data.objective.loss not in ("hinge", "mae") or data.objective.activation != activations.IDENTITY:
                raise ValueError(
                    f"optimizer: PassiveAggressive got loss {data.objective.loss!r}, expected hinge, or mae, of the "
                    "plain output."
                )

    def _data(self, model: MLP, data: Set, given: Any) -> tuple[Set, Set | None]:
        """Training and validation data."""
        validation = None
        if given is not None:
            if self.validation_split:
                raise ValueError("validation_data: got data beside validation_split, expected one of the two.")
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise ValueError("validation_data: expected a pair (X, y).")
            validation = self._set(model, given[0], given[1], "validation ", data.objective.classes)
        elif self.validation_split:
            data, validation = self._split(data)
        for owner, watcher in (("early_stopping", self.early_stopping), ("schedule", innermost(self.schedule))):
            if isinstance(watcher, EarlyStopping | ReduceOnPlateau):
                require(owner, watcher.monitor, columns(data, validation))
        return data, validation

    def _split(self, data: Set) -> tuple[Set, Set]:
        n = len(data.rows)
        held = max(1, round(n * self.validation_split))
        if held >= n:
            raise ValueError(f"validation_split: {self.validation_split} of {n} samples leaves none to train on.")
        order = np.empty(n, np.int64)
        permutation(self.seed, 2**32 - 1, order)  # a stream of its own, after the last possible epoch
        rows, rest = order[:held], np.sort(order[held:])
        validation = replace(data.objective.take(rows), weights=data.objective.weights[:0])  # all count the same
        return Set(data.rows.take(rest), data.objective.take(rest)), Set(data.rows.take(rows), validation)
