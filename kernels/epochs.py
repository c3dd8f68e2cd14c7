"""Whole epochs, in pieces: per-sample SGD and mini-batch training, and inference.

A piece runs the samples at positions start .. stop of the epoch's order and returns the sum of their losses;
between pieces Python can draw progress, stop, or change the learning rate. All threads of a piece call the same
function with their number; they share every array and meet at a barrier.
"""

from typing import Any, NamedTuple

import numpy as np

from hotloop.kernels import activations, barrier, lazy, losses, network, regularize, sparse, updates
from hotloop.kernels.dense import add_outer, add_rows, product, update_and_forward
from hotloop.kernels.jit import inner, jit
from hotloop.kernels.network import ACTIVATION, BIAS, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.simd import LANES, TILE_ROWS, advance, cast, fma, pointer

BLOCK = 512  # most rows of a block: a larger batch adds block after block into the gradient buffer


class Scratch(NamedTuple):
    """Working memory of one fit, shared by its threads."""

    work: Any  # values and slopes, see network
    lists: network.Lists  # per-sample: of every layer's inputs, laid out like work, ends (n_layers + 1,) their numbers;
    #                        mini-batch: of the input rows
    row_loss: Any  # (BLOCK,) float64; per-sample: the first tells the threads whether a sample moves anything
    squares: Any  # sums of the gradient's squares, see regular; of the parameters' dtype
    total: Any  # (1,) float64, the sum of the losses since it was last set to zero: one chain, however long the pieces
    meeting: Any  # (1,) int64, the barrier's counter
    lazy: lazy.Lazy  # what the first layer remembers where only the rows that a batch meets are moved


@jit
def per_sample(net, samples, start, stop, loss, rule, regular, scratch, thread, threads):
    """SGD, one step per sample. Only weights under non-zero units are read and written, and under non-zero inputs.

    Without `samples.listed` every input weight is visited, in one pass for the last sample's update and this one's
    forward. Each sample's loss, taken before its own step, is added to scratch.total, which thread 0 returns. params
    change in place. rule: SGD or, for one layer, PASSIVE_AGGRESSIVE. Of regular, dropout of hidden units counts.

    Threads divide the first layer by columns, and meet twice a sample; the layers above are left to thread 0.
    """
    plan, params = net  # arrays are taken out of their tuples once: each time costs an atomic reference count
    (X, entry_values, entry_indices, entry_starts), targets, labels, weights, order, listed = samples
    work, (list_indices, list_values, counts), moved, _, loss_sum, meeting, _ = scratch
    truth, rates, dropout = (targets, labels, weights), rule.rates, regular.dropout
    layers, width, row = plan.shape[0], plan[0, WIDTH], plan[1, PADDED]
    first, last = row // LANES * thread // threads * LANES, row // LANES * (thread + 1) // threads * LANES
    columns = last - first
    weight, bias = pointer(params, plan[1, WEIGHT] + first), pointer(params, plan[1, BIAS] + first)
    z, delta = pointer(work, plan[1, VALUE] + first), pointer(work, plan[1, SLOPE] + first)
    for j in range(columns):
        delta[j] = cast(0.0, delta[j])
    lists = list_indices.shape[0] - thread * plan[0, STRIDE] if thread > 0 else 0
    index, value, count = pointer(list_indices, lists), pointer(list_values, lists), 0
    x, total = pointer(X, 0), loss_sum[0]
    for position in range(start, stop):
        sample = order[position]
        if entry_starts.shape[0] > 0:
            at = entry_starts[sample]
            index, value, count = pointer(entry_indices, at), pointer(entry_values, at), entry_starts[sample + 1] - at
        else:
            before, x = x, pointer(X, sample * width)
            network.fetch_row(X, order[min(position + 1, stop - 1)], width)
            if listed:
                count = sparse.append(x, 0, width, index, value, 0)
        for j in range(columns):
            z[j] = bias[j]
        if listed:
            sparse.accumulate(index, value, count, weight, row, columns, z)
        else:
            update_and_forward(before, delta, x, width, weight, row, columns, z)
        barrier.wait(meeting, threads)
        if thread == 0:
            network.activate(plan, work, 1, 0, 1)
            for layer in range(2, layers):
                if dropout.shape[0] > 0 and dropout[layer - 1] > 0.0:
                    regularize.drop(plan, work, layer - 1, 0, position, regular)
                _forward_row(plan, params, work, layer, list_indices, list_values, counts)
                network.activate(plan, work, layer, 0, 1)
            scale = cast(-rates[min(position, rates.shape[0] - 1)], params[0])
            cost = network.output_delta(plan, work, truth, sample, 0, loss, scale)
            total += cost
            if rule.code == updates.PASSIVE_AGGRESSIVE:
                _restrain(rule, value if listed else x, count if listed else width, cost, scale, plan, work)
            moves = _moves(pointer(work, plan[layers - 1, SLOPE]), plan[layers - 1, WIDTH])
            moved[0] = 1.0 if moves else 0.0  # 0 beyond the margin of a hinge, and where a perceptron knows
            if moves or not listed:
                network.backward(plan, params, work, 0, 1)
                _update_above(plan, params, work, list_indices, list_values, counts)
        barrier.wait(meeting, threads)
        if listed and moved[0] != 0.0:
            sparse.distribute(index, value, count, delta, weight, row, columns)
    if not listed and stop > start:
        add_outer(x, width, delta, weight, row, columns)
    if thread == 0:
        loss_sum[0] = total
    return total


