"""Figures of merit by name: how good predictions are, beside the loss.

accuracy, r2, mae and rmse are computed here; the others are scikit-learn's (extra `sklearn`). With two classes, f1,
precision and recall are those of the second class, with several the mean over the classes (macro); auc is the mean of
one class against the rest; labels that do not exclude one another, and several values, give the mean over outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop import check
from hotloop.kernels import activations
from hotloop.kernels import figures as kernel
from hotloop.objectives import Objective

Array = NDArray[Any]
Figure = Callable[..., float]  # (truth, prediction, sample_weight=None) -> figure


@dataclass(frozen=True)
class Metric:
    """What a figure is computed from, and by what."""

    of: str  # "classes", "scores", "probabilities" or "values"
    figure: str  # the name of scikit-learn's function, or "" for one of this file
    smaller: bool = False  # is better


METRICS = {
    "accuracy": Metric("classes", ""),
    "balanced_accuracy": Metric("classes", "balanced_accuracy_score"),
    "f1": Metric("classes", "f1_score"),
    "precision": Metric("classes", "precision_score"),
    "recall": Metric("classes", "recall_score"),
    "auc": Metric("scores", "roc_auc_score"),
    "log_loss": Metric("probabilities", "log_loss", smaller=True),
    "r2": Metric("values", ""),
    "mae": Metric("values", "", smaller=True),
    "rmse": Metric("values", "", smaller=True),
}


def checked(names: object) -> tuple[str, ...]:
    """Names of metrics, each once, whose library is there."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"metrics: got {names!r}, expected a sequence of names, such as ('f1', 'auc').")
    for name in names:
        if METRICS[check.choice("metrics", name, METRICS)].figure and find_spec("sklearn") is None:
            raise ImportError(f"metrics: {name!r} is computed by scikit-learn: pip install 'hotloop[sklearn]'")
    return tuple(dict.fromkeys(names))


def suit(names: Sequence[str], objective: Objective) -> None:
    """Refuse metrics that make no sense for what is trained."""
    for name in names:
        reason = _unsuited(METRICS[name].of, name, objective)
        if reason:
            raise ValueError(f"metrics: {name!r} makes no sense with loss {objective.loss!r} here: {reason}.")


def _unsuited(of: str, name: str, objective: Objective) -> str:
    values = objective.decision in ("value", "exp")
    if of == "values":
        return "" if values else "the model tells classes, not values"
    if values:
        return "the model gives values, not classes"
    if of == "probabilities" and not _probable(objective):
        return "its outputs are no probabilities; use loss 'cross_entropy' or 'logistic'"
    if name == "balanced_accuracy" and _labels(objective):
        return "it is not defined for labels that do not exclude one another"
    return ""


def _probable(objective: Objective) -> bool:
    """Whether outputs are probabilities, or logits of them."""
    shares = (activations.CODES["softmax"], activations.CODES["sigmoid"])
    return objective.loss in ("cross_entropy", "logistic") or objective.activation in shares


def _labels(objective: Objective) -> bool:
    """Whether several outputs are labels that do not exclude one another."""
    return objective.targets.shape[1] > 1 and objective.decision in ("threshold", "sign")


def figures(names: Sequence[str], objective: Objective, outputs: Array) -> dict[str, float]:
    """The metrics of outputs (n, k), by the activation of the objective, against its targets, with its weights."""
    truth, predicted, scores = _seen(objective, outputs)
    weights = objective.weights if len(objective.weights) else None
    found = {}
    for name in names:
        given = predicted if METRICS[name].of in ("classes", "values") else scores
        if name == "log_loss":
            given = _probabilities(objective, outputs)
        found[name] = _figure(name, objective, truth, given, weights)
    return found


def each(names: Sequence[str], objective: Objective, outputs: Array) -> dict[str, Array]:
    """The same for every output (k,): a value, a label, or one class against the rest."""
    truth, predicted, scores = _seen(objective, outputs)
    if objective.decision == "argmax":
        k = np.arange(outputs.shape[1])
        truth, predicted = (truth[:, None] == k) * 1, (predicted[:, None] == k) * 1
    weights = objective.weights if len(objective.weights) else None
    found = {}
    for name in names:
        given = predicted if METRICS[name].of in ("classes", "values") else scores
        if name == "log_loss":
            given = _probabilities(objective, outputs)
        columns = zip(*(part.reshape(len(outputs), -1).T for part in (truth, given)), strict=True)
        found[name] = np.array([_one(name, actual, guess, weights) for actual, guess in columns])
    return found


