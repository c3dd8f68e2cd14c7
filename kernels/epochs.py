"""Whole epochs, in pieces: per-sample SGD and mini-batch training.

A piece runs the samples at positions start .. stop of the epoch's order and adds up their losses;
between pieces Python can draw progress, stop, or change the learning rate. All threads of a piece call the same
function with their number; they share every array and meet at a barrier.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hotloop.kernels import barrier, lazy, loading, network, outputs, regularize, shares, sparse, steps, updates
from hotloop.kernels.dense import add_rows, back_product, product, row_product
from hotloop.kernels.jit import call, inlined, inner, jit
from hotloop.kernels.plan import BIAS, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH, Lists
from hotloop.kernels.simd import DOT_ROWS, LANES, TILE_ROWS, advance, cast, pointer

BLOCK = 512  # most rows of a block: a larger batch adds block after block into the gradient buffer


class Scratch(NamedTuple):
    """Working memory of one fit, shared by its threads."""

    work: Any  # values and slopes, see network; per-sample: of two windows
    lists: Lists  # of the input rows; per-sample: of every layer's inputs, laid out like work, and behind the
    #                        ends of the input rows the number of the others (n_layers + 1,)
    row_loss: Any  # (BLOCK,) float64
    overlaps: Any  # (2 window, window), the products of each two inputs of a window; (0, 0) for mini-batches
    table: Any  # (n_features window,), zero: see sparse.overlaps; (0,) unless rows are listed
    squares: Any  # sums of the gradient's squares, see regular; of the parameters' dtype
    total: Any  # (1,) float64, the sum of the losses since it was last set to zero: one chain, however long the pieces
    meeting: Any  # (barrier.APART (threads + 1),) int64, the counters of the barrier, of turns and of shares
    lazy: lazy.Lazy  # what the first layer remembers where only the rows that a batch meets are moved


@jit
def per_sample(net, samples, start, stop, window, loss, rule, regular, scratch, thread, threads):
    """SGD, one step per sample, in the order of the samples; the first layer's weights are moved window by window.

    Within a window of samples the first layer takes the inputs of all of them before the first one's step, and makes
    good for the steps between: z_r = x_r @ weight + bias + sum_{s < r} (x_r . x_s + 1) delta_s, which is what it would
    be after them. So its weights come through the caches once for a window and not for every sample, as in a
    mini-batch; everything above is moved in each step. 784-128-10, dense rows: 4 us a sample instead of 11.

    Each sample's loss, taken before its own step, is added to scratch.total; params change in place.
    rule: SGD or, for one layer, PASSIVE_AGGRESSIVE. Of regular, dropout of hidden units counts.
    Windows begin at multiples of their size, and at `start`. Threads divide the first layer by columns, and meet twice
    a window; the layers above are left to thread 0, and meanwhile the last one brings the next window's samples.
    """
    plan, params = net
    loss_sum, meeting = scratch.total, scratch.meeting
    vectors = plan[1, PADDED] // LANES
    first, last = vectors * thread // threads * LANES, vectors * (thread + 1) // threads * LANES
    total, half, before = loss_sum[0], 0, 0
    position, rows = start, min(window - start % window, stop - start)
    while True:
        if thread == threads - 1:
            _bring(plan, samples, scratch, position, rows, half)
        barrier.wait(meeting, threads)
        if window == 1:
            _first_layer_of_row(plan, params, samples, position, scratch, 1 - half, before, rows, first, last)
        else:
            _first_layer(plan, params, samples, position, scratch, 1 - half, before, rows, first, last)
        if rows == 0:
            break
        barrier.wait(meeting, threads)
        if thread == 0:
            total = _steps(net, samples, position, rows, loss, rule, regular, scratch, half * window, total)
        position, before, half = position + rows, rows, 1 - half
        rows = min(window, stop - position)
    if thread == 0:
        loss_sum[0] = total


@inlined
def _bring(plan, samples, scratch, position, rows, half):
    """Bring a window's samples into this half of the input rows, and take the products of each two of them."""
    work, lists, overlaps = scratch.work, scratch.lists, scratch.overlaps
    window, width, stride = overlaps.shape[1], plan[0, PADDED], plan[0, STRIDE]
    begin = half * window
    inputs = loading.kind(samples, window)
    if window == 1 and samples.inputs.start.shape[0] > 0:
        _count_entries(plan, samples, lists, position, rows, begin)
        return
    loading.load_rows(plan, work, lists, samples, inputs, position - begin, begin, begin + rows)
    if window == 1:
        return
    x, one = pointer(work, plan[0, VALUE] + begin * stride), cast(1.0, overlaps[0, 0])
    products = pointer(overlaps, begin * window)
    if inputs == loading.LISTED:
        blocks = sparse.blocks_of(plan[0, WIDTH], plan[1, PADDED])
        entries = pointer(lists.index, begin * stride), pointer(lists.value, begin * stride)
        ends = pointer(lists.ends, begin * (blocks + 1))
        arguments = entries, ends, stride, blocks, rows, window, pointer(scratch.table, 0), products
        call(samples.parts.overlaps, arguments)
    else:
        for r in range(0, rows, DOT_ROWS):
            some, into = min(DOT_ROWS, rows - r), advance(products, r * window)
            for i in range(some * window):
                into[i] = one
            back_product(advance(x, r * stride), stride, some, x, stride, r + some, width, into, window)
    if plan[1, HAS_BIAS] != 0:
        for i in range(rows * window):
            products[i] += one


