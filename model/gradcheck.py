"""Whether slopes are what they claim to be: derivatives against central differences, in float64."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hotloop import check
from hotloop.custom import Activation, Loss
from hotloop.engine import infer
from hotloop.kernels import inference, losses
from hotloop.mlp import MLP
from hotloop.trainer import Trainer

STEPS = (6e-6, 6e-7)  # of the differences; the shorter one crosses fewer kinks, and rounds more
KINK = 1e-3  # of the size of slopes: slopes on both sides that differ by more do not meet
SMALL = 1e-2  # of the largest slope: smaller ones are compared as if they had this size
ROUNDING = 1e-4  # of the value itself: slopes smaller than this drown in its rounding


class _Place(NamedTuple):
    """One derivative: its name for people, what it claims to be, and the function of the step it belongs to."""

    name: str
    slope: float
    value: Callable[[float], float]


def check_gradients(
    subject: Activation | Loss | MLP,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    trainer: Trainer | None = None,
    tolerance: float = 1e-6,
) -> float:
    """Compare derivatives with central differences, (f(p + h) - f(p - h)) / 2h in float64; the largest relative error.

    An Activation is tried at every z of X, by default from -8 to 8; a Loss on predictions X (n, k) and targets or
    labels y, by default random ones; a model with every weight and bias, by the loss and the penalties of the trainer
    on X (n, n_features) and y. The model is left as it is.

    Errors are relative to the larger of the two, and at least to a hundredth of the largest. At a kink, as of a ReLU or
    a hinge, any slope between those of both sides is right. Places where the value is not finite are left out.

    Raises ValueError above the tolerance, naming the place and both numbers, and where nothing can be compared.
    """
    check.number("tolerance", tolerance, 0.0, open_below=True)
    if isinstance(subject, Activation):
        places = _of_activation(subject, X)
    elif isinstance(subject, Loss):
        places = _of_loss(subject, X, y)
    elif isinstance(subject, MLP):
        if X is None or y is None:
            raise TypeError("X: a model is checked on data, expected X and y.")
        places = _of_model(subject, X, y, trainer or Trainer())
    else:
        raise TypeError(f"subject: got {type(subject).__name__}, expected an Activation, a Loss or an MLP.")
    found = list(places)
    largest = max((abs(place.slope) for place in found if np.isfinite(place.slope)), default=0.0)
    errors = [error for place in found if (error := _error(place, largest, tolerance)) is not None]
    if not errors:
        raise ValueError(f"{subject!r}: got no finite value at any place, expected some to compare.")
    return max(errors)


def _error(place: _Place, largest: float, tolerance: float) -> float | None:
    """The relative error of one slope; None where the function has no finite value."""
    middle, best, central = place.value(0.0), np.inf, np.nan
    if not np.isfinite(middle):
        return None
    for step in STEPS:
        above, below = place.value(step), place.value(-step)
        if not (np.isfinite(above) and np.isfinite(below)):
            return None
        central = (above - below) / (2 * step)
        left, right = sorted(((middle - below) / step, (above - middle) / step))
        size = max(abs(place.slope), abs(central), SMALL * largest, ROUNDING * abs(middle))
        off = abs(place.slope - central)
        if right - left > KINK * size:
            off = max(left - place.slope, place.slope - right, 0.0)
        error = 0.0 if off == 0.0 else off / size
        best = min(best, error)
        if best <= tolerance:
            return best
    raise ValueError(
        f"{place.name}: the derivative given is {place.slope:.9g}, central differences say {central:.9g}; "
        f"relative error {best:.2g}, expected at most {tolerance:g}."
    )


def _of_activation(activation: Activation, X: ArrayLike | None) -> Iterator[_Place]:
    grid = np.linspace(-8.0, 8.0, 161) if X is None else check.numeric("X", X).reshape(-1)
    activation.code(np.float64)  # says what cannot be compiled
    for z in grid.astype(np.float64).tolist():

        def value(step: float, z: float = z) -> float:
            return float(activation.value(z + step))

        yield _Place(f"{activation!r} at z = {z:g}", float(activation.slope(z)), value)


def _of_loss(loss: Loss, X: ArrayLike | None, y: ArrayLike | None) -> Iterator[_Place]:
    code = loss.code(np.float64)
    if (X is None) != (y is None):
        raise TypeError("X: a loss is checked on predictions X and targets y, got only one of them.")
    given, truths = _some(loss.classes) if X is None or y is None else (check.numeric("X", X), np.asarray(y))
    predictions = check.for_kernels(np.atleast_2d(given), np.float64)
    targets: NDArray[Any] = np.empty(predictions.shape)
    labels: NDArray[Any] = np.empty(0, np.int32)
    if loss.classes:
        labels = check.for_kernels(truths, np.int32)
    else:
        targets = check.for_kernels(truths, np.float64).reshape(predictions.shape)
    delta, none = np.empty(predictions.shape[1]), np.empty(0)
    for row, prediction in enumerate(predictions):
        target, label = targets[row : row + 1], labels[row : row + 1]
        delta[:] = np.nan  # a derivative that a row function forgets to write must not pass for one
        inference.total_loss(code, prediction[None], target, label, none, delta)
        slopes = delta.tolist()
        for j, slope in enumerate(slopes):

            def value(
                step: float,
                prediction: NDArray[Any] = prediction,
                target: NDArray[Any] = target,
                label: NDArray[Any] = label,
                j: int = j,
            ) -> float:
                moved = prediction[None].copy()
                moved[0, j] += step
                return float(inference.total_loss(code, moved, target, label, none, delta))

            of = int(labels[row]) if loss.classes else targets[row].tolist()
            yield _Place(f"{loss!r}, delta[{j}] for prediction {prediction.tolist()} and truth {of}", slope, value)


def _some(classes: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Predictions and truths of many kinds: any numbers, probabilities, counts, labels of two classes."""
    rng, shape = np.random.default_rng(0), (16, 4)
    predictions = np.vstack([rng.normal(size=shape) * 2, rng.uniform(0.05, 0.95, shape), rng.uniform(0.1, 5, shape)])
    if classes:
        return predictions, rng.integers(0, shape[1], len(predictions))
    kinds = [rng.normal(size=shape), rng.uniform(size=shape), rng.integers(0, 2, shape), rng.choice([-1, 1], shape)]
    truths = np.stack(kinds, axis=1).reshape(-1, shape[1])
    return np.repeat(predictions, 4, axis=0)[: 3 * len(truths)], np.tile(truths, (3, 1))


