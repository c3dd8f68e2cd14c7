"""What is raced: networks, data, batch sizes. Every contestant trains the same network in the same order of samples."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hotloop import MLP
from hotloop.data import load_digits, load_mnist
from hotloop.kernels import random

Array = NDArray[Any]
Layers = list[tuple[Array, Array]]  # weight (fan_in, fan_out) and bias (fan_out,) of each layer

SEED = 0


@dataclass(frozen=True)
class Case:
    """One race. Hidden layers are ReLU; losses are means over samples (hinge and logistic also over outputs)."""

    name: str  # of the results file
    data: str  # "MNIST", "MNIST, no zeros" or "digits"
    sizes: tuple[int, ...]
    batch_size: int
    samples: int  # rows of an epoch, a multiple of batch_size
    epochs: int  # most epochs of one timed run
    loss: str = "cross_entropy"  # or hinge, logistic: one output against the rest for each class
    lr: float = 0.01

    @property
    def title(self) -> str:
        loss = "" if self.loss == "cross_entropy" else f", {self.loss}"
        return f"{'-'.join(map(str, self.sizes))}{loss}, batch {self.batch_size}, {self.data}"

    @property
    def check_samples(self) -> int:
        """Rows of the epoch in which all contestants must agree: 8 steps at least.

        In many more, one ReLU of a wide network crosses zero by a rounding, and sound losses part by 1e-4.
        """
        return min(self.samples, max(512, 8 * self.batch_size))

    def load(self) -> tuple[Array, Array]:
        """X float32 (samples, n_features) and y int64 (samples,). Raises FileNotFoundError without the data."""
        X, y = _digits() if self.data == "digits" else _mnist()
        X, y = X[: self.samples], y[: self.samples]
        return (X + np.float32(0.01) if self.data == "MNIST, no zeros" else X), y

    def first_layers(self) -> Layers:
        """The weights all contestants begin with."""
        model = MLP(self.sizes, seed=SEED)
        return [(w.copy(), b.copy()) for w, b in zip(model.weights, model.biases, strict=True)]


CASES = (
    Case("digits-64-32-10-b1", "digits", (64, 32, 10), 1, 1792, 40),
    Case("digits-64-32-10-b32", "digits", (64, 32, 10), 32, 1792, 40, lr=0.1),
    Case("mnist-784-30-10-b1", "MNIST", (784, 30, 10), 1, 10_000, 5),
    Case("mnist-784-128-10-b1", "MNIST", (784, 128, 10), 1, 10_000, 3),
    Case("mnist-dense-784-128-10-b1", "MNIST, no zeros", (784, 128, 10), 1, 10_000, 2, lr=0.003),
    Case("mnist-784-10-hinge-b1", "MNIST", (784, 10), 1, 10_000, 5, "hinge", lr=0.05),
    Case("mnist-dense-784-10-hinge-b1", "MNIST, no zeros", (784, 10), 1, 10_000, 5, "hinge", lr=0.05),
    Case("mnist-784-10-logistic-b1", "MNIST", (784, 10), 1, 10_000, 5, "logistic", lr=0.05),
    Case("mnist-784-128-10-b32", "MNIST", (784, 128, 10), 32, 10_240, 3, lr=0.05),
    Case("mnist-784-128-10-b128", "MNIST", (784, 128, 10), 128, 10_240, 3, lr=0.05),
    Case("mnist-784-512-512-10-b128", "MNIST", (784, 512, 512, 10), 128, 5_120, 2, lr=0.05),
    Case("mnist-784-1024x3-10-b256", "MNIST", (784, 1024, 1024, 1024, 10), 256, 2_560, 1, lr=0.05),
)


def orders(n: int, epochs: int) -> list[Array]:
    """The order of the samples in each epoch, as Trainer(seed=SEED) draws it."""
    drawn = [np.empty(n, np.int64) for _ in range(epochs)]
    for epoch, order in enumerate(drawn):
        random.permutation(SEED, epoch, order)
    return drawn


def targets(case: Case, y: Array) -> Array:
    """y as the loss takes it: classes (n,) for cross_entropy, else float32 (n, n_outputs) of -1/+1 or 0/1."""
    if case.loss == "cross_entropy":
        return y
    one_hot = np.eye(case.sizes[-1], dtype=np.float32)[y]
    return 2 * one_hot - 1 if case.loss == "hinge" else one_hot


def loss_of(case: Case, layers: Layers, X: Array, y: Array) -> float:
    """The mean loss of a network over X and y, in float64: the judge of all contestants."""
    z = X.astype(np.float64)
    for i, (weight, bias) in enumerate(layers):
        z = np.maximum(z, 0) if i else z
        z = z @ weight.astype(np.float64) + bias.astype(np.float64)
    t = targets(case, y)
    if case.loss == "hinge":
        return float(np.maximum(0, 1 - t * z).mean())
    if case.loss == "logistic":
        return float((np.logaddexp(0, z) - t * z).mean())
    return float((np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), t]).mean())


@cache
def _digits() -> tuple[Array, Array]:
    return load_digits()


@cache
def _mnist() -> tuple[Array, Array]:
    if "HOTLOOP_DATA" not in os.environ:
        raise FileNotFoundError("needs MNIST: set HOTLOOP_DATA to the folder that holds it")
    data = load_mnist()
    return data.X_train, data.y_train