@inlined
def _count_entries(plan, samples, lists, position, rows, r):
    """Note the number of the entries of row r, if it is one, which stay where they are."""
    starts, blocks = samples.inputs.start, sparse.blocks_of(plan[0, WIDTH], plan[1, PADDED])
    if rows == 1:
        sample = samples.order[position]
        lists.ends[r * (blocks + 1) + blocks] = starts[sample + 1] - starts[sample]
        loading.fetch_ahead(samples, position)


@inlined
def _first_layer_of_row(plan, params, samples, position, scratch, half, before, rows, first, last):
    """_first_layer for windows of one row: the step of the last row, if any, and z of that at this position."""
    work, lists = scratch.work, scratch.lists
    stride, padded, blocks = plan[1, STRIDE], plan[1, PADDED], sparse.blocks_of(plan[0, WIDTH], plan[1, PADDED])
    weight, bias = pointer(params, plan[1, WEIGHT] + first), pointer(params, plan[1, BIAS] + first)
    if before == 1:
        delta = pointer(work, plan[1, SLOPE] + half * stride + first)
        if plan[1, HAS_BIAS] != 0:
            add_rows(delta, 0, 1, last - first, bias)
        index, value = loading.entries_of(plan, samples, lists, position - 1, half, 1)
        count = np.int64(lists.ends[half * (blocks + 1) + blocks])
        sparse.distribute(index, value, count, delta, weight, padded, last - first)
    if rows == 1:
        z = pointer(work, plan[1, VALUE] + (1 - half) * stride + first)
        index, value = loading.entries_of(plan, samples, lists, position, 1 - half, 1)
        count = np.int64(lists.ends[(1 - half) * (blocks + 1) + blocks])
        sparse.accumulate_row(index, value, count, weight, padded, last - first, bias, z)