def _seen(objective: Objective, outputs: Array) -> tuple[Array, Array, Array]:
    """Truth, predictions and scores: class numbers (n,), 0 and 1, or values (n, k); one output gives (n,)."""
    targets = objective.targets
    truth: Array
    predicted: Array
    if objective.decision in ("value", "exp"):
        given = np.exp(outputs) if objective.decision == "exp" else outputs
        truth, predicted = targets.astype(np.float64), given.astype(np.float64)
    elif objective.decision == "argmax":
        labels = objective.labels if len(objective.labels) else targets.argmax(axis=1)
        return labels, outputs.argmax(axis=1), outputs
    else:
        middle, least = bounds(objective)
        truth = (targets > least) * 1
        predicted = (outputs > middle) * 1
    if outputs.shape[1] == 1:
        return truth[:, 0], predicted[:, 0], outputs[:, 0]
    return truth, predicted, outputs


def bounds(objective: Objective) -> tuple[float, float]:
    """The outputs, and the targets, above which a label is the second of two."""
    middle = 0.5 if objective.activation == activations.SIGMOID else 0.0
    return middle, 0.0 if objective.decision == "sign" else 0.5


def _probabilities(objective: Objective, outputs: Array) -> Array:
    """Of each class (n, k), of each label (n, k), or of the second of two classes (n,)."""
    wide = outputs.astype(np.float64)
    if objective.activation == activations.IDENTITY and objective.decision == "argmax":
        wide = np.exp(wide - wide.max(axis=1, keepdims=True))
        wide /= wide.sum(axis=1, keepdims=True)
    elif objective.activation == activations.IDENTITY:
        wide = 0.5 * (1 + np.tanh(0.5 * wide))
    return wide[:, 0] if wide.shape[1] == 1 else wide


def _figure(name: str, objective: Objective, truth: Array, given: Array, weights: Array | None) -> float:
    """A figure over all outputs."""
    several = objective.decision == "argmax" and objective.targets.shape[1] > 2
    if name == "accuracy" and weights is None:
        return float(np.count_nonzero(truth == given) / truth.size)
    if name == "r2" and weights is None:
        return float(kernel.r2(given.reshape(len(given), -1), truth.reshape(len(truth), -1)))
    if name == "accuracy":
        return float(np.average((truth == given).reshape(len(truth), -1).mean(axis=1), weights=weights))
    if name == "balanced_accuracy":
        return _sklearn(name, truth, given, weights)
    if name in ("f1", "precision", "recall") and several:
        labels = np.arange(objective.targets.shape[1])
        return _sklearn(name, truth, given, weights, average="macro", labels=labels, zero_division=0.0)
    if name == "log_loss" and objective.decision == "argmax":
        return _sklearn(name, truth, given, weights, labels=np.arange(given.shape[1]))
    if name == "auc" and objective.decision == "argmax":
        if not several:
            return _one(name, truth, given[:, 1] - given[:, 0], weights)
        shown = given if objective.activation != activations.IDENTITY else _probabilities(objective, given)
        columns = [_one(name, truth == j, shown[:, j], weights) for j in range(given.shape[1])]
        known = [column for column in columns if not math.isnan(column)]
        return sum(known) / len(known) if known else math.nan
    if given.ndim == 1:
        return _one(name, truth, given, weights)
    return float(np.mean([_one(name, truth[:, j], given[:, j], weights) for j in range(given.shape[1])]))


def _one(name: str, truth: Array, given: Array, weights: Array | None) -> float:
    """A figure of one output (n,)."""
    if name in OWN:
        return OWN[name](truth, given, weights)
    if name == "auc":
        return _sklearn(name, truth, given, weights) if 0 < np.count_nonzero(truth) < len(truth) else math.nan
    if name == "log_loss":
        return _sklearn(name, truth, given, weights, labels=[0, 1])
    return _sklearn(name, truth, given, weights, zero_division=0.0)


def _sklearn(name: str, truth: Array, given: Array, weights: Array | None, **options: Any) -> float:
    from sklearn import metrics

    return float(getattr(metrics, METRICS[name].figure)(truth, given, sample_weight=weights, **options))


def accuracy(truth: Array, given: Array, weights: Array | None = None) -> float:
    """Share of right predictions."""
    return float(np.average(truth == given, weights=weights))


def r2(truth: Array, given: Array, weights: Array | None = None) -> float:
    """1 - sum (y - yhat)^2 / sum (y - mean y)^2; 0 where all y are equal."""
    weights = np.ones(len(truth)) if weights is None else weights
    spread = float((weights * (truth - np.average(truth, weights=weights)) ** 2).sum())
    return 1.0 - float((weights * (truth - given) ** 2).sum()) / spread if spread > 0 else 0.0


def mae(truth: Array, given: Array, weights: Array | None = None) -> float:
    """Mean of |y - yhat|."""
    return float(np.average(np.abs(truth - given), weights=weights))


def rmse(truth: Array, given: Array, weights: Array | None = None) -> float:
    """Root of the mean of (y - yhat)^2."""
    return math.sqrt(float(np.average((truth - given) ** 2, weights=weights)))


OWN: dict[str, Figure] = {"accuracy": accuracy, "r2": r2, "mae": mae, "rmse": rmse}
