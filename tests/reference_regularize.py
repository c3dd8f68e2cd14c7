"""Plain NumPy twins of regularisation: penalties, clipping, norms, dropout, noise, weights of samples.

Nothing here imports the package; random numbers are drawn from the counter-based generator of reference.py.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import reference
from reference import Array, double

DROPOUT, NOISE = 3, 4  # kinds of streams
HALVES = 65536  # a unit's fate is 16 random bits


class Regular(NamedTuple):
    """What regularises a training; zero or None is none of it."""

    l1: float = 0.0
    l2: float = 0.0
    clip_value: float = 0.0
    clip_norm: float = 0.0
    max_norm: float = 0.0
    dropout: Sequence[float] | None = None  # of the input, then of each hidden layer
    noise: float = 0.0


def penalised(weights: Sequence[Array], dweights: Sequence[Array], regular: Regular) -> list[Array]:
    """dweight + l1 sign(w) + l2 w for every layer: the gradient of the loss with its penalties."""
    return [dw + regular.l1 * np.sign(w) + regular.l2 * double(w) for w, dw in zip(weights, dweights, strict=True)]


def penalty(weights: Sequence[Array], l1: float, l2: float) -> float:
    """l1 sum |w| + l2/2 sum w^2."""
    return sum(l1 * float(np.abs(double(w)).sum()) + 0.5 * l2 * float((double(w) ** 2).sum()) for w in weights)


def clipped(grads: Sequence[Array], regular: Regular) -> list[Array]:
    """Every entry within +-clip_value, then all of them scaled to a norm of clip_norm if it is larger."""
    found = [double(grad) for grad in grads]
    if regular.clip_value:
        found = [np.clip(grad, -regular.clip_value, regular.clip_value) for grad in found]
    norm = math.sqrt(sum(float((grad**2).sum()) for grad in found))
    if regular.clip_norm and norm > regular.clip_norm:
        found = [grad * (regular.clip_norm / norm) for grad in found]
    return found


def limited(weight: Array, bound: float) -> Array:
    """Columns (the weights into one unit each) scaled down to a norm of `bound` where it is larger."""
    norms = np.sqrt((double(weight) ** 2).sum(axis=0))
    return double(weight) * np.where(norms > bound, bound / np.maximum(norms, bound), 1.0)


def unit_factor(seed: int, epoch: int, position: int, layer: int, layers: int, width: int, share: float) -> Array:
    """0 for the dropped units of one row, 1 / (1 - share) for the others; layers counts the input and the output too.

    A unit is dropped if its 16 bits, taken eight at a time from two words, are less than share * 65536.
    """
    bound = round(share * HALVES)
    out = np.empty(width)
    for unit in range(width):
        words = reference.words(seed, DROPOUT, epoch, (position * layers + layer) * 2**24 + unit - unit % 8)
        bits = words[unit % 8 // 4] >> 16 * (unit % 4) & 0xFFFF
        out[unit] = HALVES / (HALVES - bound) if bits >= bound else 0.0
    return out


def unit_factors(
    seed: int, epoch: int, positions: Sequence[int], widths: Sequence[int], shares: Sequence[float] | None
) -> list[Array] | None:
    """One array (n, width) of factors for the input and every hidden layer, for the rows at these places."""
    if shares is None:
        return None
    layers = len(widths) + 1
    return [
        np.array([unit_factor(seed, epoch, at, layer, layers, width, share) for at in positions])
        for layer, (width, share) in enumerate(zip(widths, shares, strict=True))
    ]


def normal(seed: int, kind: int, stream: int, index: int) -> float:
    """Marsaglia's polar method: draw `index` of a stream, at most 64 attempts each."""
    for attempt in range(64):
        a, b = reference.uniform(seed, kind, stream, 64 * index + attempt)
        u, v = 2 * a - 1, 2 * b - 1
        if 0 < u * u + v * v < 1:
            break
    s = u * u + v * v
    return u * math.sqrt(-2 * math.log(s) / s)


def noisy(x: Array, seed: int, epoch: int, positions: Sequence[int], deviation: float) -> Array:
    """Rows with a normal draw of this deviation added to every input."""
    if not deviation:
        return double(x)
    width = x.shape[1]
    draws = [[normal(seed, NOISE, epoch, at * width + j) for j in range(width)] for at in positions]
    return double(x) + deviation * np.array(draws)


def smoothed(y: Array, k: int, share: float, loss: str) -> Array:
    """Labels or rows of probabilities with a share of them spread evenly: over k classes, or over 0 and 1."""
    rows = np.eye(k)[y] if y.ndim == 1 and loss == "cross_entropy" else double(y).reshape(len(y), -1)
    return rows * (1 - share) + share / (k if loss == "cross_entropy" else 2)


def thinned_gradients(
    weights: list[Array],
    biases: list[Array],
    activations: Sequence[str],
    loss: str,
    x: Array,
    y: Array,
    factors: list[Array] | None,
    importance: Array,
) -> tuple[list[float], list[Array], list[Array]]:
    """Back-propagation with factors on the inputs of every layer, and on each sample's loss.

    Returns each sample's weighted loss, and the gradients of their sum over n.
    """
    factors = factors or [np.ones(weight.shape[0]) for weight in weights]
    inputs, zs = [double(x) * factors[0]], []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        zs.append(reference.dense_forward(inputs[-1], weight, bias))
        if layer + 1 < len(weights):
            inputs.append(reference.activate(activations[layer], zs[-1]) * factors[layer + 1])
    rows = [reference.output_loss(loss, activations[-1], z, target) for z, target in zip(zs[-1], y, strict=True)]
    delta = np.array([d * w for (_, d), w in zip(rows, importance, strict=True)]) / len(x)
    dweights: list[Array] = []
    dbiases: list[Array] = []
    for layer in reversed(range(len(weights))):
        dweight, dbias = reference.dense_weight_gradient(inputs[layer], delta)
        dweights.insert(0, dweight)
        dbiases.insert(0, dbias)
        if layer > 0:
            back = reference.dense_input_gradient(delta, weights[layer])
            delta = back * factors[layer] * reference.slope(activations[layer - 1], zs[layer - 1])
    return [value * w for (value, _), w in zip(rows, importance, strict=True)], dweights, dbiases