@inlined
def _first_layer(plan, params, samples, position, scratch, half, before, rows, first, last):
    """The steps of the last window's rows, and by the weights after them z of this window's: columns first .. last.

    before rows are in this half of the block, and rows in the other: those from this position on. Block by block of the
    features, so that the weights come through the first-level cache once for both.
    """
    work, lists, window, width = scratch.work, scratch.lists, scratch.overlaps.shape[1], plan[0, WIDTH]
    x_row, stride, padded, inputs = plan[0, STRIDE], plan[1, STRIDE], plan[1, PADDED], loading.kind(samples, window)
    old, new = half * window, (1 - half) * window
    z, delta = pointer(work, plan[1, VALUE] + new * stride), pointer(work, plan[1, SLOPE] + old * stride)
    weight, bias = pointer(params, plan[1, WEIGHT]), pointer(params, plan[1, BIAS])
    x_old, x_new = pointer(work, plan[0, VALUE] + old * x_row), pointer(work, plan[0, VALUE] + new * x_row)
    X, order = pointer(samples.inputs.X, 0), samples.order
    forward, update = samples.parts.forward, samples.parts.update
    following = pointer(order, min(position + rows, order.shape[0] - rows))
    if plan[1, HAS_BIAS] != 0:
        add_rows(advance(delta, first), stride, before, last - first, advance(bias, first))
    for r in range(rows):
        for j in range(first, last):
            z[r * stride + j] = bias[j]
    entries = pointer(lists.index, 0), pointer(lists.value, 0), pointer(lists.ends, 0)
    blocks, size = sparse.blocks_of(width, padded), sparse.span(width, padded)
    for c in range(first, last, sparse.WIDE):
        some, part, back, into = min(sparse.WIDE, last - c), advance(weight, c), advance(delta, c), advance(z, c)
        for block in range(blocks):
            k, stop = block * size, min(width, (block + 1) * size)
            if inputs == loading.LISTED:
                call(update, (entries, x_row, old, before, block, blocks, back, stride, part, padded, some))
                call(forward, (entries, x_row, new, rows, block, blocks, part, padded, some, into, stride))
            elif inputs == loading.ZEROS:
                call(update, (x_old, x_row, before, k, stop, back, stride, part, padded, some))
                at, source = advance(part, k * padded), advance(X, k)
                arguments = advance(x_new, k), x_row, rows, stop - k, at, padded, some, into, stride
                call(forward, (*arguments, source, following, width))
            else:
                at = advance(part, k * padded)
                product(advance(x_old, k), 1, x_row, stop - k, before, back, stride, some, at, padded, at, padded)
                product(advance(x_new, k), x_row, 1, rows, stop - k, at, padded, some, into, stride, into, stride)


@inlined
def _steps(net, samples, position, rows, loss, rule, regular, scratch, begin, total):
    """The steps of a window's samples, one after another; of the first layer only the deltas. total + their losses."""
    plan, params = net
    work, lists, overlaps, row_loss = scratch.work, scratch.lists, scratch.overlaps, scratch.row_loss
    rates, dropout = rule.rates, regular.dropout
    layers, stride, padded, window = plan.shape[0], plan[1, STRIDE], plan[1, PADDED], overlaps.shape[1]
    deltas = pointer(work, plan[1, SLOPE] + begin * stride)
    inputs, blocks = loading.kind(samples, window), sparse.blocks_of(plan[0, WIDTH], plan[1, PADDED])
    counts = pointer(lists.ends, lists.ends.shape[0] - layers)
    for i in range(rows):
        r = begin + i
        z, overlap = pointer(work, plan[1, VALUE] + r * stride), pointer(overlaps, r * window)
        row_product(overlap, 1, i, deltas, stride, padded, z, z)
        for layer in range(2, layers):
            network.activate(plan, work, layer - 1, r, r + 1)
            if dropout.shape[0] > 0 and dropout[layer - 1] > 0.0:
                regularize.drop(plan, work, layer - 1, r, position + i, regular)
            forward_active(plan, params, work, r, layer, lists, counts)
        scale = cast(-rates[min(position + i, rates.shape[0] - 1)], params[0])
        outputs.output_delta(plan, work, samples, position + i, r, loss, scale, row_loss)
        cost = cast(row_loss[r], scale)
        total += cost
        if rule.code == updates.PASSIVE_AGGRESSIVE:
            x, count = _inputs_of(plan, samples, scratch, position + i, r)
            steps.restrain(rule, plan, work, x, count, r, cost, scale)
        if moves(pointer(work, plan[layers - 1, SLOPE] + r * plan[layers - 1, STRIDE]), plan[layers - 1, PADDED]):
            network.backward(plan, params, work, r, r + 1)
            for layer in range(2, layers):
                update_active(plan, params, work, r, layer, lists, counts)
        else:  # beyond the margin of a hinge, and where a perceptron knows
            for j in range(padded):
                deltas[i * stride + j] = cast(0.0, scale)
            if inputs == loading.LISTED:  # nothing to add to the weights
                ends = pointer(lists.ends, r * (blocks + 1))
                for block in range(blocks + 1):
                    ends[block] = 0
    return total


