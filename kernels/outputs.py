"""The output layer of a network: its losses, and delta = dloss/dz of each unit, scaled.

The most common loss, cross entropy over at most 16 logits, is compiled into the epoch kernels; all others are parts.
"""

import numpy as np

from hotloop.kernels import activations, lines, losses
from hotloop.kernels.jit import apart, call, inlined, inner
from hotloop.kernels.plan import ACTIVATION, PADDED, SLOPE, STRIDE, VALUE, WIDTH
from hotloop.kernels.simd import LANES, cast, make_buffer, pointer

_line = make_buffer(LANES)


@inlined
def output_delta(plan, work, samples, position, r, loss, scale, row_loss):
    """Loss and deltas of row r of the block, whose z are in the workspace as values; the deltas are its slopes.

    Of the sample at this position; its loss times its weight goes to row_loss[r]. CROSS_ENTROPY_CLASS without an
    address stands for at most 16 logits, see `losses.ready`.
    """
    sample = samples.order[position]
    if loss == losses.CROSS_ENTROPY_CLASS:
        row_loss[r] = _class_delta(plan, work, samples, sample, r, scale)
    else:
        _part_delta(plan, work, samples, sample, r, loss, scale, row_loss)


@inlined
def output_deltas(plan, work, samples, position, begin, end, loss, scale, row_loss):
    """output_delta of rows begin .. end of the block, for the samples at position + begin .. position + end."""
    order = samples.order
    if loss == losses.CROSS_ENTROPY_CLASS:
        for r in range(begin, end, LANES):
            _class_deltas(plan, work, samples, pointer(order, position + r), r, min(LANES, end - r), scale, row_loss)
    else:
        for r in range(begin, end):
            _part_delta(plan, work, samples, order[position + r], r, loss, scale, row_loss)


@inner
def _class_delta(plan, work, samples, sample, r, scale):
    """The loss and deltas of one row by the most common loss."""
    labels, weights = samples.labels, samples.weights
    top = plan.shape[0] - 1
    z, delta = pointer(work, plan[top, VALUE] + r * LANES), pointer(work, plan[top, SLOPE] + r * LANES)
    weight = weights[sample] if weights.shape[0] > 0 else cast(1.0, scale)
    label, k = labels[sample], plan[top, WIDTH]
    return weight * lines.cross_entropy_class_line(z, label, k, weight * scale, delta)


@inner
def _class_deltas(plan, work, samples, sample, first, rows, scale, row_loss):
    """The same of up to 16 rows, the samples on a pointer: 0.03 us a row, not 0.15."""
    labels, weights = samples.labels, samples.weights
    top = plan.shape[0] - 1
    z, delta = pointer(work, plan[top, VALUE] + first * LANES), pointer(work, plan[top, SLOPE] + first * LANES)
    label, scales, value = _line(pointer(labels, 0)), _line(z), _line(z)
    for r in range(rows):
        label[r], scales[r] = labels[sample[r]], scale
    if weights.shape[0] > 0:
        for r in range(rows):
            scales[r] *= weights[sample[r]]
    lines.cross_entropy_class_rows(z, rows, label, plan[top, WIDTH], scales, value, delta)
    for r in range(rows):
        row_loss[first + r] = value[r] * weights[sample[r]] if weights.shape[0] > 0 else value[r]


@inner
def _part_delta(plan, work, samples, sample, r, loss, scale, row_loss):
    """The loss and deltas of one row by any other loss."""
    top, targets, labels, weights = plan.shape[0] - 1, samples.targets, samples.labels, samples.weights
    width, stride = plan[top, WIDTH], plan[top, STRIDE]
    weight = weights[sample] if weights.shape[0] > 0 else cast(1.0, scale)
    label = np.int64(labels[sample]) if labels.shape[0] > 0 else 0
    target, value = pointer(targets, sample * width), pointer(row_loss, r)
    z, delta = pointer(work, plan[top, VALUE] + r * stride), pointer(work, plan[top, SLOPE] + r * stride)
    shape = width, plan[top, PADDED], plan[top, ACTIVATION]
    call(samples.parts.delta, (z, delta, shape, target, label, loss, weight, scale, value))


@apart
def row_delta(a, delta, shape, target, label, loss, weight, scale, value):
    """value[0] = weight times the loss of one row; delta = weight scale dloss/dz.

    a and delta (padded,), on pointers, hold z and nothing; a becomes what the activation makes of it. shape: units,
    padded, activation. target or label is the truth, by the loss.
    """
    k, padded, activation = shape
    activations.activate(activation, a, k, delta)
    softmax = activation == activations.SOFTMAX  # without its fused loss: the full Jacobian
    if softmax:
        activations.softmax(a, k, a)
    value[0] = weight * losses.ready_row(loss, a, target, label, k, delta if softmax else a)
    scale *= weight
    if softmax:
        mean = cast(0.0, weight)
        for j in range(k):
            mean += a[j] * delta[j]
        for j in range(k):
            delta[j] = a[j] * (delta[j] - mean) * scale
    else:
        for j in range(padded):
            delta[j] *= a[j] * scale
