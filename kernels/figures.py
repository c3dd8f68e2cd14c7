"""The figure beside the loss of rows that are held out: the share of right predictions, or r2."""

import numpy as np

from hotloop.kernels.jit import inner, jit

VALUE, ARGMAX, THRESHOLD = range(
    3
)  # how predictions are made of outputs: as they are, the largest, those above a bound


@inner
def _largest(values, r):
    """The column of the first largest number of a row, or of the first NaN."""
    best = 0
    for j in range(values.shape[1]):
        if values[r, j] != values[r, j]:
            return j
        best = j if values[r, j] > values[r, best] else best
    return best


@inner
def _accuracy(decision, outputs, targets, labels, bound, target_bound):
    rows, k, right = outputs.shape[0], outputs.shape[1], 0
    if decision == ARGMAX:
        for r in range(rows):
            truth = labels[r] if labels.shape[0] > 0 else _largest(targets, r)
            right += 1 if _largest(outputs, r) == truth else 0
        return right / rows
    for r in range(rows):
        for j in range(k):
            right += 1 if (outputs[r, j] > bound) == (targets[r, j] > target_bound) else 0
    return right / (rows * k)


@jit
def r2(outputs, targets):
    """Mean over the columns of 1 - sum (y - yhat)^2 / sum (y - mean y)^2, or 0 where all y are equal; both (n, k)."""
    rows, k, total = outputs.shape[0], outputs.shape[1], 0.0
    for j in range(k):
        mean, spread, error = 0.0, 0.0, 0.0
        for r in range(rows):
            mean += targets[r, j]
        mean /= rows
        for r in range(rows):
            far, wrong = np.float64(targets[r, j]) - mean, np.float64(targets[r, j]) - np.float64(outputs[r, j])
            spread += far * far
            error += wrong * wrong
        total += 1.0 - error / spread if spread > 0.0 else 0.0
    return total / k


@inner
def figure(decision, outputs, targets, labels, bound, target_bound):
    """r2, or the share of right predictions; bounds are for THRESHOLD, labels (n,) or (0,) for ARGMAX."""
    if decision == VALUE:
        return r2(outputs, targets)
    return _accuracy(decision, outputs, targets, labels, bound, target_bound)
