"""Plain NumPy twins of the kernels: everything Hotloop computes, written a second time, slowly.

Read it as the documentation of the mathematics. Values are computed in float64 (losses in the longest float the
machine has), nothing is blocked, fused or skipped, and nothing here imports the package. Twins return new arrays; the
names are those of the kernels. Functions that end in `_bits` promise more than a value: they follow Hotloop's fixed
summation order with exactly rounded steps, so a kernel must agree with them in every bit.

Shapes: n rows, X (n, fan_in), weight (fan_in, fan_out), bias (fan_out,), delta (n, fan_out); a loss sees one row of k.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[float, Array]


def double(values: Any) -> Array:
    """The same numbers in float64."""
    return np.asarray(values, np.float64)


# Scalars --------------------------------------------------------------------------------------------------------------


def round_to(exact: Fraction, dtype: Any) -> Any:
    """The float of `dtype` nearest to a rational number, ties to even."""
    scalar = np.dtype(dtype).type
    guess = scalar(float(exact))  # right for float64; for float32 it was rounded twice, so its neighbours are tried too
    if scalar is np.float64:
        return guess
    candidates = [guess, np.nextafter(guess, scalar(-np.inf)), np.nextafter(guess, scalar(np.inf))]
    return min(candidates, key=lambda c: (abs(Fraction(float(c)) - exact), int(c.view(np.uint32)) & 1))


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once, for finite numbers of one dtype."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    return round_to(exact, np.result_type(c)) if exact else a * b + c  # a sum that is exactly zero keeps IEEE's sign


def tf32(x: Array) -> Array:
    """The numbers of 11 significant bits next to x, ties away from zero."""
    mantissa, exponent = np.frexp(double(x))
    return np.ldexp(np.sign(mantissa) * np.floor(np.abs(mantissa) * 2**11 + 0.5), exponent - 11)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow on either side."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + small), small / (1 + small))


def softplus(z: Array) -> Array:
    """log(1 + exp(z)), without overflow."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def normal_cdf(z: Array) -> Array:
    """Phi(z), the probability that a standard normal number is at most z."""
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), otypes=[np.float64])(z)


def normal_density(z: Array) -> Array:
    """phi(z) = exp(-z^2 / 2) / sqrt(2 pi), the slope of Phi."""
    return np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


# Activations: name -> (value, slope), functions of z ------------------------------------------------------------------

ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "identity": (lambda z: z + 0.0, lambda z: np.ones_like(z)),
    "step": (lambda z: np.where(z > 0, 1.0, 0.0), lambda z: np.zeros_like(z)),
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * sigmoid(-z)),
    "tanh": (np.tanh, lambda z: 4 * sigmoid(2 * z) * sigmoid(-2 * z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01)),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), lambda z: np.exp(np.minimum(z, 0))),
    "gelu": (lambda z: z * normal_cdf(z), lambda z: normal_cdf(z) + z * normal_density(z)),
    "silu": (lambda z: z * sigmoid(z), lambda z: sigmoid(z) * (1 + z * sigmoid(-z))),
    "softplus": (softplus, sigmoid),
}


def softmax(z: Array) -> Array:
    """exp(z_j) / sum exp(z), along the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def activate(name: str, z: Array) -> Array:
    """f(z) in float64; softmax along the last axis."""
    z = double(z)
    return softmax(z) if name == "softmax" else ACTIVATIONS[name][0](z)


def slope(name: str, z: Array) -> Array:
    """f'(z) in float64; at a kink, the slope on the left."""
    return ACTIVATIONS[name][1](double(z))


# Losses: one row of predictions p (or logits z) and targets t -> (value, dvalue/dp) -----------------------------------


def row_loss(formula: Callable[[Array, Array], tuple[Any, Array]]) -> Callable[[Array, Array], Pair]:
    """Run a formula in the longest float there is; give back a float and a float64 row."""

    def loss(prediction: Array, target: Array) -> Pair:
        value, delta = formula(np.asarray(prediction, np.longdouble), np.asarray(target, np.longdouble))
        return float(value), delta.astype(np.float64)

    return loss


