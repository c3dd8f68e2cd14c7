"""Forward and backward through all layers on the GPU, over the plan of `hotloop.kernels.network`.

The functions are for a whole block of threads to call; `block` of `blocks` does its share. Rows are those of the block
of samples in the workspace, which differs from the CPU's in two things: the input's SLOPE region is a second one of
values, so that the next rows can be loaded while these are used, and every row has room for a 1 behind its values, so
that a bias is the last row of its weights in the gradient's product.
"""

from functools import cache
from typing import Any

from numba import uint32

from hotloop.kernels.activations import SOFTMAX
from hotloop.kernels.cuda import activations, custom, regularize, strips
from hotloop.kernels.cuda.dense import FEW, SIDE, STRIP
from hotloop.kernels.cuda.shim import cuda, device, fma
from hotloop.kernels.cuda.tiles import make_tile
from hotloop.kernels.plan import ACTIVATION, BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH

U = uint32
STRIP_TILES = 4  # fewer 32 x 32 tiles than blocks / 4: strips of a few rows keep more blocks busy
SHARED = max(make_tile(SIDE, each, True, False, True).shared for each in (2, 4))

_strip, _group = strips.make_strip(True), strips.GROUP


@device
def values(plan, layer, parity):
    """Where the values of a layer begin; the input's have two places."""
    return plan[0, SLOPE] if layer == 0 and parity != 0 else plan[layer, VALUE]


@device
def _load_row(plan, work, inputs, sample, row):
    """Bring one sample, dense or compressed, to work[row:]; by all threads of a block."""
    X, entry_values, entry_indices, entry_starts = inputs
    for j in range(cuda.threadIdx.x, plan[0, WIDTH], cuda.blockDim.x):
        work[row + j] = X[sample, j] if entry_starts.shape[0] == 0 else work.dtype.type(0)
    if entry_starts.shape[0] > 0:
        cuda.syncthreads()
        for i in range(entry_starts[sample] + cuda.threadIdx.x, entry_starts[sample + 1], cuda.blockDim.x):
            work[row + entry_indices[i]] = entry_values[i]


@cache
def make_load_rows(noisy: bool) -> Any:
    """`load_rows` with input noise or without: its draws are of float64, which no other kernel of float32 uses."""

    @device
    def load_rows(plan, work, samples, regular, position, rows, parity, block, blocks):
        """Bring the samples at position .. position + rows of the order into the input rows, as training sees them."""
        base = values(plan, 0, parity)
        for r in range(block, rows, blocks):
            row = base + r * plan[0, STRIDE]
            _load_row(plan, work, samples.inputs, samples.order[position + r], row)
            if noisy:
                cuda.syncthreads()
                regularize.add_noise(plan, work, regular, position + r, row)
            if regularize.drops(regular, 0):
                cuda.syncthreads()
                regularize.drop_inputs(plan, work, regular, position + r, row)

    return load_rows


@device
def load_inputs(plan, work, inputs, first, rows, origin):
    """Bring the samples first .. first + rows into the input rows of this block's workspace."""
    for r in range(rows):
        _load_row(plan, work, inputs, first + r, origin + plan[0, VALUE] + r * plan[0, STRIDE])


@device
def choose(rows, columns, blocks):
    """4 or 2: the thread tile of a product; 0: strips."""
    if rows < FEW:
        return 0
    size = 4 * SIDE
    if (
        rows > size // 2
        and columns > size // 2
        and (rows + size - 1) // size * ((columns + size - 1) // size) >= blocks
    ):
        return 4
    size = 2 * SIDE
    return 2 if (rows + size - 1) // size * ((columns + size - 1) // size) * STRIP_TILES >= blocks else 0


