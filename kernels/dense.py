"""Dense layers: forward, gradients and the fused update, for one row and for many.

z = x @ weight + bias; x (n, fan_in), weight (fan_in, fan_out), bias (fan_out,), out and delta (n, fan_out); float32 or
float64, all of one dtype, C-contiguous. `activation` is a code of `activations`. Nothing is checked here.

Order of every sum (so that bits depend on no tile, thread or machine): z begins with the bias and adds x[k] weight[k]
for ascending k; a weight begins with itself and adds x[b] delta[b] for ascending b; an input gradient runs along the
lanes: lane l adds delta[j] weight[j] for j = l, l + 16, ..., then the 16 lanes are added as a tree.
"""

from functools import partial

import numpy as np

from hotloop.kernels import activations
from hotloop.kernels.jit import inner, inner_with_arrays, jit
from hotloop.kernels.lines import add_lines, dots_lanes, transpose
from hotloop.kernels.simd import (
    DOT_ROWS,
    DOT_UNITS,
    LANES,
    SPARSE_VECTORS,
    TILE_ROWS,
    TILE_VECTORS,
    advance,
    cast,
    fma,
    make_buffer,
    pointer,
)
from hotloop.kernels.tiles import (
    copy_tile,
    dot,
    dots,
    dots_row,
    tile,
    tile_narrow,
    tile_row,
    tile_row_one,
    tile_row_pair,
)

TILE_WIDTH = LANES * TILE_VECTORS
ROW_WIDTH, PAIR = LANES * SPARSE_VECTORS, LANES * 2
DOTS = DOT_ROWS * DOT_UNITS
# Terms of a sum before the next tile: 256 rows of a 32-wide tile are 32 KB, a first-level cache.
DEPTH = 256
# Packing a panel pays from this many elements of rows x the weight's stride. GFLOP/s unpacked and packed, AVX-512: 32
# rows of 512-512 115 and 141, 128 rows of 784-128 153 and 161, 32 rows 159 and 139.
PACK = 1 << 14
# Elements that stay in the first-level cache while the weights of some units meet the deltas of DOT_ROWS rows, and
# elements of deltas that stay in the second-level cache for all weights. 1,024 rows of 1024-1024: 48 GFLOP/s without,
# 133 with; 32 rows of 784-128: 112 and 115.
NEAR, FAR = 10 << 10, 1 << 18

# Rows whole pages apart share a few sets of the first-level cache. From ROWS_APART on they are copied, so many at once:
# 1,024 rows of 1024-1024 at 0.78 of the speed of OpenBLAS without, 0.94 with copies.
PAGE, ROWS_APART = 4096, 256

panel_buffer = make_buffer(DEPTH * TILE_WIDTH)
lanes_buffer = make_buffer(LANES)
square_buffer = make_buffer(LANES * LANES)


@inner
def _wide(x, x_row, x_k, rows, depth, weight, weight_k, init, init_row, out, out_row):
    for r in range(0, rows, TILE_ROWS):
        at, into = advance(init, r * init_row), advance(out, r * out_row)
        tile(advance(x, r * x_row), x_row, x_k, weight, weight_k, at, init_row, into, out_row, depth)


@inner
def _narrow(x, x_row, x_k, rows, depth, weight, weight_k, init, init_row, out, out_row):
    for r in range(0, rows, TILE_ROWS):
        at, into = advance(init, r * init_row), advance(out, r * out_row)
        tile_narrow(advance(x, r * x_row), x_row, x_k, weight, weight_k, at, init_row, into, out_row, depth)


@inner
def row_product(x, x_k, depth, weight, weight_k, columns, init, out):
    """out[c] = init[c] + sum_k x[x_k k] weight[k, c] on pointers; columns a multiple of 16.

    As many columns at once as registers hold: a single chain would wait for each of its additions.
    """
    c = 0
    while c + ROW_WIDTH <= columns:
        tile_row(x, 0, x_k, advance(weight, c), weight_k, advance(init, c), 0, advance(out, c), 0, depth)
        c += ROW_WIDTH
    while c + PAIR <= columns:
        tile_row_pair(x, 0, x_k, advance(weight, c), weight_k, advance(init, c), 0, advance(out, c), 0, depth)
        c += PAIR
    if c < columns:
        tile_row_one(x, 0, x_k, advance(weight, c), weight_k, advance(init, c), 0, advance(out, c), 0, depth)


@inner
def _column(x, x_row, x_k, rows, depth, weight, weight_k, init, init_row, out, out_row):
    for r in range(rows):
        total = init[r * init_row]
        for k in range(depth):
            total = fma(x[r * x_row + k * x_k], weight[k * weight_k], total)
        out[r * out_row] = total