@row_loss
def mse(p: Array, t: Array) -> tuple[Any, Array]:
    """(1/k) sum (p - t)^2."""
    return np.mean((p - t) ** 2), 2 * (p - t) / len(p)


@row_loss
def mae(p: Array, t: Array) -> tuple[Any, Array]:
    """(1/k) sum |p - t|."""
    return np.mean(np.abs(p - t)), np.sign(p - t) / len(p)


@row_loss
def huber(p: Array, t: Array) -> tuple[Any, Array]:
    """(1/k) sum of e^2 / 2 where |e| <= 1, |e| - 1/2 elsewhere; e = p - t."""
    e = p - t
    return np.mean(np.where(np.abs(e) <= 1, e**2 / 2, np.abs(e) - 0.5)), np.clip(e, -1, 1) / len(p)


@row_loss
def hinge(p: Array, t: Array) -> tuple[Any, Array]:
    """(1/k) sum max(0, 1 - t p), t = -1 or +1."""
    return np.mean(np.maximum(0, 1 - t * p)), np.where(1 - t * p > 0, -t, 0) / len(p)


@row_loss
def squared_hinge(p: Array, t: Array) -> tuple[Any, Array]:
    """(1/k) sum max(0, 1 - t p)^2, t = -1 or +1."""
    gap = np.maximum(0, 1 - t * p)
    return np.mean(gap**2), -2 * t * gap / len(p)


@row_loss
def logistic(z: Array, t: Array) -> tuple[Any, Array]:
    """-(1/k) sum t log s + (1 - t) log(1 - s), s = sigmoid(z), 0 <= t <= 1. Note -log s = softplus(-z)."""
    return np.mean(t * softplus(-z) + (1 - t) * softplus(z)), (sigmoid(z) - t) / len(z)


@row_loss
def cross_entropy(z: Array, t: Array) -> tuple[Any, Array]:
    """-sum t log softmax(z), for a row of probabilities t (their sum is 1)."""
    log_sum = z.max() + np.log(np.sum(np.exp(z - z.max())))
    return np.sum(np.where(t > 0, t * (log_sum - z), 0)), softmax(z) * np.sum(t) - t


@row_loss
def poisson(z: Array, t: Array) -> tuple[Any, Array]:
    """(1/k) sum exp(z) - t z: minus the log likelihood of counts t at the log rate z, less a constant."""
    return np.mean(np.exp(z) - t * z), (np.exp(z) - t) / len(z)


@row_loss
def poisson_rate(p: Array, t: Array) -> tuple[Any, Array]:
    """(1/k) sum p - t log p: the same likelihood at the rate p > 0."""
    return np.mean(p - t * np.log(p)), (1 - t / p) / len(p)


@row_loss
def perceptron(z: Array, t: Array) -> tuple[Any, Array]:
    """sum (step(z) - t) z, t = 0 or 1: |z| for each wrong answer, so that its gradient is Rosenblatt's rule."""
    error = np.where(z > 0, 1.0, 0.0) - t
    return np.sum(error * z), error


def cross_entropy_class(logits: Array, label: int) -> Pair:
    """-log softmax(z)_label."""
    return cross_entropy(logits, one_hot(label, len(logits)))


def hinge_class(logits: Array, label: int) -> Pair:
    """max(0, 1 + max_{j != label} z_j - z_label): Crammer and Singer's margin between classes."""
    z = np.asarray(logits, np.longdouble)
    rival = max((j for j in range(len(z)) if j != label), key=lambda j: z[j])  # the first of several
    margin = 1 + z[rival] - z[label]
    if margin <= 0:
        return 0.0, np.zeros(len(z))
    return float(margin), one_hot(rival, len(z)) - one_hot(label, len(z))


def squared_hinge_class(logits: Array, label: int) -> Pair:
    """The square of hinge_class."""
    value, delta = hinge_class(logits, label)
    return value**2, 2 * value * delta