@cache
def _make_forward_tiles(each: int, tf32: bool) -> Any:
    tile = make_tile(SIDE, each, True, False, True, tf32)
    size, area, accumulate, start, store = tile.size, tile.area, tile.accumulate, tile.start_row, tile.store

    @device
    def forward_tiles(plan, params, work, x, layer, value, bounds, block, blocks, panels):
        acc = cuda.local.array(area, work.dtype)
        rows, columns = bounds[0], bounds[1]
        x_ld, ld = U(plan[layer - 1, STRIDE]), U(plan[layer, PADDED])
        across = (columns + U(size - 1)) // U(size)
        for i in range(block, (rows + U(size - 1)) // U(size) * across, blocks):
            corner = U(i) // across * U(size), U(i) % across * U(size)
            start(bounds, corner, params, plan[layer, BIAS], acc)
            accumulate(work, x, x_ld, params, plan[layer, WEIGHT], ld, bounds, corner, panels, acc)
            store(bounds, corner, acc, work, value, U(plan[layer, STRIDE]))

    return forward_tiles


@device
def _forward_strips(plan, params, work, x, layer, value, bounds, width, block, blocks, panels):
    rows, columns, depth = bounds[0], bounds[1], bounds[3]
    x_ld, ld = U(plan[layer - 1, STRIDE]), U(plan[layer, PADDED])
    across = (columns + width - U(1)) // width
    for i in range(block, (rows + U(_group - 1)) // U(_group) * across, blocks):
        corner = U(i) // across * U(_group), U(i) % across * width
        _strip(work, x, x_ld, params, plan[layer, WEIGHT], ld, (rows, columns, depth), corner, width, panels)
        for e in range(cuda.threadIdx.x, _group * width, cuda.blockDim.x):
            r, c = corner[0] + U(e) // width, corner[1] + U(e) % width
            if r < rows and c < columns:
                total = strips.strip_total(params[plan[layer, BIAS] + c], U(e), width, panels)
                work[value + r * plan[layer, STRIDE] + c] = total
        cuda.syncthreads()


@cache
def make_forward(own: tuple[custom.Activation, ...] = (), tf32: bool = False) -> Any:
    """`forward` for a network with these activations of the user's own; tf32: the tiles of `tensor`."""
    activate = custom.make_activate(own)
    forward_2, forward_4 = _make_forward_tiles(2, tf32), _make_forward_tiles(4, tf32)

    @device
    def apply(code, work, value, slope, stride, rows, columns, height, width, block, blocks):
        """Turn z into a = f(z), and write the slopes, for the tiles or strips of this block.

        A pass of its own: ten activations behind each of three products would make most of the code.
        """
        across = (columns + width - U(1)) // width
        for i in range(block, (rows + height - U(1)) // height * across, blocks):
            top, left = U(i) // across * height, U(i) % across * width
            for e in range(cuda.threadIdx.x, height * width, cuda.blockDim.x):
                r, c = top + U(e) // width, left + U(e) % width
                if r < rows and c < columns:
                    at = r * stride + c
                    work[value + at], work[slope + at] = activate(code, work[value + at])

    @device
    def forward(plan, params, work, layer, begin, end, parity, origin, block, blocks, panels):
        """Rows begin .. end through one layer: values and slopes; the height and width of the tiles it made."""
        rows, columns, stride = U(end - begin), U(plan[layer, WIDTH]), U(plan[layer, STRIDE])
        bounds = rows, columns, U(0), U(plan[layer - 1, WIDTH])
        x = origin + values(plan, layer - 1, parity) + begin * plan[layer - 1, STRIDE]
        first = origin + begin * plan[layer, STRIDE]
        value, slope = first + plan[layer, VALUE], first + plan[layer, SLOPE]
        each = choose(end - begin, plan[layer, WIDTH], blocks)
        height, width = U(each * SIDE), U(each * SIDE)
        if each == 4:
            forward_4(plan, params, work, x, layer, value, bounds, block, blocks, panels)
        elif each == 2:
            forward_2(plan, params, work, x, layer, value, bounds, block, blocks, panels)
        else:
            height, width = U(_group), U(16) if columns <= U(16) else U(STRIP)
            _forward_strips(plan, params, work, x, layer, value, bounds, width, block, blocks, panels)
        cuda.syncthreads()
        apply(plan[layer, ACTIVATION], work, value, slope, stride, rows, columns, height, width, block, blocks)
        return height, width

    return forward


@cache
def make_output_delta(own: custom.Loss | None = None, apart: bool = False) -> Any:
    """`output_delta` for the library's losses or one of the user's own.

    apart: it writes its delta into the second half of the output's rows, which are twice as long then.
    """
    row = custom.make_row(own)

    @device
    def output_delta(plan, work, truth, sample, r, loss, scale):
        """The weighted loss of row r, whose truth (targets, labels, weights) is `sample`'s; by one thread.

        The row's output slope becomes scale dloss/dz. targets (n, k), or (1, k) where the loss takes labels.
        """
        targets, labels, weights = truth
        top = plan.shape[0] - 1
        k = plan[top, WIDTH]
        first, second = plan[top, VALUE] + r * plan[top, STRIDE], plan[top, SLOPE] + r * plan[top, STRIDE]
        a, delta = work[first : first + k], work[second : second + k]
        target = targets[sample if targets.shape[0] > 1 else 0]
        label = labels[sample] if labels.shape[0] > 0 else 0
        softmax = plan[top, ACTIVATION] == SOFTMAX  # without its fused loss: the full Jacobian
        if softmax:
            activations.softmax(a, k, a)
        into = second if softmax else first
        if apart:
            into = first + plan[top, STRIDE] // 2
        slopes = work[into : into + k]
        value = row(loss, a, target, label, k, slopes)
        if weights.shape[0] > 0:
            value, scale = value * weights[sample], scale * weights[sample]
        if softmax:
            mean = work.dtype.type(0)
            for j in range(k):
                mean = fma(a[j], slopes[j], mean)
            for j in range(k):
                delta[j] = a[j] * (slopes[j] - mean) * scale
        else:
            for j in range(k):
                delta[j] *= slopes[j] * scale
        return value

    return output_delta


@cache
def _make_backward_tiles(each: int, tf32: bool) -> Any:
    tile = make_tile(SIDE, each, True, True, True, tf32)
    size, area, accumulate, row, column = tile.size, tile.area, tile.accumulate, tile.row, tile.column

    @device
    def backward_tiles(plan, params, work, layer, begin, bounds, block, blocks, panels):
        acc = cuda.local.array(area, work.dtype)
        rows, columns = bounds[0], bounds[1]
        delta, d_ld = plan[layer, SLOPE] + begin * plan[layer, STRIDE], U(plan[layer, STRIDE])
        slope, s_ld = plan[layer - 1, SLOPE] + begin * plan[layer - 1, STRIDE], U(plan[layer - 1, STRIDE])
        weight, w_ld = plan[layer, WEIGHT], U(plan[layer, PADDED])
        across = (columns + U(size - 1)) // U(size)
        for i in range(block, (rows + U(size - 1)) // U(size) * across, blocks):
            corner = U(i) // across * U(size), U(i) % across * U(size)
            for e in range(area):
                acc[e] = work.dtype.type(0)
            accumulate(work, delta, d_ld, params, weight, w_ld, bounds, corner, panels, acc)
            for a in range(each):
                for b in range(each):
                    r, c = corner[0] + row(a), corner[1] + column(b)
                    if r < rows and c < columns:
                        work[slope + r * s_ld + c] *= acc[a * each + b]

    return backward_tiles


@device
def _backward_dots(plan, params, work, layer, begin, bounds, block, blocks, panels):
    rows, units, width = bounds[0], bounds[1], bounds[3]
    lanes = strips.lanes_of(width)
    groups = U(cuda.blockDim.x) // lanes
    for i in range(block, (rows * units + groups - U(1)) // groups, blocks):
        item = U(i) * groups + U(cuda.threadIdx.x) // lanes
        r, u = min(item // units, rows - U(1)), item % units
        delta = plan[layer, SLOPE] + (begin + r) * plan[layer, STRIDE]
        total = strips.dot(work, delta, params, plan[layer, WEIGHT] + u * plan[layer, PADDED], width, lanes, panels)
        if item < rows * units and U(cuda.threadIdx.x) % lanes == U(0):
            work[plan[layer - 1, SLOPE] + (begin + r) * plan[layer - 1, STRIDE] + u] *= total


@cache
def make_backward(tf32: bool = False) -> Any:
    """`backward`; tf32: with the tiles of `tensor`."""
    backward_2, backward_4 = _make_backward_tiles(2, tf32), _make_backward_tiles(4, tf32)

    @device
    def backward(plan, params, work, layer, begin, end, block, blocks, panels):
        """Deltas of rows begin .. end of the layer below `layer`, which hold its slopes, by the weights as they are."""
        rows, units = end - begin, plan[layer - 1, WIDTH]
        bounds = U(rows), U(units), U(0), U(plan[layer, WIDTH])
        each = choose(rows, units, blocks)
        if each == 4:
            backward_4(plan, params, work, layer, begin, bounds, block, blocks, panels)
        elif each == 2:
            backward_2(plan, params, work, layer, begin, bounds, block, blocks, panels)
        else:
            _backward_dots(plan, params, work, layer, begin, bounds, block, blocks, panels)

    return backward
