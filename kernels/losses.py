"""Losses, value and delta in one pass.

Each function takes one row: prediction[k], target[k] (or one integer class), and writes
delta[j] = dvalue / dprediction[j] in place. It returns the value in the type of the prediction. Averages over several
outputs divide by k, as PyTorch's "mean" does. delta may be prediction. Rows are vectors or pointers.
"""

from functools import cache
from typing import Any

import numpy as np
from numba.np.numpy_support import from_dtype
from numpy.typing import DTypeLike

from hotloop.kernels import activations, custom, scalar
from hotloop.kernels.jit import address, apart, inner, jit
from hotloop.kernels.simd import LANES, cast, make_buffer

(
    MSE,
    MAE,
    HUBER,
    HINGE,
    SQUARED_HINGE,
    LOGISTIC,
    CROSS_ENTROPY,
    POISSON,
    POISSON_RATE,
    PERCEPTRON,
    CROSS_ENTROPY_CLASS,
    HINGE_CLASS,
    SQUARED_HINGE_CLASS,
    PERCEPTRON_CLASS,
) = range(14)

CODES: dict[str, int] = {
    "mse": MSE,
    "mae": MAE,
    "huber": HUBER,
    "hinge": HINGE,
    "squared_hinge": SQUARED_HINGE,
    "logistic": LOGISTIC,
    "cross_entropy": CROSS_ENTROPY,
    "poisson": POISSON,
    "perceptron": PERCEPTRON,
}

# The code that takes one integer class for a row instead of a target row.
CLASS_CODES: dict[str, int] = {
    "cross_entropy": CROSS_ENTROPY_CLASS,
    "hinge": HINGE_CLASS,
    "squared_hinge": SQUARED_HINGE_CLASS,
    "perceptron": PERCEPTRON_CLASS,
}

_line = make_buffer(LANES)


@jit
def mse(prediction, target, k, delta):
    """(1/k) sum_j (p_j - t_j)^2, delta 2 (p - t) / k."""
    value, share = cast(0.0, prediction[0]), cast(1.0, prediction[0]) / cast(k, prediction[0])
    for j in range(k):
        error = prediction[j] - target[j]
        value += error * error
        delta[j] = share * (error + error)
    return value * share


@jit
def mae(prediction, target, k, delta):
    """(1/k) sum_j |p_j - t_j|, delta sign(p - t) / k, 0 where they are equal."""
    zero, share = cast(0.0, prediction[0]), cast(1.0, prediction[0]) / cast(k, prediction[0])
    value = zero
    for j in range(k):
        error = prediction[j] - target[j]
        value += abs(error)
        delta[j] = share if error > zero else (-share if error < zero else error)
    return value * share


@jit
def huber(prediction, target, k, delta):
    """(1/k) sum_j of e^2/2 where |e| <= 1, else |e| - 1/2, e = p - t; delta clip(e, -1, 1) / k (Huber 1964)."""
    one, half = cast(1.0, prediction[0]), cast(0.5, prediction[0])
    value, share = cast(0.0, prediction[0]), one / cast(k, prediction[0])
    for j in range(k):
        error = prediction[j] - target[j]
        size = abs(error)
        value += size - half if size > one else half * error * error
        delta[j] = share * (one if error > one else (-one if error < -one else error))
    return value * share


@jit
def hinge(prediction, target, k, delta):
    """(1/k) sum_j max(0, 1 - t_j p_j), t = -1 or +1; delta -t / k inside the margin, 0 at its edge and beyond."""
    zero, one = cast(0.0, prediction[0]), cast(1.0, prediction[0])
    value, share = zero, one / cast(k, prediction[0])
    for j in range(k):
        sign = cast(target[j], zero)
        slack = one - sign * prediction[j]
        value += zero if slack <= zero else slack
        delta[j] = zero if slack <= zero else -sign * share
    return value * share


@jit
def squared_hinge(prediction, target, k, delta):
    """(1/k) sum_j max(0, 1 - t_j p_j)^2, t = -1 or +1; delta -2 t slack / k."""
    zero, one = cast(0.0, prediction[0]), cast(1.0, prediction[0])
    value, share = zero, one / cast(k, prediction[0])
    for j in range(k):
        sign = cast(target[j], zero)
        slack = one - sign * prediction[j]
        slack = zero if slack <= zero else slack
        value += slack * slack
        delta[j] = -sign * share * (slack + slack)
    return value * share


@inner
def _logistic_output(z, t, share):
    """The term and the delta of one logit."""
    # For z > 0, softplus(z) - t z = (1 - t) z + log(1 + exp(-z)): no difference of large numbers.
    magnitude = (cast(1.0, z) - t) * z if z > cast(0.0, z) else -t * z
    return magnitude + scalar.softplus(-abs(z)), share * (scalar.sigmoid(z) - t)