def perceptron_class(logits: Array, label: int) -> Pair:
    """z_c - z_label, where c is the first of the largest logits: zero for a right answer."""
    z = np.asarray(logits, np.longdouble)
    c = int(np.argmax(z))
    return float(z[c] - z[label]), one_hot(c, len(z)) - one_hot(label, len(z))


LOSSES: dict[str, Callable[[Array, Array], Pair]] = {
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "hinge": hinge,
    "squared_hinge": squared_hinge,
    "logistic": logistic,
    "cross_entropy": cross_entropy,
    "poisson": poisson,
    "poisson_rate": poisson_rate,
    "perceptron": perceptron,
}
CLASS_LOSSES: dict[str, Callable[[Array, int], Pair]] = {
    "cross_entropy": cross_entropy_class,
    "hinge": hinge_class,
    "squared_hinge": squared_hinge_class,
    "perceptron": perceptron_class,
}


def one_hot(label: int, k: int) -> Array:
    """A row of k zeros with a one at `label`."""
    return np.eye(k)[label]


# Dense layers ---------------------------------------------------------------------------------------------------------


def dense_forward(x: Array, weight: Array, bias: Array, activation: str = "identity") -> Array:
    """f(x @ weight + bias), for a batch or one row."""
    return activate(activation, double(x) @ double(weight) + double(bias))


def dense_input_gradient(delta: Array, weight: Array) -> Array:
    """dloss/dx = delta @ weight.T, for a batch or one row."""
    return double(delta) @ double(weight).T


def dense_weight_gradient(x: Array, delta: Array) -> tuple[Array, Array]:
    """dloss/dweight = x.T @ delta and dloss/dbias = the column sums of delta."""
    return double(x).T @ double(delta), double(delta).sum(axis=0)