def _of_model(model: MLP, X: ArrayLike, y: ArrayLike, trainer: Trainer) -> Iterator[_Place]:
    twin = MLP(model.sizes, list(model.activations), model.output, model.bias, "zeros", np.float64)
    twin.params[:] = model.params
    twin.prepare, twin.classes = model.prepare, model.classes
    data = trainer._set(twin, X, y)
    _, dweights, dbiases = trainer.gradients(twin, X, y)
    objective, regularization = data.objective, trainer.regularization
    code, delta, none = losses.ready(objective.code, twin.dtype), np.empty(twin.sizes[-1]), np.empty(0)

    def loss() -> float:
        outputs = infer(twin._network, data.rows, objective.activation, 1)
        total = inference.total_loss(code, outputs, objective.targets, objective.labels, none, delta)
        return float(total) / len(outputs) + regularization.penalty(twin.weights)

    kinds = [("weights", twin.weights, dweights), ("biases", twin.biases, dbiases if model.bias else [])]
    for name, views, slopes in kinds:
        for layer, slope in enumerate(slopes):
            for at in np.ndindex(slope.shape):

                def value(step: float, view: NDArray[Any] = views[layer], at: tuple[int, ...] = at) -> float:
                    here = view[at]
                    view[at] = here + step
                    found = loss()
                    view[at] = here
                    return found

                yield _Place(f"{name}[{layer}][{', '.join(map(str, at))}]", float(slope[at]), value)
