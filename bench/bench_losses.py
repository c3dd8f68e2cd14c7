"""Losses, value and delta, over a batch of 128 rows of 10, against NumPy over the whole batch at once."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from hotloop.kernels import losses

Array = NDArray[Any]
Compare = Callable[..., None]
Pair = tuple[Array, Array]

ROWS, K = 128, 10
EACH = np.arange(ROWS)


@numba.njit
def batch(code, prediction, target, label, delta):  # type: ignore[no-untyped-def]
    """The sum of the losses of all rows; writes delta."""
    total = 0.0
    for r in range(prediction.shape[0]):
        total += losses.row(code, prediction[r], target[r], label[r], prediction.shape[1], delta[r])
    return total


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def softmax(z: Array) -> Pair:
    """Probabilities and their logarithms."""
    shifted = z - z.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    return e / total, shifted - np.log(total)


def mse(p: Array, t: Array, label: Array) -> Pair:
    e = p - t
    return e * e / K, e * np.float32(2 / K)


def mae(p: Array, t: Array, label: Array) -> Pair:
    e = p - t
    return np.abs(e) / K, np.sign(e) / K


def huber(p: Array, t: Array, label: Array) -> Pair:
    e = p - t
    size = np.abs(e)
    return np.where(size > 1, size - np.float32(0.5), np.float32(0.5) * e * e) / K, np.clip(e, -1, 1) / K


def hinge(p: Array, t: Array, label: Array) -> Pair:
    slack = 1 - t * p
    return np.maximum(slack, 0) / K, np.where(slack > 0, -t, 0) / K


def squared_hinge(p: Array, t: Array, label: Array) -> Pair:
    slack = np.maximum(1 - t * p, 0)
    return slack * slack / K, t * slack * np.float32(-2 / K)


def logistic(z: Array, t: Array, label: Array) -> Pair:
    return (np.logaddexp(0, z) - t * z) / K, (sigmoid(z) - t) / K


def cross_entropy(z: Array, t: Array, label: Array) -> Pair:
    p, log_p = softmax(z)
    return -t * log_p, p - t


def poisson(z: Array, t: Array, label: Array) -> Pair:
    rate = np.exp(z)
    return (rate - t * z) / K, (rate - t) / K


def poisson_rate(p: Array, t: Array, label: Array) -> Pair:
    return (p - t * np.log(p)) / K, (1 - t / p) / K


def perceptron(z: Array, t: Array, label: Array) -> Pair:
    error = (z > 0) - t
    return error * z, error


def cross_entropy_class(z: Array, t: Array, label: Array) -> Pair:
    p, log_p = softmax(z)
    p[EACH, label] -= 1
    return -log_p[EACH, label], p


def hinge_class(z: Array, t: Array, label: Array) -> Pair:
    others = z.copy()
    others[EACH, label] = -np.inf
    rival = others.argmax(axis=1)
    slack = np.maximum(0, 1 + others[EACH, rival] - z[EACH, label])
    delta, active = np.zeros_like(z), (slack > 0).astype(z.dtype)
    delta[EACH, rival], delta[EACH, label] = active, -active
    return slack, delta


def squared_hinge_class(z: Array, t: Array, label: Array) -> Pair:
    slack, delta = hinge_class(z, t, label)
    return slack * slack, delta * (2 * slack[:, None])


def perceptron_class(z: Array, t: Array, label: Array) -> Pair:
    chosen = z.argmax(axis=1)
    delta = np.zeros_like(z)
    delta[EACH, chosen] = 1
    delta[EACH, label] -= 1
    return z[EACH, chosen] - z[EACH, label], delta


FORMULAS: list[Callable[[Array, Array, Array], Pair]] = [
    mse, mae, huber, hinge, squared_hinge, logistic, cross_entropy, poisson, poisson_rate, perceptron,
    cross_entropy_class, hinge_class, squared_hinge_class, perceptron_class,
]  # fmt: skip


def data(name: str) -> tuple[Array, Array, Array]:
    """Predictions, targets the loss is made for, and classes."""
    rng = np.random.default_rng(0)
    prediction, label = rng.normal(0, 2, (ROWS, K)), rng.integers(0, K, ROWS)
    one_hot = np.eye(K)[label]
    target = rng.normal(0, 2, (ROWS, K)) if name in ("mse", "mae", "huber") else one_hot
    if "hinge" in name:
        target = 2 * one_hot - 1
    if "poisson" in name:
        target = rng.poisson(2.0, (ROWS, K)).astype(float)
    if name == "poisson_rate":
        prediction = np.exp(prediction)
    return prediction.astype(np.float32), target.astype(np.float32), label.astype(np.int32)


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
def test_loss(compare: Compare, formula: Callable[[Array, Array, Array], Pair]) -> None:
    code = getattr(losses, formula.__name__.upper())

    def ours(prediction: Array, target: Array, label: Array, delta: Array) -> float:
        return batch(code, prediction, target, label, delta)

    def numpy(prediction: Array, target: Array, label: Array, delta: Array) -> float:
        value, delta[:] = formula(prediction, target, label)
        return float(value.sum(dtype=np.float64))

    compare(f"{formula.__name__} {ROWS}x{K}", ours, numpy, *data(formula.__name__), np.zeros((ROWS, K), np.float32))