def dense_update(x: Array, delta: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """weight + x.T @ delta and bias + column sums of delta, where delta already holds -lr / n."""
    dweight, dbias = dense_weight_gradient(x, delta)
    return weight + dweight, bias + dbias


def dense_forward_bits(x: Array, weight: Array, bias: Array) -> Array:
    """x @ weight + bias as Hotloop rounds it: z_j = bias_j, then fma(x_k, w_kj, z_j) with k ascending."""
    out = np.empty((len(x), weight.shape[1]), weight.dtype)
    for b, j in np.ndindex(out.shape):
        z = bias[j]
        for k in range(weight.shape[0]):
            z = fma(x[b, k], weight[k, j], z)
        out[b, j] = z
    return out


def dense_input_gradient_bits(delta: Array, weight: Array) -> Array:
    """delta @ weight.T as Hotloop rounds it: a chain for each lane j % 16; then the lanes are halved, 8 4 2 1."""
    out = np.empty((len(delta), weight.shape[0]), weight.dtype)
    for b, k in np.ndindex(out.shape):
        lanes = [weight.dtype.type(0)] * 16
        for j in range(weight.shape[1]):
            lanes[j % 16] = fma(delta[b, j], weight[k, j], lanes[j % 16])
        for half in (8, 4, 2, 1):
            lanes = [lanes[lane] + lanes[lane + half] for lane in range(half)]
        out[b, k] = lanes[0]
    return out


def dense_update_bits(x: Array, delta: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """weight + x.T @ delta and bias + sums of delta as Hotloop rounds them: one chain over the rows, b ascending."""
    weight, bias = weight.copy(), bias.copy()
    for b in range(len(x)):
        for k, j in np.ndindex(weight.shape):
            weight[k, j] = fma(x[b, k], delta[b, j], weight[k, j])
        bias += delta[b]
    return weight, bias


def dense_weight_gradient_bits(x: Array, delta: Array) -> tuple[Array, Array]:
    """x.T @ delta and sums of delta as Hotloop rounds them: the chains of an update that start from zero."""
    zero = np.zeros((x.shape[1], delta.shape[1]), delta.dtype)
    return dense_update_bits(x, delta, zero, zero[0])


# Sparse rows: (index, value) of the entries that are not zero ---------------------------------------------------------


def sparse_compact(x: Array) -> tuple[Array, Array]:
    """The positions and the values of what is not zero, in order."""
    index = np.flatnonzero(x)
    return index, x[index]


def sparse_forward_row(index: Array, value: Array, weight: Array, bias: Array) -> Array:
    """bias + sum over the entries of value * weight[index]."""
    return double(bias) + double(value) @ double(weight)[index]


def sparse_accumulate_row_bits(index: Array, value: Array, weight: Array, init: Array) -> Array:
    """init + sum over the entries of value * weight[index], of a weight of at most 64 columns: in four sums.

    Entry k belongs to sum k % 4, but the last count % 4 to the first, which begins with init: (s0 + s1) + (s2 + s3).
    """
    out, whole = np.empty_like(init), len(index) - len(index) % 4
    for c in range(len(init)):
        s = [init[c], *np.zeros(3, init.dtype)]
        for k, at in enumerate(index):
            chain = k % 4 if k < whole else 0
            s[chain] = fma(value[k], weight[at, c], s[chain])
        out[c] = (s[0] + s[1]) + (s[2] + s[3])
    return out


def sparse_update_row(index: Array, value: Array, delta: Array, weight: Array) -> Array:
    """weight with value * delta added to the rows of the entries."""
    weight = np.array(weight, np.float64)
    weight[index] += np.outer(double(value), double(delta))
    return weight


# Figures --------------------------------------------------------------------------------------------------------------


def r2(outputs: Array, targets: Array) -> float:
    """Mean over the columns of 1 - squared errors / squared distances from the mean; 0 where there are none."""
    errors = np.square(double(targets) - double(outputs)).sum(axis=0)
    spread = np.square(double(targets) - double(targets).mean(axis=0)).sum(axis=0)
    return float(np.mean([1 - e / s if s > 0 else 0.0 for e, s in zip(errors, spread, strict=True)]))


# Random numbers -------------------------------------------------------------------------------------------------------


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011): four words of counter, two of key, ten rounds -> four random words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    word = 0xFFFFFFFF
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right & word, (left >> 32) ^ c3 ^ k1, left & word
        k0, k1 = (k0 + 0x9E3779B9) & word, (k1 + 0xBB67AE85) & word
    return c0, c1, c2, c3


SHUFFLE, INIT = 1, 2


def words(seed: int, kind: int, stream: int, index: int) -> tuple[int, int]:
    """Two 64-bit words: the counter is (index, stream, kind), the key is the seed."""
    word = 0xFFFFFFFF
    a, b, c, d = philox((index & word, index >> 32, stream & word, kind), (seed & word, seed >> 32))
    return a << 32 | b, c << 32 | d


def uniform(seed: int, kind: int, stream: int, index: int) -> tuple[float, float]:
    """Two numbers in [0, 1): the upper 53 bits of the words, over 2^53."""
    a, b = words(seed, kind, stream, index)
    return (a >> 11) / 2**53, (b >> 11) / 2**53


def permutation(seed: int, epoch: int, n: int) -> Array:
    """Fisher and Yates: from the last place down, swap place i with one of the places 0..i, chosen by a 32-bit draw."""
    order = np.arange(n)
    for i in range(n - 1, -1, -1):
        number = n - 1 - i  # four draws from each call: the two halves of the two words
        a, b = words(seed, SHUFFLE, epoch, number - number % 4)
        draw = (a >> 32, a & 0xFFFFFFFF, b >> 32, b & 0xFFFFFFFF)[number % 4]
        j = draw * (i + 1) >> 32
        order[i], order[j] = order[j], order[i]
    return order


def fill_uniform(seed: int, stream: int, limit: float, shape: tuple[int, int]) -> Array:
    """Uniform in [-limit, limit): element i of the matrix, counted row by row, is draw i of the stream."""
    draws = [uniform(seed, INIT, stream, i)[0] for i in range(shape[0] * shape[1])]
    return limit * (2 * np.array(draws).reshape(shape) - 1)


def fill_normal(seed: int, stream: int, scale: float, shape: tuple[int, int]) -> Array:
    """Normal with mean 0 and deviation `scale`: Marsaglia's polar method, at most 64 attempts for each element."""
    out = np.empty(shape)
    for i in range(out.size):
        for attempt in range(64):
            a, b = uniform(seed, INIT, stream, 64 * i + attempt)
            u, v = 2 * a - 1, 2 * b - 1
            if 0 < u * u + v * v < 1:
                break
        s = u * u + v * v
        out.flat[i] = scale * u * math.sqrt(-2 * math.log(s) / s)
    return out


# Whole networks -------------------------------------------------------------------------------------------------------
# weights and biases are lists with one entry a layer; `activations` names every layer's activation, the output's last.

FROM_LOGITS = ("logistic", "cross_entropy", "perceptron")  # these read z whatever the output activation is


def network_forward(weights: list[Array], biases: list[Array], activations: Sequence[str], x: Array) -> list[Array]:
    """All pre-activations z, one (n, fan_out) array a layer."""
    zs = []
    for weight, bias, activation in zip(weights, biases, activations, strict=True):
        zs.append(dense_forward(x, weight, bias))
        x = activate(activation, zs[-1])
    return zs


def output_loss(loss: str, output: str, z: Array, target: Array | int) -> Pair:
    """Loss of one sample and dloss/dz, from the last layer's z. A target that is an integer is a class."""
    if isinstance(target, int | np.integer):
        value_and_delta: Callable[..., Pair] = CLASS_LOSSES[loss]
    else:
        value_and_delta = LOSSES["poisson_rate" if (loss, output) == ("poisson", "softplus") else loss]
    if loss in FROM_LOGITS or output in ("identity", "step"):
        return value_and_delta(z, target)
    a = activate(output, z)
    value, delta = value_and_delta(a, target)
    if output == "softmax":  # da_i/dz_j = a_i ((i == j) - a_j)
        return value, a * (delta - np.dot(delta, a))
    return value, delta * slope(output, z)


def network_loss(
    weights: list[Array], biases: list[Array], activations: Sequence[str], loss: str, x: Array, y: Array
) -> float:
    """The mean over the samples of each sample's loss."""
    z = network_forward(weights, biases, activations, x)[-1]
    return math.fsum(output_loss(loss, activations[-1], z[b], y[b])[0] for b in range(len(x))) / len(x)


def network_gradients(
    weights: list[Array], biases: list[Array], activations: Sequence[str], loss: str, x: Array, y: Array
) -> tuple[float, list[Array], list[Array]]:
    """The mean loss, and its gradient for every weight and bias, by back-propagation."""
    zs = network_forward(weights, biases, activations, x)
    inputs = [x] + [activate(name, z) for name, z in zip(activations[:-1], zs[:-1], strict=True)]
    rows = [output_loss(loss, activations[-1], z, target) for z, target in zip(zs[-1], y, strict=True)]
    delta = np.array([row_delta for _, row_delta in rows]) / len(x)
    dweights: list[Array] = []
    dbiases: list[Array] = []
    for layer in reversed(range(len(weights))):
        dweight, dbias = dense_weight_gradient(inputs[layer], delta)
        dweights.insert(0, dweight)
        dbiases.insert(0, dbias)
        if layer > 0:
            delta = dense_input_gradient(delta, weights[layer]) * slope(activations[layer - 1], zs[layer - 1])
    return math.fsum(value for value, _ in rows) / len(x), dweights, dbiases


def train_epoch(
    weights: list[Array],
    biases: list[Array],
    activations: Sequence[str],
    loss: str,
    x: Array,
    y: Array,
    order: Array,
    batch_size: int,
    lr: float,
    bias: bool = True,
) -> float:
    """One epoch of SGD in the given order; float64 weights and biases change in place (without `bias`: only weights).

    Returns the mean loss seen.
    """
    total = 0.0
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        value, dweights, dbiases = network_gradients(weights, biases, activations, loss, x[batch], y[batch])
        total += value * len(batch)
        for params, grad in zip(weights + biases * bias, dweights + dbiases * bias, strict=True):
            params -= lr * grad
    return total / len(order)