@inner
def moves(delta, n):
    """Whether any output's delta is not zero."""
    found = np.int32(0)  # without a branch, and in 32 bits, it vectorises
    for j in range(n):
        found = np.int32(found | np.int32(delta[j] != cast(0.0, delta[j])))
    return found != 0


@inner
def _inputs_of(plan, samples, scratch, position, r):
    """(x, count): the inputs of row r, the sample at this position, or those listed, and their number."""
    lists, window = scratch.lists, scratch.overlaps.shape[1]
    if loading.kind(samples, window) == loading.LISTED:
        blocks = sparse.blocks_of(plan[0, WIDTH], plan[1, PADDED])
        _, value = loading.entries_of(plan, samples, lists, position, r, window)
        return value, np.int64(lists.ends[r * (blocks + 1) + blocks])
    return pointer(scratch.work, plan[0, VALUE] + r * plan[0, STRIDE]), plan[0, WIDTH]


@inlined
def forward_active(plan, params, work, r, layer, lists, counts):
    """z of one layer and row r, from the active units below, which it lists; counts[layer] is their number."""
    padded, below = plan[layer, PADDED], plan[layer - 1, VALUE]
    index, value = pointer(lists.index, below), pointer(lists.value, below)
    z, bias = pointer(work, plan[layer, VALUE] + r * plan[layer, STRIDE]), pointer(params, plan[layer, BIAS])
    x = pointer(work, below + r * plan[layer - 1, STRIDE])
    count = sparse.append(x, 0, plan[layer - 1, WIDTH], index, value, 0)
    counts[layer] = count
    sparse.accumulate_row(index, value, count, pointer(params, plan[layer, WEIGHT]), padded, padded, bias, z)


@inlined
def update_active(plan, params, work, r, layer, lists, counts):
    """The step of one layer: its bias, and the weights under the units that forward_active listed."""
    padded, below = plan[layer, PADDED], plan[layer - 1, VALUE]
    index, value = pointer(lists.index, below), pointer(lists.value, below)
    delta, weight = pointer(work, plan[layer, SLOPE] + r * plan[layer, STRIDE]), pointer(params, plan[layer, WEIGHT])
    sparse.distribute(index, value, np.int64(counts[layer]), delta, weight, padded, padded)
    if plan[layer, HAS_BIAS] != 0:
        add_rows(delta, 0, 1, padded, pointer(params, plan[layer, BIAS]))


@inlined
def _deltas(net, samples, position, rows, loss, scale, regular, scratch, share, thread, threads, total):
    """Deltas of a block of rows, all threads' when it returns; total + their losses (on thread 0)."""
    plan, params = net
    inputs = loading.kind(samples, 0)
    work, lists, row_loss, meeting = scratch.work, scratch.lists, scratch.row_loss, scratch.meeting
    layers, dropout = plan.shape[0], regular.dropout
    begin, end = shares.bounds(rows, share, TILE_ROWS)
    if inputs == loading.ZEROS:
        given = plan, params, work, samples, position, rows, share, meeting, thread, threads
        call(samples.parts.first_layer, given)
    else:
        loading.load_rows(plan, work, lists, samples, inputs, position, begin, end)
        if regular.noise > 0.0:
            for r in range(begin, end):
                regularize.add_noise(plan, work, r, position + r, regular)
    for layer in range(2 if inputs == loading.ZEROS else 1, layers):
        if dropout.shape[0] > 0 and dropout[layer - 1] > 0.0:
            for r in range(begin, end):
                regularize.drop(plan, work, layer - 1, r, position + r, regular)
        network.forward(plan, params, work, lists, samples, layer, begin, end)
    outputs.output_deltas(plan, work, samples, position, begin, end, loss, scale, row_loss)
    network.backward(plan, params, work, begin, end)
    barrier.wait(meeting, threads)
    if thread == 0:
        for r in range(rows):
            total += row_loss[r]
    return total