@inner
def _update_above(plan, params, work, list_indices, list_values, counts):
    """The steps of everything but the first layer's weights, by the deltas of one sample."""
    for layer in range(2, plan.shape[0]):
        _update_row(plan, params, work, layer, list_indices, list_values, counts)
    for layer in range(1, plan.shape[0]):
        if plan[layer, HAS_BIAS] != 0:
            delta, bias = pointer(work, plan[layer, SLOPE]), pointer(params, plan[layer, BIAS])
            add_rows(delta, 0, 1, plan[layer, PADDED], bias)


@inner
def _moves(delta, n):
    """Whether any output's delta is not zero."""
    moves = False
    for j in range(n):
        moves = moves or delta[j] != cast(0.0, delta[j])
    return moves


@inner
def _restrain(rule, x, count, cost, scale, plan, work):
    """Make the step the smallest that ends the loss of this sample, and no larger than the rate allows.

    See updates.passive_aggressive_share.
    """
    delta, k, zero = pointer(work, plan[1, SLOPE]), plan[1, WIDTH], cast(0.0, scale)
    if scale == zero:
        return
    square, slopes = cast(float(plan[1, HAS_BIAS]), scale), zero
    for i in range(count):
        square = fma(x[i], x[i], square)
    for j in range(k):
        slope = delta[j] / scale  # delta holds scale dloss/dz; the square of a large rate would be infinite
        slopes = fma(slope, slope, slopes)
    share = updates.passive_aggressive_share(cost, square * slopes, -scale, rule.beta2)
    for j in range(k):
        delta[j] *= share


@inner
def _forward_row(plan, params, work, layer, indices, values, counts):
    """z of one layer and one sample, from the active units below, which it lists; counts[layer] is their number."""
    place, padded = plan[layer - 1, VALUE], plan[layer, PADDED]
    index, value = pointer(indices, place), pointer(values, place)
    z, bias = pointer(work, plan[layer, VALUE]), pointer(params, plan[layer, BIAS])
    for j in range(padded):
        z[j] = bias[j]
    count = sparse.append(pointer(work, place), 0, plan[layer - 1, WIDTH], index, value, 0)
    counts[layer] = count
    sparse.accumulate(index, value, count, pointer(params, plan[layer, WEIGHT]), padded, padded, z)


@inner
def _update_row(plan, params, work, layer, indices, values, counts):
    """The weights of one layer under the units that _forward_row listed += their value times delta."""
    place, padded = plan[layer - 1, VALUE], plan[layer, PADDED]
    index, value = pointer(indices, place), pointer(values, place)
    delta, weight = pointer(work, plan[layer, SLOPE]), pointer(params, plan[layer, WEIGHT])
    sparse.distribute(index, value, np.int64(counts[layer]), delta, weight, padded, padded)


