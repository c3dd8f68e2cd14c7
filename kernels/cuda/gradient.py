"""The gradient of a batch on the GPU, added to the parameters or written to slices of a buffer.

A slice holds the terms of a part of the rows: with few weights and many rows, more blocks have something to do. The
slices are added in ascending order when the parameters move, so the bits depend on their number alone.
"""

from functools import cache
from typing import Any

from numba import uint32

from hotloop.kernels.cuda.dense import FEW, SIDE
from hotloop.kernels.cuda.network import values
from hotloop.kernels.cuda.shim import cuda, device, fma
from hotloop.kernels.cuda.tiles import make_tile
from hotloop.kernels.cuda.vectors import load4, store4
from hotloop.kernels.plan import HAS_BIAS, PADDED, SLOPE, STRIDE, WEIGHT, WIDTH

U = uint32


@cache
def _make_tiles(each: int, tf32: bool) -> Any:
    tile = make_tile(SIDE, each, False, False, True, tf32)
    size, area, accumulate, start, store = tile.size, tile.area, tile.accumulate, tile.start, tile.store

    @device
    def gradient_tiles(plan, into, work, layer, x, rows, slices, adds, item, blocks, panels):
        """This block's tiles of one layer, from item on; return how many items the next layer's begin later."""
        acc = cuda.local.array(area, work.dtype)
        units, columns = U(plan[layer - 1, WIDTH] + plan[layer, HAS_BIAS]), U(plan[layer, WIDTH])
        x_ld, d_ld, ld = U(plan[layer - 1, STRIDE]), U(plan[layer, STRIDE]), U(plan[layer, PADDED])
        across = (columns + U(size - 1)) // U(size)
        tiles = (units + U(size - 1)) // U(size) * across
        some = (U(rows) + slices * U(16) - U(1)) // (slices * U(16)) * U(16)
        while item < tiles * slices:
            part, at = item // tiles, item % tiles
            corner = at // across * U(size), at % across * U(size)
            first = min(part * some, U(rows))
            bounds = units, columns, first, min(first + some, U(rows))
            base = part * (into.shape[0] // slices) + plan[layer, WEIGHT]
            if adds:
                start(bounds, corner, into, base, ld, acc)
            else:
                for e in range(area):
                    acc[e] = work.dtype.type(0)
            accumulate(work, x, x_ld, work, plan[layer, SLOPE], d_ld, bounds, corner, panels, acc)
            store(bounds, corner, acc, into, base, ld)
            item += U(blocks)
        return item - tiles * slices

    return gradient_tiles


@device
def _few(plan, into, work, layer, x, rows, adds, block, blocks):
    """The terms of a few rows: a stream over the weights, four at a time."""
    units, padded = plan[layer - 1, WIDTH] + plan[layer, HAS_BIAS], plan[layer, PADDED]
    quads, zero = U(padded // 4), work.dtype.type(0)
    x_ld, d_ld = U(plan[layer - 1, STRIDE]), U(plan[layer, STRIDE])
    for i in range(block * cuda.blockDim.x + cuda.threadIdx.x, units * quads, blocks * cuda.blockDim.x):
        k, c = U(i) // quads, U(i) % quads * U(4)
        at = k * U(padded) + c
        a, b, e, f = load4(into, at, plan[layer, WEIGHT]) if adds else (zero, zero, zero, zero)
        for r in range(rows):
            value, d = work[x + U(r) * x_ld + k], load4(work, U(r) * d_ld + c, plan[layer, SLOPE])
            a, b, e, f = fma(value, d[0], a), fma(value, d[1], b), fma(value, d[2], e), fma(value, d[3], f)
        store4(into, at, plan[layer, WEIGHT], (a, b, e, f))


@cache
def make_accumulate(tf32: bool = False) -> Any:
    """`accumulate`; tf32: with the tiles of `tensor`."""
    tiles_2, tiles_4 = _make_tiles(2, tf32), _make_tiles(4, tf32)

    @device
    def accumulate(plan, into, work, rows, parity, slices, adds, block, blocks, panels):
        """into (adds: +=, else =) the terms of these rows, for this block's share of all layers.

        into: the parameters (the fused SGD step: the deltas carry -lr/n), or `slices` buffers of their size. The
        padding of the last columns stays as it is: the deltas' own is zero.
        """
        item = U(block)
        for layer in range(1, plan.shape[0]):
            x, size = values(plan, layer - 1, parity), 4 * SIDE
            tiles = (plan[layer - 1, WIDTH] + size) // size * ((plan[layer, WIDTH] + size - 1) // size)
            if rows < FEW and slices == U(1):
                _few(plan, into, work, layer, x, rows, adds, block, blocks)
            elif tiles * slices >= blocks and plan[layer, WIDTH] > 2 * SIDE:
                item = tiles_4(plan, into, work, layer, x, rows, slices, adds, item, blocks, panels)
            else:
                item = tiles_2(plan, into, work, layer, x, rows, slices, adds, item, blocks, panels)

    return accumulate