@jit
def logistic(prediction, target, k, delta):
    """(1/k) sum_j log(1 + exp(z_j)) - t_j z_j from logits z, t in [0, 1]; delta (sigmoid(z) - t) / k."""
    value, share = cast(0.0, prediction[0]), cast(1.0, prediction[0]) / cast(k, prediction[0])
    for j in range(k):
        term, delta[j] = _logistic_output(prediction[j], cast(target[j], value), share)
        value += term
    return value * share


@inner
def _logistic_lines(prediction, target, k, delta):
    """logistic in whole lines, with no sum between, so that it vectorises: 10 logits 0.08 us, not 0.15."""
    zero, share = cast(0.0, prediction[0]), cast(1.0, prediction[0]) / cast(k, prediction[0])
    if k < LANES // 2:
        return logistic(prediction, target, k, delta)
    value, logits, targets, terms, slopes = zero, _line(zero), _line(zero), _line(zero), _line(zero)
    for first in range(0, k, LANES):
        some = min(LANES, k - first)
        for j in range(LANES):
            logits[j], targets[j] = zero, zero
        for j in range(some):
            logits[j], targets[j] = prediction[first + j], cast(target[first + j], zero)
        for j in range(LANES):
            terms[j], slopes[j] = _logistic_output(logits[j], targets[j], share)
        for j in range(some):
            value += terms[j]
            delta[first + j] = slopes[j]
    return value * share


@jit
def cross_entropy(prediction, target, k, delta):
    """-sum_j t_j log softmax(z)_j from logits z, t the probabilities; delta softmax(z) sum(t) - t."""
    zero = cast(0.0, prediction[0])
    largest = prediction[0]
    for j in range(k):
        largest = max(largest, prediction[j])
    mass, dot = zero, zero
    for j in range(k):
        t = cast(target[j], zero)
        mass += t
        dot += t * (prediction[j] - largest)
    total = activations.softmax(prediction, k, delta)[1]
    for j in range(k):
        delta[j] = mass * delta[j] - cast(target[j], zero)
    return mass * scalar.log(total) - dot


@jit
def cross_entropy_class(prediction, label, k, delta):
    """-log softmax(z)_label from logits z; delta softmax(z) - onehot(label)."""
    chosen = prediction[label]
    largest, total = activations.softmax(prediction, k, delta)
    delta[label] -= cast(1.0, chosen)
    return scalar.log(total) - (chosen - largest)


@jit
def poisson(prediction, target, k, delta):
    """(1/k) sum_j exp(z_j) - t_j z_j, z the logarithm of the rate; delta (exp(z) - t) / k."""
    value, share = cast(0.0, prediction[0]), cast(1.0, prediction[0]) / cast(k, prediction[0])
    for j in range(k):
        z, t = prediction[j], cast(target[j], value)
        rate = scalar.exp(z)
        value += rate - t * z
        delta[j] = share * (rate - t)
    return value * share


@jit
def poisson_rate(prediction, target, k, delta):
    """(1/k) sum_j p_j - t_j log p_j, p > 0 the rate; delta (1 - t / p) / k. A p under 1.2e-38 counts as that."""
    one = cast(1.0, prediction[0])
    value, share = cast(0.0, prediction[0]), one / cast(k, prediction[0])
    least = cast(1.1754943508222875e-38, one)
    for j in range(k):
        p, t = prediction[j], cast(target[j], value)
        p = least if p < least else p
        value += p - t * scalar.log(p)
        delta[j] = share * (one - t / p)
    return value * share


@jit
def perceptron(prediction, target, k, delta):
    """sum_j (step(z_j) - t_j) z_j, t = 0 or 1; delta step(z) - t, not divided by k: the rule of Rosenblatt 1958."""
    value = cast(0.0, prediction[0])
    for j in range(k):
        z = prediction[j]
        error = activations.step(z)[0] - cast(target[j], value)
        value += error * z
        delta[j] = error
    return value


@jit
def _rival(prediction, label, k):
    """Index of the largest prediction among the classes other than label: the first of equals, NaN before any."""
    rival = -1
    for j in range(k):
        if j != label and (rival < 0 or prediction[j] > prediction[rival] or prediction[j] != prediction[j]):
            rival = j
    return rival


