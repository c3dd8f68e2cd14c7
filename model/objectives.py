"""What training minimises: a loss bound to a model's output, and how y is read for it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import check
from hotloop import classes as class_values
from hotloop.custom import Activation, Loss, activation_code
from hotloop.kernels import activations, losses

if TYPE_CHECKING:
    from hotloop.mlp import MLP

# The outputs each loss goes with. A loss of logits takes z itself: its own output only names how predictions are made.
OUTPUTS: dict[str, tuple[str, ...]] = {
    "mse": tuple(name for name in activations.CODES if name != "step"),
    "mae": tuple(name for name in activations.CODES if name != "step"),
    "huber": tuple(name for name in activations.CODES if name != "step"),
    "hinge": ("identity", "tanh", "step"),
    "squared_hinge": ("identity", "tanh", "step"),
    "logistic": ("identity", "sigmoid", "step"),
    "cross_entropy": ("identity", "softmax"),
    "poisson": ("identity", "softplus"),
    "perceptron": ("identity", "step"),
}
LOGITS = ("hinge", "squared_hinge", "logistic", "cross_entropy", "perceptron")
# The target values of a loss: what was expected, and where it is so.
ALLOWED: dict[str, tuple[str, Callable[[NDArray[Any]], NDArray[np.bool_]]]] = {
    "hinge": ("labels -1 and +1", lambda t: np.abs(t) == 1),
    "squared_hinge": ("labels -1 and +1", lambda t: np.abs(t) == 1),
    "perceptron": ("labels 0 and 1", lambda t: (t == 0) | (t == 1)),
    "logistic": ("labels 0 and 1, or probabilities", lambda t: (t >= 0) & (t <= 1)),
    "cross_entropy": ("probabilities, 0 to 1", lambda t: (t >= 0) & (t <= 1)),
    "poisson": ("counts, 0 or more", lambda t: t >= 0),
}
BLOCK = 1 << 20  # elements that are checked at a time
CUSTOM = "custom"  # the name of a loss of the user's own
DEFAULT = {"softmax": "cross_entropy", "sigmoid": "logistic", "step": "perceptron"}


@dataclass(frozen=True)
class Objective:
    """A loss as the kernels take it, for one model and one y."""

    loss: str
    code: int  # of kernels.losses
    activation: int  # of the last layer while training: identity where the loss takes logits
    decision: str  # how a prediction is made of the outputs: see MLP.decision
    targets: NDArray[Any]  # (n, k), or (0, k) where the loss takes classes
    labels: NDArray[np.int32]  # (n,), or (0,)
    weights: NDArray[Any]  # (n,) what each sample's loss is multiplied by, or (0,) where all count the same
    classes: NDArray[Any] | None = None  # the values that stand for the class numbers, if any
    metrics: tuple[str, ...] = ()  # asked for, beside the one below

    def __len__(self) -> int:
        return max(len(self.targets), len(self.labels))

    @property
    def metric(self) -> str:
        """The name of the figure beside the loss."""
        return "r2" if self.decision in ("value", "exp") else "accuracy"

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of all figures beside the loss."""
        return tuple(dict.fromkeys((self.metric, *self.metrics)))

    def prior(self) -> NDArray[Any]:
        """The z of every output at which it predicts the average of y; see MLP.set_prior."""
        n = len(self)
        if len(self.labels):
            sums = np.bincount(self.labels, minlength=self.targets.shape[1]).astype(np.float64)
        else:
            sums = self.targets.sum(axis=0, dtype=np.float64)
        mean = sums / n
        some = np.clip(sums, 0.5, n - 0.5) / n if n > 1 else mean
        if self.loss == "cross_entropy":
            prior = np.log(some)
        elif self.loss == "logistic":
            prior = np.log(some / (1 - some))
        elif self.loss == "poisson" and self.decision == "exp":
            prior = np.log(np.maximum(sums, 0.5) / n)
        elif self.loss == "mse" and self.activation == activations.IDENTITY:
            prior = mean
        else:
            raise ValueError(
                f"loss: {self.loss!r} with this output has no prior to set; expected logits or plain values."
            )
        return np.asarray(prior)

    def constant_loss(self) -> float:
        """About the loss of a model whose outputs are all zero: the measure of what an explosion is."""
        if self.loss == "mse":
            with np.errstate(over="ignore"):
                squares = sum(float(np.square(part, dtype=np.float64).sum()) for _, part in _blocks(self.targets))
            return squares / self.targets.size
        if self.loss in ("mae", "huber"):
            sizes = sum(float(np.abs(part).sum(dtype=np.float64)) for _, part in _blocks(self.targets))
            return sizes / self.targets.size
        return 1.0 + math.log(self.targets.shape[1])

    def take(self, rows: NDArray[np.int64]) -> "Objective":
        """The same objective for some of the samples."""
        targets, labels, weights = (
            part[rows] if len(part) else part for part in (self.targets, self.labels, self.weights)
        )
        return replace(self, targets=targets, labels=labels, weights=weights)

    def weighted(self, weights: NDArray[Any]) -> "Objective":
        """The same objective with a weight for each sample."""
        return replace(self, weights=check.for_kernels(weights, self.targets.dtype))

    def smoothed(self, share: float) -> "Objective":
        """Labels with this share of them spread evenly over all classes (Szegedy et al. 2016, section 7)."""
        if self.loss not in ("cross_entropy", "logistic"):
            raise ValueError(
                f"label_smoothing: got {share} with loss {self.loss!r}, expected cross_entropy or logistic."
            )
        k = self.targets.shape[1]
        rows = np.eye(k, dtype=self.targets.dtype)[self.labels] if len(self.labels) else self.targets
        rows = rows * (1 - share) + share / (k if self.loss == "cross_entropy" else 2)
        code, targets = losses.CODES[self.loss], check.for_kernels(rows, self.targets.dtype)
        return replace(self, code=code, targets=targets, labels=self.labels[:0])


