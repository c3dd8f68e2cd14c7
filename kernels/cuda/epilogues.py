"""What becomes of the sums of a tile: bias and activation in the registers, before they are written once.

The rectifier and the identity are applied there. Any other activation follows in a loop over the elements a thread has
just written: written out for each of its up to 64 sums, ten activations would not fit the instruction cache.
"""

from functools import cache
from typing import Any

from hotloop.kernels import activations as cpu
from hotloop.kernels.cuda.activations import activate, relu
from hotloop.kernels.cuda.shim import device
from hotloop.kernels.cuda.tiles import Tile

RELU, IDENTITY, SOFTMAX = cpu.RELU, cpu.IDENTITY, cpu.SOFTMAX


@cache
def make_finish(tile: Tile, each: int) -> Any:
    """`finish` writes f(acc), for the tile at a corner of an array from a base."""
    area, store, row, column = tile.area, tile.store, tile.row, tile.column

    @device
    def finish(bounds, corner, activation, acc, out, base, ld):
        if activation == RELU:
            for i in range(area):
                acc[i] = relu(acc[i])[0]
        store(bounds, corner, acc, out, base, ld)
        if activation not in (RELU, IDENTITY, SOFTMAX):
            for i in range(area):
                r, c = corner[0] + row(i // each), corner[1] + column(i % each)
                if r < bounds[0] and c < bounds[1]:
                    at = base + r * ld + c
                    out[at] = activate(activation, out[at])[0]

    return finish
