"""A training loop of one's own, compiled with @njit, from Hotloop's kernels: a 64-32-10 network, one sample a step."""

import numba
import numpy as np

from hotloop.data import load
from hotloop.kernels import activations, dense, losses, random


@numba.njit
def train_epoch(X, y, order, w1, b1, w2, b2, lr):
    """One epoch of SGD in place; the mean loss."""
    z, slope = np.empty_like(b1), np.empty_like(b1)
    logits, delta, back = np.empty_like(b2), np.empty_like(b2), np.empty_like(b1)
    total = 0.0
    for sample in order:
        x = X[sample]
        dense.forward_row(x, w1, b1, activations.IDENTITY, z)
        activations.value_and_slope(activations.SILU, z, len(z), z, slope)  # z becomes a = silu(z)
        dense.forward_row(z, w2, b2, activations.IDENTITY, logits)
        total += losses.cross_entropy_class(logits, y[sample], len(logits), delta)
        delta *= -lr
        dense.input_gradient_row(delta, w2, back)
        back *= slope
        dense.update_row(z, delta, w2, b2)
        dense.update_row(x, back, w1, b1)
    return total / len(order)


data = load("digits")
w1, w2 = np.empty((64, 32), np.float32), np.empty((32, 10), np.float32)
random.fill_uniform(0, 0, np.sqrt(6 / 64), w1)
random.fill_uniform(0, 1, np.sqrt(6 / 42), w2)
b1, b2 = np.zeros(32, np.float32), np.zeros(10, np.float32)
order = np.empty(len(data.X_train), np.int64)
for epoch in range(20):
    random.permutation(0, epoch, order)
    loss = train_epoch(data.X_train, data.y_train, order, w1, b1, w2, b2, np.float32(0.02))
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: loss {loss:.4f}")
z = data.X_test @ w1 + b1
predicted = (z / (1 + np.exp(-z)) @ w2 + b2).argmax(axis=1)
print(f"test accuracy {(predicted == data.y_test).mean():.4f}")
