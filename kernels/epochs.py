"""Whole epochs, in pieces: per-sample SGD and mini-batch training, and inference.

A piece runs the samples at positions start .. stop of the epoch's order and returns the sum of their losses;
between pieces Python can draw progress, stop, or change the learning rate. All threads of a piece call the same
function with their number; they share every array and meet at a barrier.
"""

from typing import Any, NamedTuple

import numpy as np

from hotloop.kernels import activations, barrier, losses, network, sparse, updates
from hotloop.kernels.dense import product
from hotloop.kernels.jit import inner, jit
from hotloop.kernels.network import ACTIVATION, BIAS, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.simd import TILE_ROWS, advance, cast, pointer

BLOCK = 512  # most rows of a block: a larger batch adds block after block into the gradient buffer

SGD, MOMENTUM, NESTEROV, GRADIENT_ONLY = range(4)


class Rule(NamedTuple):
    """How a gradient moves the parameters: the code, its buffers and its constants."""

    code: int  # SGD, MOMENTUM, NESTEROV; GRADIENT_ONLY leaves the last batch's gradient in grad and moves nothing
    lr: float
    momentum: float
    grad: Any  # (n_params,), used by every rule but plain SGD on at most BLOCK rows
    state: Any  # (n_params,) velocity; (0,) where the rule has none


class Scratch(NamedTuple):
    """Working memory of one fit, shared by its threads."""

    work: Any  # values and slopes, see network
    index: Any  # per-sample: positions of the non-zero values, int32, laid out like work
    packed: Any  # per-sample: those values
    row_loss: Any  # (BLOCK,) float64
    meeting: Any  # (1,) int64, the barrier's counter


@jit
def per_sample(net, samples, start, stop, loss, lr, scratch):
    """SGD, one step per sample: only weights under non-zero inputs and units are read and written.

    Returns the sum of the losses, each taken before its own step, float64. params change in place.
    """
    plan, params = net.plan, net.params
    layers = plan.shape[0]
    counts = np.zeros(layers, np.int64)
    scale = cast(-lr, params[0])
    total = 0.0
    for position in range(start, stop):
        sample = samples.order[position]
        x = pointer(samples.X, sample * plan[0, WIDTH])
        for layer in range(1, layers):
            below = plan[layer - 1, VALUE]
            index, packed = pointer(scratch.index, below), pointer(scratch.packed, below)
            counts[layer] = sparse.compact(x, plan[layer - 1, WIDTH], index, packed)
            z, bias = pointer(scratch.work, plan[layer, VALUE]), pointer(params, plan[layer, BIAS])
            padded = plan[layer, PADDED]
            for j in range(padded):
                z[j] = bias[j]
            sparse.accumulate(index, packed, counts[layer], pointer(params, plan[layer, WEIGHT]), padded, padded, z)
            network.activate(plan, scratch.work, layer, 0, 1)
            x = z
        total += network.output_delta(plan, scratch.work, samples, sample, 0, loss, scale)
        network.backward(plan, params, scratch.work, 0, 1)
        for layer in range(1, layers):
            below, padded = plan[layer - 1, VALUE], plan[layer, PADDED]
            index, packed = pointer(scratch.index, below), pointer(scratch.packed, below)
            delta = pointer(scratch.work, plan[layer, SLOPE])
            weight = pointer(params, plan[layer, WEIGHT])
            sparse.distribute(index, packed, counts[layer], delta, weight, padded, padded)
            if plan[layer, HAS_BIAS] != 0:
                bias = pointer(params, plan[layer, BIAS])
                for j in range(padded):
                    bias[j] += delta[j]
    return total


@inner
def _apply(rule, params, begin, end):
    """Move params[begin:end] by the gradient buffer."""
    p, g = params[begin:end], rule.grad[begin:end]
    if rule.code == MOMENTUM:
        updates.momentum(p, g, rule.state[begin:end], rule.lr, rule.momentum)
    elif rule.code == NESTEROV:
        updates.nesterov(p, g, rule.state[begin:end], rule.lr, rule.momentum)
    elif rule.code == SGD:
        updates.sgd(p, g, rule.lr)