@inner
def _gradient(net, into, samples, position, rows, loss, scale, regular, scratch, thread, threads):
    """Add scale * the gradient of a batch's summed loss to the buffer `into`; return that loss (on thread 0)."""
    plan, params = net
    truth, order, listed = (samples.targets, samples.labels, samples.weights), samples.order, samples.listed
    work, lists, row_loss, meeting = scratch.work, scratch.lists, scratch.row_loss, scratch.meeting
    layers, dropout = plan.shape[0], regular.dropout
    total = 0.0
    for first in range(0, rows, BLOCK):
        some = min(BLOCK, rows - first)
        share = -(-some // (threads * TILE_ROWS)) * TILE_ROWS  # whole tiles for each thread
        begin, end = min(some, thread * share), min(some, (thread + 1) * share)
        network.load_rows(plan, work, lists, samples, position + first, begin, end)
        if regular.noise > 0.0:
            for r in range(begin, end):
                regularize.add_noise(plan, work, r, position + first + r, regular)
        for layer in range(1, layers):
            if dropout.shape[0] > 0 and dropout[layer - 1] > 0.0:
                for r in range(begin, end):
                    regularize.drop(plan, work, layer - 1, r, position + first + r, regular)
            network.forward(plan, params, work, lists, listed, layer, begin, end)
        for r in range(begin, end):
            sample = order[position + first + r]
            row_loss[r] = network.output_delta(plan, work, truth, sample, r, loss, scale)
        network.backward(plan, params, work, begin, end)
        barrier.wait(meeting, threads)
        if thread == 0:
            for r in range(some):
                total += row_loss[r]
        network.accumulate(plan, into, work, lists, listed, some, thread, threads)
        barrier.wait(meeting, threads)
    return total


@inner
def _step(net, rule, regular, lr, scratch, thread, threads):
    """Move the parameters by the gradient buffer, which ends as zero; each thread moves its share."""
    plan, params = net
    grad, squares, meeting = rule.grad, scratch.squares, scratch.meeting
    blocks = squares.shape[0]
    first, last = blocks * thread // threads, blocks * (thread + 1) // threads
    begin, end = min(params.shape[0], first * regularize.BLOCK), min(params.shape[0], last * regularize.BLOCK)
    if regular.l1 > 0.0 or regular.l2 > 0.0:
        regularize.penalise(plan, params, grad, regular.l1, regular.l2, begin, end)
    if regular.clip_value > 0.0:
        regularize.clip_values(grad, regular.clip_value, begin, end)
    if regular.clip_norm > 0.0:
        regularize.sum_squares(grad, squares, first, last)
        barrier.wait(meeting, threads)
        regularize.scale_to_norm(grad, squares, regular.clip_norm, begin, end)
    if rule.code != updates.GRADIENT_ONLY:
        updates.apply(rule, params, begin, end, lr)
    barrier.wait(meeting, threads)
    if thread == 0:
        updates.tick(rule)
    if regular.max_norm > 0.0:
        regularize.limit_norms(plan, params, regular.max_norm, thread, threads)
        barrier.wait(meeting, threads)


@jit
def mini_batch(net, samples, start, stop, batch_size, loss, rule, regular, scratch, thread, threads):
    """One step per batch of batch_size samples (the last may be smaller), on `threads` threads.

    Each sample's loss, taken before its batch's step, is added to scratch.total, which thread 0 returns.
    params and the buffers of the rule change in place. With an empty rule.grad the step is plain SGD without penalties,
    of at most BLOCK rows, straight into the weights.
    """
    params, rates, direct, meeting = net.params, rule.rates, rule.grad.shape[0] == 0, scratch.meeting
    sparse_first, total, step = scratch.lazy, scratch.total[0], int(rule.clock[0])
    is_lazy = sparse_first.done.shape[0] > 0
    for position in range(start, stop, batch_size):
        rows = min(batch_size, stop - position)
        lr = rates[min(position // batch_size, rates.shape[0] - 1)]
        scale = cast((-lr if direct else 1.0) / rows, params[0])
        into = pointer(params, 0) if direct else pointer(rule.grad, 0)
        if is_lazy:
            if thread == 0:
                lazy.meet(sparse_first, samples, position, rows)
            barrier.wait(meeting, threads)
            lazy.catch_up(net, rule, sparse_first, lr, step, thread, threads)
            barrier.wait(meeting, threads)
        total += _gradient(net, into, samples, position, rows, loss, scale, regular, scratch, thread, threads)
        if is_lazy:
            lazy.move(net, rule, sparse_first, lr, step, thread, threads)
            barrier.wait(meeting, threads)
            if thread == 0:
                updates.tick(rule)
        elif not direct:
            _step(net, rule, regular, lr, scratch, thread, threads)
        step += 1
    if is_lazy and stop == samples.order.shape[0]:  # at the end of an epoch: where pieces end must not change a bit
        lazy.settle(net, rule, sparse_first, rates[0], step, thread, threads)
    if thread == 0:
        scratch.total[0] = total
    return total


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

    work holds `block` rows of values by the plan.
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
                    for j in range(padded):
                        row[j] = bias[j]
                    sparse.accumulate(entries, pointer(entry_values, at), count, weight, padded, padded, row)
            else:
                product(x, x_row, 1, rows, plan[layer - 1, WIDTH], weight, padded, padded, bias, 0, z, stride)
            for r in range(rows):
                row = advance(z, r * stride)
                activate_outputs(plan[layer, ACTIVATION], row, width)
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


@jit
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

    outputs (n, k) logits or predictions, delta (k,) overwritten.
    """
    rows, k = outputs.shape
    total = 0.0
    for r in range(rows):
        label = labels[r] if labels.shape[0] > 0 else 0
        one = losses.row(loss, pointer(outputs, r * k), pointer(targets, r * k), label, k, pointer(delta, 0))
        total += one * (weights[r] if weights.shape[0] > 0 else 1.0)
    return total