def resolve(loss: str | None, output: str | Activation) -> str:
    """The loss to train an output with: the named one, or the output's own."""
    if loss is None:
        return "mse" if isinstance(output, Activation) else DEFAULT.get(output, "mse")
    if output not in OUTPUTS[loss] and not (isinstance(output, Activation) and loss in ("mse", "mae", "huber")):
        fitting = ", ".join(OUTPUTS[loss])
        reason = " (a step has no slope to follow)" if output == "step" else ""
        raise ValueError(
            f"loss: {loss!r} makes no sense with output {output!r}{reason}; it goes with output {fitting}."
        )
    return loss


def bind(
    loss: str | Loss | None,
    model: "MLP",
    y: ArrayLike,
    n: int | None,
    name: str = "y",
    classes: NDArray[Any] | None = None,
) -> Objective:
    """Check y for this loss and model, and bring it into the form of the kernels.

    n rows are expected, None: any number. classes are the values that stand for class numbers in y; None: the model's.
    """
    k = model.sizes[-1]
    classes = model.classes if classes is None else classes
    given = _numbers(name, y) if classes is None else _numbered(name, y, classes, loss, model)
    if given.ndim == 0 or (n is not None and given.shape[0] != n):
        raise ValueError(f"{name}: got shape {given.shape}, expected {_rows(n)}.")
    if isinstance(loss, Loss):
        return replace(_bind_custom(loss, model, given, name), classes=classes)
    loss = resolve(loss, model.output)
    if loss == "cross_entropy" and k == 1:
        raise ValueError("loss: cross_entropy needs two or more outputs; for one output use output 'sigmoid'.")
    by_class = loss in losses.CLASS_CODES and k > 1 and (given.ndim == 1 or given.shape[1:] == (1,))
    code = losses.CLASS_CODES[loss] if by_class else losses.CODES[loss]
    if code == losses.POISSON and model.output == "softplus":
        code = losses.POISSON_RATE
    if loss in LOGITS and not (loss in ("hinge", "squared_hinge") and model.output == "tanh"):
        activation = activations.IDENTITY
    else:
        activation = activation_code(model.output, model.dtype)
    if by_class:
        labels, targets = _labels(name, given, k), np.empty((0, k), model.dtype)
    else:
        labels, targets = np.empty(0, np.int32), _targets(name, given, loss, model)
    decision, none = _decision(loss, model.output, by_class), targets.reshape(-1)[:0]
    return Objective(loss, code, activation, decision, targets, labels, none, classes)


def learn_classes(loss: str | Loss | None, model: "MLP", y: ArrayLike) -> NDArray[Any] | None:
    """The values that stand for class numbers in y: the model's own, else those of y if it holds text."""
    if model.classes is not None or not class_values.text(y):
        return model.classes
    if _class_decision(loss, model) is None:
        return None  # values are learned, not classes: bind will say that it wants numbers
    return class_values.learn("y", y, max(2, model.sizes[-1]))


def _class_decision(loss: str | Loss | None, model: "MLP") -> str | None:
    """How this loss and model choose one of several classes; None: they do not."""
    if isinstance(loss, Loss):
        return "argmax" if loss.classes else None
    loss = resolve(loss, model.output)
    decision = _decision(loss, model.output, loss in losses.CLASS_CODES and model.sizes[-1] > 1)
    one = model.sizes[-1] == 1 and decision in ("threshold", "sign")
    return decision if one or decision == "argmax" else None


def _numbers(name: str, y: ArrayLike) -> NDArray[Any]:
    try:
        return check.numeric(name, y)
    except TypeError as error:
        hint = " Text stands for classes once model.classes is set, or fit has set it." if class_values.text(y) else ""
        raise TypeError(f"{error}{hint}") from None


