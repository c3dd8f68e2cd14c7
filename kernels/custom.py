"""Calls of activations and losses by address: those of a user, and the library's own that few networks have.

An activation's code is then the address of two function addresses (values; values and slopes), a loss's code that of
its function. One indirect call for each row of units costs about 2 ns; the loops behind it are vectorised all the same.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from hotloop.kernels.jit import call, inner
from hotloop.kernels.simd import at_address, make_buffer

LEAST_CODE = 1 << 12  # codes from here on are addresses; nothing is ever mapped so low

_one = make_buffer(1)


@intrinsic
def _data(typing, row):
    """The pointer itself, or one to the first element of an array."""
    if isinstance(row, types.CPointer):
        return row(row), lambda context, builder, signature, args: args[0]
    return types.CPointer(row.dtype)(
        row
    ), lambda context, builder, signature, args: context.make_array(row)(context, builder, args[0]).data


def activation_kinds(real):
    """The types of the arguments of an activation's two functions: (z, n) and (z, n, slope)."""
    at = types.CPointer(real)
    return (at, types.int64), (at, types.int64, at)


def loss_kinds(real):
    """The types of the arguments of a loss: (prediction, target, label, k, delta, value), value[0] what it gives."""
    at = types.CPointer(real)
    return at, at, types.int64, types.int64, at, at


@inner
def apply(code, z, n):
    """z[i] = f(z[i]) for i < n."""
    call(at_address(code, code)[0], (_data(z), np.int64(n)))


@inner
def activate(code, z, n, slope):
    """z[i], slope[i] = f(z[i]), f'(z[i]) for i < n."""
    call(at_address(code, code)[1], (_data(z), np.int64(n), _data(slope)))


@inner
def row(code, prediction, target, label, k, delta):
    """The value of one row's loss; writes delta (k,). A row of targets, or a label, as for the library's losses."""
    p = _data(prediction)
    value = _one(p)
    call(code, (p, _data(target), np.int64(label), np.int64(k), _data(delta), value))
    return value[0]
