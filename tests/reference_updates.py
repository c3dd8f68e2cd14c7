"""Plain NumPy twins of the updates, and of whole trainings with any of them.

Parameters p, gradients g and what a rule remembers are float64 arrays of one shape; twins return new ones. t counts the
steps from 1, this one included. The definitions are PyTorch's, written down from the papers that model/optimizers.py
names.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import reference
from reference import Array, double
from reference_regularize import Regular, clipped, limited, noisy, penalised, thinned_gradients, unit_factors

# Rules ----------------------------------------------------------------------------------------------------------------


def sgd(params: Array, grad: Array, lr: float) -> Array:
    """p - lr g."""
    return double(params) - lr * double(grad)


def momentum(params: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """v' = momentum v + g; p' = p - lr v'. Returns p', v'."""
    velocity = momentum * double(velocity) + double(grad)
    return double(params) - lr * velocity, velocity


def nesterov(params: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    """v' = momentum v + g; p' = p - lr (g + momentum v'). Returns p', v'."""
    velocity = momentum * double(velocity) + double(grad)
    return double(params) - lr * (double(grad) + momentum * velocity), velocity


def adam(
    params: Array,
    grad: Array,
    first: Array,
    second: Array,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """m' = b1 m + (1 - b1) g; v' = b2 v + (1 - b2) g^2; p' = (1 - lr wd) p - lr mhat / (sqrt(vhat) + eps)."""
    first = beta1 * double(first) + (1 - beta1) * double(grad)
    second = beta2 * double(second) + (1 - beta2) * double(grad) ** 2
    mean, square = first / (1 - beta1**t), second / (1 - beta2**t)
    return (1 - lr * weight_decay) * double(params) - lr * mean / (np.sqrt(square) + eps), first, second


def rmsprop(
    params: Array, grad: Array, first: Array, second: Array, lr: float, momentum: float, rho: float, eps: float
) -> tuple[Array, Array, Array]:
    """v' = rho v + (1 - rho) g^2; m' = momentum m + g / (sqrt(v') + eps); p' = p - lr m'."""
    second = rho * double(second) + (1 - rho) * double(grad) ** 2
    first = momentum * double(first) + double(grad) / (np.sqrt(second) + eps)
    return double(params) - lr * first, first, second


def adagrad(params: Array, grad: Array, first: Array, lr: float, eps: float) -> tuple[Array, Array]:
    """s' = s + g^2; p' = p - lr g / (sqrt(s') + eps)."""
    first = double(first) + double(grad) ** 2
    return double(params) - lr * double(grad) / (np.sqrt(first) + eps), first


def adadelta(
    params: Array, grad: Array, first: Array, second: Array, lr: float, rho: float, eps: float
) -> tuple[Array, Array, Array]:
    """v' = rho v + (1 - rho) g^2; move = g sqrt(u + eps) / sqrt(v' + eps); p' = p - lr move; u' as v', of move."""
    second = rho * double(second) + (1 - rho) * double(grad) ** 2
    move = double(grad) * np.sqrt(double(first) + eps) / np.sqrt(second + eps)
    return double(params) - lr * move, rho * double(first) + (1 - rho) * move**2, second


def lion(
    params: Array, grad: Array, first: Array, lr: float, beta1: float, beta2: float, weight_decay: float
) -> tuple[Array, Array]:
    """p' = (1 - lr wd) p - lr sign(b1 m + (1 - b1) g); m' = b2 m + (1 - b2) g."""
    direction = np.sign(beta1 * double(first) + (1 - beta1) * double(grad))
    return (1 - lr * weight_decay) * double(params) - lr * direction, beta2 * double(first) + (1 - beta2) * double(grad)


def averaged(params: Array, grad: Array, mean: Array, lr: float, share: float) -> tuple[Array, Array]:
    """p' = p - lr g; mean' = mean + share (p' - mean)."""
    params = sgd(params, grad, lr)
    return params, double(mean) + share * (params - double(mean))


def passive_aggressive(value: float, grad: Array, aggressiveness: float, variant: int) -> float:
    """tau, the length of the step along -g that ends the loss `value` of one sample, g its whole gradient."""
    square = float(np.sum(double(grad) ** 2))
    if variant == 2:
        return value / (square + 1 / (2 * aggressiveness))
    return min(aggressiveness, value / square) if square else 0.0


# Whole trainings ------------------------------------------------------------------------------------------------------

State = tuple[Array, Array]  # first and second, zero before the first step


def move(o: Any, params: Array, grad: Array, state: State, t: int, lr: float, loss: float) -> tuple[Array, State]:
    """Step t of the optimiser o on all parameters at once; loss: that of the step's samples."""
    first, second = state
    match type(o).__name__:
        case "SGD":
            params, first = (nesterov if o.nesterov else momentum)(params, grad, first, lr, o.momentum)
        case "Adam" | "AdamW":
            decay = getattr(o, "weight_decay", 0.0)
            params, first, second = adam(params, grad, first, second, t, lr, o.beta1, o.beta2, o.eps, decay)
        case "RMSprop":
            params, first, second = rmsprop(params, grad, first, second, lr, o.momentum, o.rho, o.eps)
        case "Adagrad":
            params, first = adagrad(params, grad, first, lr, o.eps)
        case "Adadelta":
            params, first, second = adadelta(params, grad, first, second, lr, o.rho, o.eps)
        case "Lion":
            params, first = lion(params, grad, first, lr, o.beta1, o.beta2, o.weight_decay)
        case "AveragedSGD":
            params, first = averaged(params, grad, first, lr, 1 / max(1, t - o.start))
        case "PassiveAggressive":
            params = sgd(params, grad, passive_aggressive(loss, grad, lr, o.variant))
        case name:
            raise ValueError(name)
    return params, (first, second)


def flatten(arrays: Sequence[Array]) -> Array:
    """All numbers of some arrays in one row."""
    return np.concatenate([array.reshape(-1) for array in arrays])


def scatter(flat: Array, arrays: Sequence[Array]) -> None:
    """Write a row of numbers into some arrays."""
    parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1])
    for array, part in zip(arrays, parts, strict=True):
        array[...] = part.reshape(array.shape)