@inlined
def _gradient(net, into, samples, batch, loss, scale, rule, fused, regular, scratch, thread, threads):
    """Add scale * the gradient of a batch's summed loss to the buffer `into`; return that loss (on thread 0).

    fused, for a batch of at most BLOCK rows: the rule moves the parameters by it, and no buffer is filled.
    """
    position, rows, lr, _ = batch
    meeting, total = scratch.meeting, 0.0
    for first in range(0, rows, BLOCK):
        some, at = min(BLOCK, rows - first), position + first
        share = shares.of_thread(meeting, thread, threads)
        total = _deltas(net, samples, at, some, loss, scale, regular, scratch, share, thread, threads, total)
        began = shares.clock()
        if fused:
            steps.move(rule, net, scratch.work, samples, some, share, lr, True)
        else:
            network.accumulate(net.plan, into, scratch.work, scratch.lists, samples, some, share)
        shares.note(meeting, thread, share, began)
        barrier.wait(meeting, threads)
    return total


@inlined
def _move(net, samples, rule, regular, lr, scratch, thread, threads):
    """Move the parameters by the gradient buffer, which ends as zero; each thread moves its share."""
    meeting = scratch.meeting
    if regular.parts.bound_gradient != 0:
        regularize.bound_gradient(net, rule.grad, scratch.squares, regular, meeting, thread, threads)
        barrier.wait(meeting, threads)
    steps.move(rule, net, scratch.work, samples, 0, shares.of_thread(meeting, thread, threads), lr, False)
    barrier.wait(meeting, threads)


@inlined
def _end_step(net, rule, regular, meeting, thread, threads):
    """What comes behind a move of the parameters."""
    if thread == 0:
        steps.tick(rule)
    if regular.max_norm > 0.0:
        regularize.limit_norms(net, regular, thread, threads)
        barrier.wait(meeting, threads)


@partial(jit, inside=inlined)
def mini_batch(net, samples, start, stop, batch_size, loss, rule, regular, scratch, thread, threads):
    """One step per batch of batch_size samples (the last may be smaller), on `threads` threads.

    Each sample's loss, taken before its batch's step, is added to scratch.total; params and the buffers of the rule
    change in place. With an empty rule.grad the step is plain SGD without penalties,
    of at most BLOCK rows, straight into the weights.
    """
    params, rates, direct, first_layer = net.params, rule.rates, rule.grad.shape[0] == 0, scratch.lazy
    meeting, total, step = scratch.meeting, scratch.total[0], int(rule.clock[0])
    lazily = first_layer.parts.before != 0 or first_layer.parts.after != 0
    fusible = not direct and not lazily and rule.part != 0 and regular.parts.bound_gradient == 0
    fused = fusible and batch_size <= BLOCK and steps.fuses(net, loading.kind(samples, 0))
    for position in range(start, stop, batch_size):
        rows = min(batch_size, stop - position)
        lr = rates[min(position // batch_size, rates.shape[0] - 1)]
        scale = cast((-lr if direct else 1.0) / rows, params[0])
        into = pointer(params, 0) if direct else pointer(rule.grad, 0)
        batch = lazy.Batch(position, rows, lr, step)
        if first_layer.parts.before != 0:
            lazy.before(net, samples, rule, first_layer, batch, meeting, thread, threads)
        total += _gradient(net, into, samples, batch, loss, scale, rule, fused, regular, scratch, thread, threads)
        if first_layer.parts.after != 0:
            lazy.after(net, samples, rule, first_layer, batch, meeting, thread, threads)
        elif not direct:
            if not fused:
                _move(net, samples, rule, regular, lr, scratch, thread, threads)
            _end_step(net, rule, regular, meeting, thread, threads)
        step += 1
    if thread == 0:
        scratch.total[0] = total