@inner
def product(x, x_row, x_k, rows, depth, weight, weight_k, columns, init, init_row, out, out_row):
    """out[r, c] = init[r, c] + sum_k x[r, k] weight[k, c] on pointers, in tiles; init may be out.

    x[r, k] lies at x_row r + x_k k, so a transposed x is read in place (one of the two must be 1); init_row = 0 repeats
    one row (the bias).
    Panels of a weight with long rows are packed first: rows a page apart fall into the same few sets of the cache.
    """
    tiled = rows - rows % TILE_ROWS
    full = columns - columns % LANES
    wide = columns - columns % TILE_WIDTH
    packed = rows * weight_k >= PACK
    panel = panel_buffer(weight)
    for k in range(0, depth, DEPTH):
        some, xs, ws = min(DEPTH, depth - k), advance(x, k * x_k), advance(weight, k * weight_k)
        for c in range(0, wide, TILE_WIDTH):
            at, into = advance(init, c), advance(out, c)
            source, source_k = advance(ws, c), weight_k
            if packed:
                copy_tile(source, weight_k, some, panel, TILE_WIDTH)
                source, source_k = panel, TILE_WIDTH
            _wide(xs, x_row, x_k, tiled, some, source, source_k, at, init_row, into, out_row)
        for c in range(wide, full, LANES):
            at, into = advance(init, c), advance(out, c)
            _narrow(xs, x_row, x_k, tiled, some, advance(ws, c), weight_k, at, init_row, into, out_row)
        for r in range(tiled, rows):
            at, into = advance(init, r * init_row), advance(out, r * out_row)
            row_product(advance(xs, r * x_row), x_k, some, ws, weight_k, full, at, into)
        for c in range(full, columns):
            at, into = advance(init, c), advance(out, c)
            _column(xs, x_row, x_k, rows, some, advance(ws, c), weight_k, at, init_row, into, out_row)
        init, init_row = out, out_row


@inner
def _lane_dot(delta, weight, width, lanes):
    """What `dot` computes, for any width: the same 16 chains, the same tree. lanes: vector of 16, overwritten."""
    for lane in range(LANES):
        lanes[lane] = cast(0.0, delta[0])
        for j in range(lane, width, LANES):
            lanes[lane] = fma(delta[j], weight[j], lanes[lane])
    half = LANES // 2
    while half > 0:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return lanes[0]


@inner
def _dots_block(delta, delta_row, rows, weight, weight_row, units, width, out, out_row):
    for r in range(0, rows, DOT_ROWS):
        back, into = advance(delta, r * delta_row), advance(out, r * out_row)
        for u in range(0, units, DOT_UNITS):
            dots(back, delta_row, advance(weight, u * weight_row), weight_row, advance(into, u), out_row, width)


