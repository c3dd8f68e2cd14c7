"""What becomes of the sums of a tile: bias and activation in the registers, before they are written once.

The rectifier and the identity are applied there. Any other activation follows in a loop over the elements a thread has
just written: written out for each of its up to 64 sums, ten activations would not fit the instruction cache.
"""

from functools import cache
from typing import Any

from hotloop.kernels import activations as cpu
from hotloop.kernels.cuda.shim import device, shared
from hotloop.kernels.cuda.tiles import Tile

RELU, IDENTITY, SOFTMAX = cpu.RELU, cpu.IDENTITY, cpu.SOFTMAX

_relu, _leaky_relu, _elu, _step = shared(cpu.relu), shared(cpu.leaky_relu), shared(cpu.elu), shared(cpu.step)
_sigmoid, _tanh, _gelu = shared(cpu.sigmoid), shared(cpu.tanh), shared(cpu.gelu)
_silu, _softplus, _identity = shared(cpu.silu), shared(cpu.softplus), shared(cpu.identity)


@device
def activate(code, z):
    """f(z) and f'(z) by the code of the activation; SOFTMAX counts as the identity."""
    if code == cpu.RELU:
        return _relu(z)
    if code == cpu.SIGMOID:
        return _sigmoid(z)
    if code == cpu.TANH:
        return _tanh(z)
    if code == cpu.STEP:
        return _step(z)
    if code == cpu.LEAKY_RELU:
        return _leaky_relu(z)
    if code == cpu.ELU:
        return _elu(z)
    if code == cpu.GELU:
        return _gelu(z)
    if code == cpu.SILU:
        return _silu(z)
    if code == cpu.SOFTPLUS:
        return _softplus(z)
    return _identity(z)


@cache
def make_finish(tile: Tile, each: int) -> tuple[Any, Any]:
    """`finish` writes f(acc), `finish_slope` f(acc) and f'(acc), for the tile at a corner of arrays from a base."""
    area, store, row, column = tile.area, tile.store, tile.row, tile.column

    @device
    def finish(bounds, corner, activation, acc, out, base, ld):
        if activation == RELU:
            for i in range(area):
                acc[i] = _relu(acc[i])[0]
        store(bounds, corner, acc, out, base, ld)
        if activation != RELU and activation != IDENTITY and activation != SOFTMAX:
            for i in range(area):
                r, c = corner[0] + row(i // each), corner[1] + column(i % each)
                if r < bounds[0] and c < bounds[1]:
                    at = base + r * ld + c
                    out[at] = activate(activation, out[at])[0]

    @device
    def finish_slope(bounds, corner, activation, acc, out, base, slope, slope_base, ld):
        one, zero = out.dtype.type(1), out.dtype.type(0)
        if activation == RELU:
            for i in range(area):
                acc[i] = _relu(acc[i])[0]
        store(bounds, corner, acc, out, base, ld)
        if activation == RELU or activation == IDENTITY or activation == SOFTMAX:
            for i in range(area):
                acc[i] = zero if activation == RELU and acc[i] <= zero else one
            store(bounds, corner, acc, slope, slope_base, ld)
        else:
            for i in range(area):
                r, c = corner[0] + row(i // each), corner[1] + column(i % each)
                if r < bounds[0] and c < bounds[1]:
                    at = r * ld + c
                    out[base + at], slope[slope_base + at] = activate(activation, out[base + at])

    return finish, finish_slope