def _numbered(name: str, y: ArrayLike, classes: NDArray[Any], loss: str | Loss | None, model: "MLP") -> NDArray[Any]:
    """y as the loss takes it, from values of classes; shares of the classes (n, k) are left as they are."""
    k, decision = model.sizes[-1], _class_decision(loss, model)
    if decision is None:
        raise ValueError(
            f"classes: loss {loss!r} with {k} outputs of {model.output!r} tells no classes apart; "
            "expected model.classes = None."
        )
    if np.ndim(y) == 2 and k > 1 and np.shape(y)[1] == k and not class_values.text(y):
        return check.numeric(name, y)
    codes = class_values.encode(name, y, classes)
    if decision == "sign":
        return 2 * codes - 1
    by_number = decision == "threshold" or isinstance(loss, Loss) or resolve(loss, model.output) in losses.CLASS_CODES
    return codes if by_number else np.eye(k)[codes]


def _rows(n: int | None) -> str:
    return "rows" if n is None else f"{n} rows, as many as X"


def _bind_custom(loss: Loss, model: "MLP", given: NDArray[Any], name: str) -> Objective:
    """The same for a loss of the user's own."""
    if model.output == "step":
        raise ValueError(f"loss: {loss!r} makes no sense with output 'step' (a step has no slope to follow).")
    activation, k = activation_code(model.output, model.dtype), model.sizes[-1]
    decision = _decision(CUSTOM, model.output, loss.classes)
    labels, targets = np.empty(0, np.int32), np.empty((0, k), model.dtype)
    if loss.classes:
        labels = _labels(name, given, k)
    else:
        targets = _targets(name, given, CUSTOM, model)
    return Objective(CUSTOM, loss.code(model.dtype), activation, decision, targets, labels, np.empty(0, model.dtype))


def _decision(loss: str, output: str | Activation, by_class: bool) -> str:
    if by_class or loss == "cross_entropy" or output == "softmax":
        return "argmax"
    if loss in ("hinge", "squared_hinge"):
        return "sign"
    if loss in ("logistic", "perceptron") or output == "sigmoid":
        return "threshold"
    return "exp" if loss == "poisson" and output == "identity" else "value"


def _blocks(rows: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Some of the rows at a time, with the number of the first: what is made of them on the way stays small."""
    some = max(1, BLOCK // max(1, rows[:1].size))
    for start in range(0, len(rows), some):
        yield start, rows[start : start + some]


def _labels(name: str, given: NDArray[Any], k: int) -> NDArray[np.int32]:
    """Class numbers 0 .. k-1, int32."""
    flat = given.reshape(-1)
    for start, part in _blocks(flat):
        whole = part == np.floor(part) if part.dtype.kind == "f" else True  # NaN and infinity are no classes either
        wrong = ~((part >= 0) & (part < k) & whole)
        if wrong.any():
            at = start + int(np.argmax(wrong))
            raise ValueError(
                f"{name}: got {flat[at]} at [{at}], expected class labels 0 to {k - 1}, one for each output."
            )
    return check.for_kernels(flat.astype(np.int32), np.int32)


def _targets(name: str, given: NDArray[Any], loss: str, model: "MLP") -> NDArray[Any]:
    """Target rows (n, k) in the model's dtype, with the values the loss allows."""
    k = model.sizes[-1]
    if given.shape != (given.shape[0], k) and not (k == 1 and given.ndim == 1):
        shape = "(n,) or (n, 1)" if k == 1 else f"(n, {k})"
        hint = f" For class labels pass numpy.eye({k})[{name}]." if given.ndim == 1 and given.dtype.kind in "iu" else ""
        raise ValueError(f"{name}: got shape {given.shape}, expected {shape} for loss {loss}.{hint}")
    rows = given.reshape(-1, k)
    targets = check.for_kernels(rows, model.dtype)
    check.finite(name, targets, rows)
    for start, part in _blocks(targets):
        _refuse_values(name, part, start, loss)
    return targets


def _refuse_values(name: str, targets: NDArray[Any], first: int, loss: str) -> None:
    """Refuse target rows, of which `first` is the number of the first, with values that this loss does not allow."""
    if loss in ALLOWED:
        expected, allows = ALLOWED[loss]
        wrong = ~allows(targets)
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"{name}: got {targets[row, column]:g} in row {first + row}, expected {expected} for loss {loss}."
            )
    if loss == "cross_entropy" and (off := np.abs(targets.sum(axis=1, dtype=np.float64) - 1) > 1e-3).any():
        at = int(np.argmax(off))
        raise ValueError(
            f"{name}: row {first + at} sums to {targets[at].sum():g}, expected probabilities that sum to 1."
        )