@inner
def _gradient(net, into, samples, position, rows, loss, scale, scratch, thread, threads):
    """Add scale * the gradient of a batch's summed loss to the buffer `into`; return that loss (on thread 0)."""
    total = 0.0
    for first in range(0, rows, BLOCK):
        some = min(BLOCK, rows - first)
        share = -(-some // (threads * TILE_ROWS)) * TILE_ROWS  # whole tiles for each thread
        begin, end = min(some, thread * share), min(some, (thread + 1) * share)
        network.load_rows(net.plan, scratch.work, samples, position + first, begin, end)
        network.forward(net.plan, net.params, scratch.work, begin, end)
        for r in range(begin, end):
            sample = samples.order[position + first + r]
            scratch.row_loss[r] = network.output_delta(net.plan, scratch.work, samples, sample, r, loss, scale)
        network.backward(net.plan, net.params, scratch.work, begin, end)
        barrier.wait(scratch.meeting, threads)
        if thread == 0:
            for r in range(some):
                total += scratch.row_loss[r]
        network.accumulate(net.plan, into, scratch.work, some, thread, threads)
        barrier.wait(scratch.meeting, threads)
    return total


@jit
def mini_batch(net, samples, start, stop, batch_size, loss, rule, scratch, thread, threads):
    """One step per batch of batch_size samples (the last may be smaller), on `threads` threads.

    Returns the sum of the losses of all samples, each taken before its batch's step, float64, on thread 0.
    params, rule.grad and rule.state change in place.
    """
    total = 0.0
    params, grad = net.params, rule.grad
    begin, end = params.shape[0] * thread // threads, params.shape[0] * (thread + 1) // threads
    for position in range(start, stop, batch_size):
        rows = min(batch_size, stop - position)
        fused = rule.code == SGD and rows <= BLOCK  # straight into the weights, without a gradient buffer
        scale = cast((-rule.lr if fused else 1.0) / rows, params[0])
        if not fused:
            grad[begin:end] = 0
            barrier.wait(scratch.meeting, threads)
        into = pointer(params, 0) if fused else pointer(grad, 0)
        total += _gradient(net, into, samples, position, rows, loss, scale, scratch, thread, threads)
        if not fused:
            _apply(rule, params, begin, end)
            barrier.wait(scratch.meeting, threads)
    return total


@jit
def predict(net, X, begin, end, block, work, out):
    """out[begin:end] = the network's outputs for X[begin:end]; X (n, n_features), out (n, n_outputs).

    work holds `block` rows of values by the plan.
    """
    plan, params = net.plan, net.params
    top = plan.shape[0] - 1
    for first in range(begin, end, block):
        rows = min(block, end - first)
        x, x_row = pointer(X, first * plan[0, WIDTH]), plan[0, WIDTH]
        for layer in range(1, plan.shape[0]):
            width, padded, stride = plan[layer, WIDTH], plan[layer, PADDED], plan[layer, STRIDE]
            z, bias = pointer(work, plan[layer, VALUE]), pointer(params, plan[layer, BIAS])
            weight = pointer(params, plan[layer, WEIGHT])
            product(x, x_row, 1, rows, plan[layer - 1, WIDTH], weight, padded, padded, bias, 0, z, stride)
            for r in range(rows):
                row = advance(z, r * stride)
                if plan[layer, ACTIVATION] == activations.SOFTMAX:
                    activations.softmax(row, width, row)
                else:
                    activations.apply(plan[layer, ACTIVATION], row, width, row)
            x, x_row = z, stride
        for r in range(rows):
            for j in range(plan[top, WIDTH]):
                out[first + r, j] = x[r * x_row + j]


@jit
def all_finite(values):
    """True if no element of a flat array is NaN or infinite."""
    zero = cast(0.0, values[0])
    for begin in range(
        0, values.shape[0], 4096
    ):  # x - x is 0 unless x is NaN or infinite; the inner loop has no branch
        bad = 0
        for i in range(begin, min(begin + 4096, values.shape[0])):
            bad += 1 if values[i] - values[i] != zero else 0
        if bad > 0:
            return False
    return True


@jit
def total_loss(loss, outputs, targets, labels, delta):
    """Sum of the losses of all rows, float64; outputs (n, k) logits or predictions, delta (k,) overwritten."""
    rows, k = outputs.shape
    total = 0.0
    for r in range(rows):
        label = labels[r] if labels.shape[0] > 0 else 0
        total += losses.row(loss, pointer(outputs, r * k), pointer(targets, r * k), label, k, pointer(delta, 0))
    return total
