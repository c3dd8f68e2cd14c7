"""Forward and backward through all layers, over one plan, one flat parameter buffer and one workspace.

The workspace keeps for each row of a block the value a = f(z) and the slope f'(z) of each unit;
the backward pass turns every slope into delta = dloss/dz in place, scaled as the output's delta was.
Codes of activations and losses are `ready` ones.
"""

from hotloop.kernels import activations, barrier, sparse
from hotloop.kernels.dense import add_rows, back_product, back_product_narrow, product
from hotloop.kernels.jit import apart_uncounted, call, inlined, inner
from hotloop.kernels.loading import LISTED, ZEROS, kind
from hotloop.kernels.plan import ACTIVATION, BIAS, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.shares import bounds
from hotloop.kernels.simd import LANES, TILE_ROWS, advance, cast, pointer

# Rows that a thread adds its features to before the next thread may, a batch in TURNS: few keep that one waiting less,
# but for each turn the weights come through the first-level cache.
TURN, LEAST_TURN, TURNS = 32, 8, 4
ALIAS = 256  # rows a multiple of so many elements apart fall into the same few sets of the cache
NARROW_ROWS = 8  # from which transposing the weights of a head of at most 16 units pays


@inlined
def forward(plan, params, work, lists, samples, layer, begin, end):
    """Rows begin .. end of the block through one layer: values and slopes; of the last layer z, see outputs."""
    below, stride, padded = layer - 1, plan[layer, STRIDE], plan[layer, PADDED]
    z = pointer(work, plan[layer, VALUE])
    weight, bias = pointer(params, plan[layer, WEIGHT]), pointer(params, plan[layer, BIAS])
    width, x_row = plan[below, WIDTH], plan[below, STRIDE]
    if layer == 1 and kind(samples, 0) == LISTED:
        for r in range(begin, end):
            for j in range(padded):
                z[r * stride + j] = bias[j]
        blocks = sparse.blocks_of(width, padded)
        entries = pointer(lists.index, 0), pointer(lists.value, 0), pointer(lists.ends, 0)
        sparse.forward_block(
            samples.parts.forward, entries, x_row, begin, end, blocks, weight, padded, padded, z, stride
        )
    else:
        x, into = pointer(work, plan[below, VALUE] + begin * x_row), advance(z, begin * stride)
        product(x, x_row, 1, end - begin, width, weight, padded, padded, bias, 0, into, stride)
    if layer < plan.shape[0] - 1:
        activate(plan, work, layer, begin, end)


