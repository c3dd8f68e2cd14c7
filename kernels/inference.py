"""Inference: batches and single rows, the losses of what comes out, and whether numbers are finite."""

from functools import partial

import numpy as np

from hotloop.kernels import activations, losses, sparse
from hotloop.kernels.dense import product
from hotloop.kernels.jit import inner, inner_with_arrays, jit
from hotloop.kernels.plan import ACTIVATION, BIAS, PADDED, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.simd import advance, pointer


@inner
def activate_outputs(code, z, n):
    """z = f(z) for one row of n units, softmax included."""
    if code == activations.SOFTMAX:
        activations.softmax(z, n, z)
    else:
        activations.apply(code, z, n, z)


@jit
def predict(net, inputs, begin, end, block, work, out):
    """out[begin:end] = the network's outputs for these rows of the inputs; out (n, n_outputs).

    work holds `block` rows of values by the plan, whose activations are `ready` ones.
    """
    plan, params = net
    X, entry_values, entry_indices, entry_starts = inputs
    top = plan.shape[0] - 1
    for first in range(begin, end, block):
        rows = min(block, end - first)
        x, x_row = pointer(X, first * plan[0, WIDTH]), plan[0, WIDTH]
        for layer in range(1, plan.shape[0]):
            width, padded, stride = plan[layer, WIDTH], plan[layer, PADDED], plan[layer, STRIDE]
            z, bias = pointer(work, plan[layer, VALUE]), pointer(params, plan[layer, BIAS])
            weight = pointer(params, plan[layer, WEIGHT])
            if layer == 1 and entry_starts.shape[0] > 0:
                for r in range(rows):
                    at, row = entry_starts[first + r], advance(z, r * stride)
                    entries, count = pointer(entry_indices, at), entry_starts[first + r + 1] - at
                    sparse.accumulate(entries, pointer(entry_values, at), count, weight, padded, padded, bias, row)
            else:
                product(x, x_row, 1, rows, plan[layer - 1, WIDTH], weight, padded, padded, bias, 0, z, stride)
            for r in range(rows):
                activations.ready_apply(plan[layer, ACTIVATION], advance(z, r * stride), width)
            x, x_row = z, stride
        for r in range(rows):
            for j in range(plan[top, WIDTH]):
                out[first + r, j] = x[r * x_row + j]


@jit
def all_finite(values):
    """True if no element of a flat array is NaN or infinite."""
    for begin in range(0, values.shape[0], 4096):
        part = values[begin : begin + 4096]
        bad = np.int32(0)  # x - x is 0 unless x is NaN or infinite; without a branch, and in 32 bits, it vectorises
        for i in range(part.shape[0]):
            difference = part[i] - part[i]
            bad = np.int32(bad | np.int32(difference != difference))
        if bad != 0:
            return False
    return True


@partial(jit, inside=inner_with_arrays)
def predict_row(plan, params, x, size, out):
    """out (n_outputs,) = the network's outputs for one row x (n_features,); return the index of the largest.

    plan for blocks of one row, size the elements of its workspace. Returns -1 if x or an output is not finite.
    """
    work = np.empty(size, params.dtype)  # of this call alone: several threads may predict with one model
    values, units = pointer(x, 0), plan[0, WIDTH]
    for layer in range(1, plan.shape[0]):
        width, padded, z = plan[layer, WIDTH], plan[layer, PADDED], pointer(work, plan[layer, VALUE])
        weight, bias = pointer(params, plan[layer, WEIGHT]), pointer(params, plan[layer, BIAS])
        product(values, units, 1, 1, units, weight, padded, padded, bias, 0, z, padded)
        activate_outputs(plan[layer, ACTIVATION], z, width)
        values, units = z, width
    best = 0
    for j in range(units):
        out[j] = values[j]
        best = j if values[j] > values[best] else best
    return best if all_finite(x) and all_finite(out) else -1


@jit
def total_loss(loss, outputs, targets, labels, weights, delta):
    """Sum of the losses of all rows, float64, each times its weight where there are weights (n,).

    loss a `ready` code; outputs (n, k) logits or predictions, delta (k,) overwritten.
    """
    rows, k = outputs.shape
    total = 0.0
    for r in range(rows):
        label = labels[r] if labels.shape[0] > 0 else 0
        one = losses.ready_row(loss, pointer(outputs, r * k), pointer(targets, r * k), label, k, pointer(delta, 0))
        total += one * (weights[r] if weights.shape[0] > 0 else 1.0)
    return total