@inner
def back_product(delta, delta_row, rows, weight, weight_row, units, width, out, out_row):
    """out[r, u] *= sum_{j < width} delta[r, j] weight[u, j] on pointers; width a multiple of 16.

    out holds the slope of each unit before, its delta after.
    """
    tiled_rows, tiled_units, row_units = rows - rows % DOT_ROWS, units - units % DOT_UNITS, units - units % DOTS
    if tiled_rows > 0:
        near = max(1, (NEAR // width - DOT_ROWS) // DOT_UNITS) * DOT_UNITS
        far = max(1, FAR // (width * DOT_ROWS)) * DOT_ROWS
        for r in range(0, tiled_rows, far):
            for u in range(0, tiled_units, near):
                back, block, into = advance(delta, r * delta_row), advance(weight, u * weight_row), r * out_row + u
                some, few = min(far, tiled_rows - r), min(near, tiled_units - u)
                _dots_block(back, delta_row, some, block, weight_row, few, width, advance(out, into), out_row)
    for r in range(tiled_rows):
        for u in range(tiled_units, units):
            at = advance(weight, u * weight_row)
            dot(advance(delta, r * delta_row), delta_row, at, weight_row, advance(out, r * out_row + u), out_row, width)
    for r in range(tiled_rows, rows):
        back = advance(delta, r * delta_row)
        for u in range(0, row_units, DOTS):
            at = advance(weight, u * weight_row)
            dots_row(back, delta_row, at, weight_row, advance(out, r * out_row + u), out_row, width)
        for u in range(row_units, units):
            at = advance(weight, u * weight_row)
            dot(back, delta_row, at, weight_row, advance(out, r * out_row + u), out_row, width)


@inner
def back_product_narrow(delta, delta_row, rows, weight, units, out, out_row):
    """back_product for a width of 16 and rows of 16 weights: 128 units, 32 rows 0.04 us a row instead of 0.1.

    Rows of out have room for whole lines of 16.
    """
    square = square_buffer(weight)
    for u in range(0, units, LANES):
        transpose(advance(weight, u * LANES), min(LANES, units - u), square)
        for r in range(rows):
            dots_lanes(advance(delta, r * delta_row), square, advance(out, r * out_row + u))


@inner
def _layer(x, x_row, rows, weight, bias, activation, z):
    """z = f(x @ weight + bias) for so many rows; x and z are pointers."""
    fan_in, columns = weight.shape
    product(x, x_row, 1, rows, fan_in, pointer(weight, 0), columns, columns, pointer(bias, 0), 0, z, columns)
    if activation == activations.SOFTMAX:
        for r in range(rows):
            activations.softmax(advance(z, r * columns), columns, advance(z, r * columns))
    else:
        activations.apply_in_place(activation, z, rows * columns)


@inner_with_arrays
def _layer_apart(x, weight, bias, activation, out):
    """The same by copies of ROWS_APART rows, which lie LANES elements further apart."""
    rows, fan_in = x.shape
    copy = np.empty((ROWS_APART, fan_in + LANES), x.dtype)
    for first in range(0, rows, ROWS_APART):
        some = min(ROWS_APART, rows - first)
        copy[:some, :fan_in] = x[first : first + some]
        z = pointer(out, first * weight.shape[1])
        _layer(pointer(copy, 0), fan_in + LANES, some, weight, bias, activation, z)


@partial(jit, inside=inner_with_arrays)
def forward(x, weight, bias, activation, out):
    """out = f(x @ weight + bias) for x (n, fan_in); writes out (n, fan_out)."""
    rows, fan_in = x.shape
    if rows >= ROWS_APART and fan_in * x.itemsize % PAGE == 0:
        _layer_apart(x, weight, bias, activation, out)
    else:
        _layer(pointer(x, 0), fan_in, rows, weight, bias, activation, pointer(out, 0))


@jit
def forward_row(x, weight, bias, activation, out):
    """out = f(x @ weight + bias) for one row x (fan_in,); writes out (fan_out,)."""
    _layer(pointer(x, 0), weight.shape[0], 1, weight, bias, activation, pointer(out, 0))


@inner
def add_outer(x, depth, delta, weight, weight_row, columns):
    """weight[k, c] += x[k] delta[c] on pointers."""
    for k in range(depth):
        row = advance(weight, k * weight_row)
        for c in range(columns):
            row[c] = fma(x[k], delta[c], row[c])


@inner
def add_rows(delta, delta_row, rows, columns, bias):
    """bias[c] += sum_r delta[r, c] on pointers, in ascending r."""
    whole = columns - columns % LANES
    for c in range(0, whole, LANES):
        add_lines(advance(delta, c), delta_row, rows, advance(bias, c))
    for c in range(whole, columns):
        for r in range(rows):
            bias[c] += delta[r * delta_row + c]


@jit
def update(x, delta, weight, bias):
    """weight += x.T @ delta, bias += the column sums of delta, in place: an SGD step if delta holds -lr/n dloss/dz."""
    rows, fan_in = x.shape
    columns = weight.shape[1]
    back, into = pointer(delta, 0), pointer(weight, 0)
    product(pointer(x, 0), 1, fan_in, fan_in, rows, back, columns, columns, into, columns, into, columns)
    add_rows(back, columns, rows, columns, pointer(bias, 0))


@jit
def update_row(x, delta, weight, bias):
    """weight += outer(x, delta) and bias += delta for one row x (fan_in,), delta (fan_out,), in place."""
    fan_in, columns = weight.shape
    back = pointer(delta, 0)
    add_outer(pointer(x, 0), fan_in, back, pointer(weight, 0), columns, columns)
    add_rows(back, columns, 1, columns, pointer(bias, 0))


@jit
def weight_gradient(x, delta, dweight, dbias):
    """dweight = x.T @ delta, dbias = the column sums of delta; writes dweight (fan_in, fan_out), dbias (fan_out,)."""
    dweight[:] = 0
    dbias[:] = 0
    update(x, delta, dweight, dbias)


@jit
def weight_gradient_row(x, delta, dweight, dbias):
    """dweight = outer(x, delta) and dbias = delta for one row; writes dweight (fan_in, fan_out), dbias (fan_out,)."""
    dweight[:] = 0
    dbias[:] = 0
    update_row(x, delta, dweight, dbias)


@inner
def _input_gradient(delta, rows, weight, units, width, out):
    back, block, into = pointer(delta, 0), pointer(weight, 0), pointer(out, 0)
    if width % LANES == 0:
        for i in range(rows * units):
            into[i] = cast(1.0, into[i])
        back_product(back, width, rows, block, width, units, width, into, units)
        return
    lanes = lanes_buffer(into)
    for r in range(rows):
        for u in range(units):
            into[r * units + u] = _lane_dot(advance(back, r * width), advance(block, u * width), width, lanes)


@jit
def input_gradient(delta, weight, out):
    """out = delta @ weight.T for delta (n, fan_out); writes out (n, fan_in)."""
    _input_gradient(delta, delta.shape[0], weight, weight.shape[0], weight.shape[1], out)


@jit
def input_gradient_row(delta, weight, out):
    """out = delta @ weight.T for one row delta (fan_out,); writes out (fan_in,)."""
    _input_gradient(delta, 1, weight, weight.shape[0], weight.shape[1], out)