@inner
def own_inputs(plan, work, rows, share):
    """(x, x_row, first, last): the features of this thread's share, and where it keeps the inputs of all rows.

    Apart from the other threads' (the slopes of the input, which nobody needs, are room for it): of rows in common each
    core fetched the other's part ahead, and 784-128-10 with batch 128 took 1.6 us a sample on two threads, not 1.35.
    """
    first, last = bounds(plan[0, WIDTH], share, LANES)
    x_row = -(-(last - first) // LANES) * LANES
    x_row += LANES if x_row > 0 and x_row % ALIAS == 0 else 0  # no room where there is nothing to keep
    return pointer(work, plan[0, VALUE] + 2 * first * rows), x_row, first, last


@apart_uncounted
def forward_zeros(plan, params, work, samples, position, rows, share, turns, thread, threads):
    """All rows of the block through the first layer, skipping zeros: z, and for this share of them their values.

    Each thread has its features, whose weights only it reads and moves: weights that another core has moved come slowly
    (784-128-10, two threads, 128 rows: 1.2 us a sample instead of 1.6). The threads add to
    the sums in turn, some rows each time, so that these are the ascending chains that they are on one thread.
    """
    begin, end = bounds(rows, share, TILE_ROWS)
    x, x_row, first, last = own_inputs(plan, work, rows, share)
    z, stride, padded = pointer(work, plan[1, VALUE]), plan[1, STRIDE], plan[1, PADDED]
    weight, bias = pointer(params, plan[1, WEIGHT] + first * padded), pointer(params, plan[1, BIAS])
    source, order, width = pointer(samples.inputs.X, first), samples.order, plan[0, WIDTH]
    for r in range(rows):
        row, into = advance(source, order[position + r] * width), advance(x, r * x_row)
        for j in range(last - first):
            into[j] = row[j]
        for j in range(last - first, x_row):
            into[j] = cast(0.0, into[j])
    following = pointer(order, min(position + rows, order.shape[0] - rows))  # fetched meanwhile
    size = max(LEAST_TURN, min(TURN, rows // TURNS)) if threads > 1 else TURN
    before = barrier.done(turns, thread) if threads > 1 else 0
    for turn in range((rows + size - 1) // size):
        at = turn * size
        some, into = min(size, rows - at), advance(z, at * stride)
        if thread > 0:
            barrier.wait_turn(turns, thread - 1, before + turn + 1)
        else:
            for r in range(some):
                for j in range(padded):
                    into[r * stride + j] = bias[j]
        arguments = advance(x, at * x_row), x_row, some, last - first, weight, padded, padded, into, stride
        call(samples.parts.forward, (*arguments, source, advance(following, at), width))
        if threads > 1:
            barrier.end_turn(turns, thread)
    if thread < threads - 1:
        barrier.wait_turn(turns, threads - 1, before + (end + size - 1) // size)
    if plan.shape[0] > 2:
        activate(plan, work, 1, begin, end)


@inner
def activate(plan, work, layer, begin, end):
    """Turn z into a = f(z), and write the slopes, for the units of one layer; padding keeps its zeros."""
    width, stride, code = plan[layer, WIDTH], plan[layer, STRIDE], plan[layer, ACTIVATION]
    rows = end - begin
    if width == stride:  # without padding the rows are one long row
        rows, width = 1, rows * width
    z = pointer(work, plan[layer, VALUE] + begin * stride)
    slope = pointer(work, plan[layer, SLOPE] + begin * stride)
    for r in range(rows):
        activations.activate(code, advance(z, r * stride), width, advance(slope, r * stride))


@inlined
def backward(plan, params, work, begin, end):
    """Deltas of rows begin .. end from the output's down to the first layer's, by the weights as they are."""
    for layer in range(plan.shape[0] - 1, 1, -1):
        below = layer - 1
        delta = pointer(work, plan[layer, SLOPE] + begin * plan[layer, STRIDE])
        slope = pointer(work, plan[below, SLOPE] + begin * plan[below, STRIDE])
        weight, padded = pointer(params, plan[layer, WEIGHT]), plan[layer, PADDED]
        units, rows, row, into_row = plan[below, WIDTH], end - begin, plan[layer, STRIDE], plan[below, STRIDE]
        if padded == LANES and rows >= NARROW_ROWS:
            back_product_narrow(delta, row, rows, weight, units, slope, into_row)
        else:
            back_product(delta, row, rows, weight, padded, units, padded, slope, into_row)


@inner
def accumulate_rows(plan, layer, into, work, inputs, update, rows, share, first, last):
    """into += the gradient's terms of all rows, for the weight rows first .. last of one layer; see accumulate.

    They are of this share; row `first` lies at the pointer `into`. Of the first layer it is a multiple of 16, and
    inputs, whose kind this is, are not LISTED; update: where zeros.update_zeros is.
    """
    below, padded, stride = layer - 1, plan[layer, PADDED], plan[layer, STRIDE]
    delta = pointer(work, plan[layer, SLOPE])
    if layer == 1 and inputs == ZEROS:
        x, x_row, own, _ = own_inputs(plan, work, rows, share)
        weight = advance(into, (own - first) * padded)
        arguments = x, x_row, rows, first - own, last - own, delta, stride, weight, padded, padded
        call(update, arguments)
    else:
        x, x_row = pointer(work, plan[below, VALUE]), plan[below, STRIDE]
        product(advance(x, first), 1, x_row, last - first, rows, delta, stride, padded, into, padded, into, padded)


@inlined
def accumulate(plan, into, work, lists, samples, rows, share):
    """into += the gradient's terms of all rows, for this share of every layer's weight rows.

    Dividing layers by columns instead, so that each core keeps to its own weights, was 1.5 times slower on 784-128-10
    with batch 32: half rows of 256 bytes make the cores fetch each other's lines ahead.

    into points to the parameters (the fused SGD step: the deltas carry -lr/n) or to a gradient buffer (they carry 1/n).
    """
    inputs, update = kind(samples, 0), samples.parts.update
    for layer in range(1, plan.shape[0]):
        units, padded, stride = plan[layer - 1, WIDTH], plan[layer, PADDED], plan[layer, STRIDE]
        delta, weight = pointer(work, plan[layer, SLOPE]), advance(into, plan[layer, WEIGHT])
        if layer == 1 and inputs == LISTED:
            blocks = sparse.blocks_of(units, padded)
            first, last = bounds(blocks, share, 1)
            entries, row = (pointer(lists.index, 0), pointer(lists.value, 0), pointer(lists.ends, 0)), plan[0, STRIDE]
            sparse.update_block(update, entries, row, rows, first, last, blocks, delta, stride, weight, padded, padded)
        else:
            first, last = bounds(units, share, LANES if layer == 1 and inputs == ZEROS else 1)
            into_rows = advance(weight, first * padded)
            accumulate_rows(plan, layer, into_rows, work, inputs, update, rows, share, first, last)
        if share[1] == share[2] and plan[layer, HAS_BIAS] != 0:
            add_rows(delta, stride, rows, padded, advance(into, plan[layer, BIAS]))
