"""Forward and backward through all layers, over one plan, one flat parameter buffer and one workspace.

plan (n_layers + 1, 9) int64, one line per layer, line 0 the input:
  WIDTH units, PADDED width (a multiple of 16, padding zero), STRIDE between rows in the workspace,
  WEIGHT and BIAS offsets in params, HAS_BIAS, ACTIVATION code, VALUE and SLOPE offsets in the workspace.

The workspace keeps for each row of a block the value a = f(z) and the slope f'(z) of each unit;
the backward pass turns every slope into delta = dloss/dz in place, scaled as the output's delta was.
"""

from typing import Any, NamedTuple

from hotloop.kernels import activations, losses
from hotloop.kernels.dense import add_rows, back_product, product
from hotloop.kernels.jit import inner
from hotloop.kernels.simd import advance, cast, pointer

WIDTH, PADDED, STRIDE, WEIGHT, BIAS, HAS_BIAS, ACTIVATION, VALUE, SLOPE = range(9)


class Network(NamedTuple):
    """A plan and its parameters."""

    plan: Any  # (n_layers + 1, 9) int64
    params: Any  # (n_params,) float32 or float64, padding included


class Samples(NamedTuple):
    """The data of an epoch; targets or labels is empty, by the loss."""

    X: Any  # (n, n_features) of the parameters' dtype
    targets: Any  # (n, n_outputs) of the parameters' dtype
    labels: Any  # (n,) int32
    order: Any  # (n,) int64, the sample at each position of the epoch


@inner
def load_rows(plan, work, samples, position, begin, end):
    """Copy the samples at position + begin .. position + end of the order into the input rows begin .. end."""
    width, stride, base = plan[0, WIDTH], plan[0, STRIDE], plan[0, VALUE]
    for r in range(begin, end):
        source = pointer(samples.X, samples.order[position + r] * width)
        row = pointer(work, base + r * stride)
        for j in range(width):
            row[j] = source[j]


@inner
def forward(plan, params, work, begin, end):
    """Rows begin .. end of the block through every layer: values and slopes."""
    for layer in range(1, plan.shape[0]):
        below, stride = layer - 1, plan[layer, STRIDE]
        x = pointer(work, plan[below, VALUE] + begin * plan[below, STRIDE])
        z = pointer(work, plan[layer, VALUE] + begin * stride)
        weight, bias = pointer(params, plan[layer, WEIGHT]), pointer(params, plan[layer, BIAS])
        padded = plan[layer, PADDED]
        product(x, plan[below, STRIDE], 1, end - begin, plan[below, WIDTH], weight, padded, padded, bias, 0, z, stride)
        activate(plan, work, layer, begin, end)


@inner
def activate(plan, work, layer, begin, end):
    """Turn z into a = f(z), and write the slopes, for the units of one layer; padding keeps its zeros."""
    for r in range(begin, end):
        z = pointer(work, plan[layer, VALUE] + r * plan[layer, STRIDE])
        slope = pointer(work, plan[layer, SLOPE] + r * plan[layer, STRIDE])
        activations.value_and_slope(plan[layer, ACTIVATION], z, plan[layer, WIDTH], z, slope)


@inner
def output_delta(plan, work, samples, sample, r, loss, scale):
    """The loss of row r, whose truth is `sample`; its output slope becomes scale dloss/dz."""
    top = plan.shape[0] - 1
    k = plan[top, WIDTH]
    a = pointer(work, plan[top, VALUE] + r * plan[top, STRIDE])
    delta = pointer(work, plan[top, SLOPE] + r * plan[top, STRIDE])
    target = pointer(samples.targets, sample * k)
    label = samples.labels[sample] if samples.labels.shape[0] > 0 else 0
    softmax = plan[top, ACTIVATION] == activations.SOFTMAX  # without its fused loss: the full Jacobian
    if softmax:
        activations.softmax(a, k, a)
    value = losses.row(loss, a, target, label, k, delta if softmax else a)
    if softmax:
        mean = cast(0.0, value)
        for j in range(k):
            mean += a[j] * delta[j]
        for j in range(k):
            delta[j] = a[j] * (delta[j] - mean) * scale
    else:
        for j in range(k):
            delta[j] *= a[j] * scale
    return value


@inner
def backward(plan, params, work, begin, end):
    """Deltas of rows begin .. end from the output's down to the first layer's, by the weights as they are."""
    for layer in range(plan.shape[0] - 1, 1, -1):
        below = layer - 1
        delta = pointer(work, plan[layer, SLOPE] + begin * plan[layer, STRIDE])
        slope = pointer(work, plan[below, SLOPE] + begin * plan[below, STRIDE])
        weight, padded = pointer(params, plan[layer, WEIGHT]), plan[layer, PADDED]
        units = plan[below, WIDTH]
        back_product(delta, plan[layer, STRIDE], end - begin, weight, padded, units, padded, slope, plan[below, STRIDE])


@inner
def accumulate(plan, into, work, rows, share, shares):
    """into += the gradient's terms of all rows, for this share of every layer's weight rows.

    into points to the parameters (the fused SGD step: the deltas carry -lr/n) or to a gradient buffer (they carry 1/n).
    """
    for layer in range(1, plan.shape[0]):
        below, padded, stride = layer - 1, plan[layer, PADDED], plan[layer, STRIDE]
        delta = pointer(work, plan[layer, SLOPE])
        units = plan[below, WIDTH]
        begin, end = units * share // shares, units * (share + 1) // shares
        x = pointer(work, plan[below, VALUE] + begin)
        weight = advance(into, plan[layer, WEIGHT] + begin * padded)
        product(x, 1, plan[below, STRIDE], end - begin, rows, delta, stride, padded, weight, padded, weight, padded)
        if share == shares - 1 and plan[layer, HAS_BIAS] != 0:
            add_rows(delta, stride, rows, plan[layer, WIDTH], advance(into, plan[layer, BIAS]))