@jit
def hinge_class(prediction, label, k, delta):
    """max(0, 1 + max_{j != y} z_j - z_y); delta +1 for the rival, -1 for the class (Crammer and Singer 2001)."""
    zero, one = cast(0.0, prediction[0]), cast(1.0, prediction[0])
    rival = _rival(prediction, label, k)
    slack = one + prediction[rival] - prediction[label]
    active = zero if slack <= zero else one
    for j in range(k):
        delta[j] = zero
    delta[rival] = active
    delta[label] = -active
    return zero if slack <= zero else slack


@jit
def squared_hinge_class(prediction, label, k, delta):
    """max(0, 1 + max_{j != y} z_j - z_y)^2; delta 2 slack for the rival, -2 slack for the class."""
    zero, one = cast(0.0, prediction[0]), cast(1.0, prediction[0])
    rival = _rival(prediction, label, k)
    slack = one + prediction[rival] - prediction[label]
    slack = zero if slack <= zero else slack
    for j in range(k):
        delta[j] = zero
    delta[rival] = slack + slack
    delta[label] = -(slack + slack)
    return slack * slack


@jit
def perceptron_class(prediction, label, k, delta):
    """z_c - z_y, c the predicted class (the first largest z); delta +1 for c, -1 for y, 0 if c = y (Duda, Hart)."""
    zero, one = cast(0.0, prediction[0]), cast(1.0, prediction[0])
    chosen = 0
    for j in range(k):
        if prediction[j] > prediction[chosen] or prediction[j] != prediction[j]:
            chosen = j
    value = prediction[chosen] - prediction[label]
    for j in range(k):
        delta[j] = zero
    delta[chosen] += one
    delta[label] -= one
    return value


@jit
def row(code, prediction, target, label, k, delta):
    """Value and delta of one row by loss code; target is read by the losses of rows, label by those of classes."""
    if code == CROSS_ENTROPY_CLASS:
        return cross_entropy_class(prediction, label, k, delta)
    if code == MSE:
        return mse(prediction, target, k, delta)
    if code == LOGISTIC:
        return logistic(prediction, target, k, delta)
    if code == CROSS_ENTROPY:
        return cross_entropy(prediction, target, k, delta)
    if code == MAE:
        return mae(prediction, target, k, delta)
    if code == HUBER:
        return huber(prediction, target, k, delta)
    if code == HINGE:
        return hinge(prediction, target, k, delta)
    if code == SQUARED_HINGE:
        return squared_hinge(prediction, target, k, delta)
    if code == POISSON:
        return poisson(prediction, target, k, delta)
    if code == POISSON_RATE:
        return poisson_rate(prediction, target, k, delta)
    if code == PERCEPTRON:
        return perceptron(prediction, target, k, delta)
    if code >= custom.LEAST_CODE:
        return custom.row(code, prediction, target, label, k, delta)
    if code == HINGE_CLASS:
        return hinge_class(prediction, label, k, delta)
    if code == SQUARED_HINGE_CLASS:
        return squared_hinge_class(prediction, label, k, delta)
    return perceptron_class(prediction, label, k, delta)


def _part(function: Any, classes: bool = False) -> Any:
    """A loss for `custom.row`."""

    def by_target(prediction, target, label, k, delta, value):
        value[0] = function(prediction, target, k, delta)

    def by_class(prediction, target, label, k, delta, value):
        value[0] = function(prediction, label, k, delta)

    return apart(by_class if classes else by_target, function.__name__)


PARTS: dict[int, Any] = {  # by code
    MSE: _part(mse),
    MAE: _part(mae),
    HUBER: _part(huber),
    HINGE: _part(hinge),
    SQUARED_HINGE: _part(squared_hinge),
    LOGISTIC: _part(_logistic_lines),
    CROSS_ENTROPY: _part(cross_entropy),
    POISSON: _part(poisson),
    POISSON_RATE: _part(poisson_rate),
    PERCEPTRON: _part(perceptron),
    CROSS_ENTROPY_CLASS: _part(cross_entropy_class, classes=True),
    HINGE_CLASS: _part(hinge_class, classes=True),
    SQUARED_HINGE_CLASS: _part(squared_hinge_class, classes=True),
    PERCEPTRON_CLASS: _part(perceptron_class, classes=True),
}


@cache
def ready(code: int, dtype: DTypeLike, in_a_line: bool = False) -> int:
    """What `ready_row` takes for a code: each loss is called by address, so that only the one in use is compiled.

    in_a_line: in training, of at most 16 logits; there the most common loss keeps its code, see `network`.
    """
    if code not in PARTS or (in_a_line and code == CROSS_ENTROPY_CLASS):
        return code
    return address(PARTS[code], *custom.loss_kinds(from_dtype(np.dtype(dtype))))


@inner
def ready_row(code, prediction, target, label, k, delta):
    """`row`, by a code that is `ready`."""
    return custom.row(code, prediction, target, label, k, delta)