def train(
    model: Any,
    x: Array,
    y: Array,
    loss: str,
    optimizer: Any,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    regular: Regular | None = None,
    sample_weight: Array | None = None,
    rate: Callable[[int], float] = lambda epoch: 1.0,
) -> list[float]:
    """Train the weights and biases of a float64 model in place by the textbook; the losses of the epochs.

    As Hotloop does it: order, dropout and noise of an epoch are drawn from the seed; penalties are added to the
    gradient, values clipped, then its norm; the rule moves the parameters; norms of units are limited.
    """
    regular = regular or Regular()
    weights, biases = model.weights, model.biases
    arrays, names, sizes = weights + biases, [*model.activations, model.output], [len(w) for w in weights]
    state, t, losses = (np.zeros(flatten(arrays).shape),) * 2, 0, []
    importance = np.ones(len(x)) if sample_weight is None else double(sample_weight)
    for epoch in range(epochs):
        order, total = reference.permutation(seed, epoch, len(x)), 0.0
        for start in range(0, len(x), batch_size):
            batch, t = order[start : start + batch_size], t + 1
            places = range(start, start + len(batch))
            rows = noisy(x[batch], seed, epoch, places, regular.noise)
            factors = unit_factors(seed, epoch, places, sizes, regular.dropout)
            values, dweights, dbiases = thinned_gradients(
                weights, biases, names, loss, rows, y[batch], factors, importance[batch]
            )
            total += math.fsum(values)
            grad = clipped(penalised(weights, dweights, regular) + (dbiases if model.bias else []), regular)
            grad += [] if model.bias else [np.zeros_like(bias) for bias in biases]
            lr = optimizer.lr * rate(epoch)
            moved, state = move(optimizer, flatten(arrays), flatten(grad), state, t, lr, sum(values))
            scatter(moved, arrays)
            if regular.max_norm:
                for weight in weights:
                    weight[...] = limited(weight, regular.max_norm)
        losses.append(total / len(x))
    if type(optimizer).__name__ == "AveragedSGD":
        scatter(state[0], arrays)
    return losses
