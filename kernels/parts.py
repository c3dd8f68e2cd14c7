"""Where the code is that a training calls for its kind of inputs and its loss: compiled, or loaded, when asked for."""

from functools import cache

import numpy as np
from numba import typeof, types
from numba.np.numpy_support import from_dtype
from numpy.typing import DTypeLike

from hotloop.kernels import losses, network, outputs, sparse, zeros
from hotloop.kernels.jit import address
from hotloop.kernels.loading import ALL, ZEROS, kind
from hotloop.kernels.plan import Inputs, Parts, Samples


@cache
def of_inputs(inputs: int, window: int, compressed: bool, dtype: DTypeLike) -> Parts:
    """The code for this kind of inputs and parameters of this dtype; window 0 for mini-batches."""
    if inputs == ALL:
        return Parts()
    size, real, count = types.int64, types.CPointer(from_dtype(np.dtype(dtype))), types.CPointer(types.int32)
    if inputs == ZEROS:
        matrices = (real, size, real, size, size)
        ahead = (real, types.CPointer(types.int64), size)
        return Parts(
            address(zeros.forward_zeros, real, size, size, size, real, size, size, real, size, *ahead),
            address(zeros.update_zeros, real, size, size, size, size, *matrices),
            first_layer=_first_layer(dtype) if window == 0 else 0,
        )
    if not compressed:  # windows of one sample
        return Parts(load=address(sparse.load_dense, real, size, size, count, real, count))
    if window == 1:  # read where they are
        return Parts()
    entries, block = types.Tuple((count, real)), (size,) * 5
    lists = types.Tuple((count, real, count))
    overlaps = (entries, count, size, size, size, size, real, real)
    return Parts(
        address(sparse.forward_part, lists, *block, real, size, size, real, size),
        address(sparse.update_part, lists, *block, real, size, real, size, size),
        address(sparse.overlaps, *overlaps) if window > 1 else 0,
        address(sparse.load_listed, count, real, size, size, size, count, real, count),
    )


def _first_layer(dtype: DTypeLike) -> int:
    vector, whole, short = np.zeros(0, dtype), np.zeros(0, np.int64), np.zeros(0, np.int32)
    matrix, size = vector.reshape(0, 1), types.int64
    samples = Samples(Inputs(matrix, vector, short, whole), matrix, short, vector, whole, 0)
    plan, share = types.int64[:, ::1], types.UniTuple(size, 3)
    given = plan, typeof(vector), typeof(vector), typeof(samples), size, size, share, typeof(whole), size, size
    return address(network.forward_zeros, *given)


@cache
def of_loss(loss: int, dtype: DTypeLike) -> int:
    """The code for a loss, which is `losses.ready`; 0 for the one that the epoch kernels hold themselves."""
    if loss == losses.CROSS_ENTROPY_CLASS:
        return 0
    real, size = from_dtype(np.dtype(dtype)), types.int64
    at, shape = types.CPointer(real), types.UniTuple(size, 3)
    return address(outputs.row_delta, at, at, shape, at, size, size, real, real, types.CPointer(types.float64))


def ready(samples: Samples, window: int, loss: int) -> Samples:
    """The samples with the addresses of the code for their kind of inputs and for this loss, which is `losses.ready`.

    window 0 for mini-batches.
    """
    dtype = samples.inputs.X.dtype
    found = of_inputs(kind(samples, window), window, len(samples.inputs.start) > 0, dtype)
    return samples._replace(parts=found._replace(delta=of_loss(loss, dtype)))
