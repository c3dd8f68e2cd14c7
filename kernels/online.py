"""One training step on one row, called from Python with the least overhead: the online-learning case.

Numba takes 15 us to look through the tuples of an epoch kernel, and 0.05 us for an array: so a book of addresses, made
once, stands for everything but the row itself.
"""

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from hotloop.kernels import epochs, lazy, network, regularize, updates
from hotloop.kernels.epochs import all_finite
from hotloop.kernels.jit import inner_with_arrays, jit
from hotloop.kernels.simd import pointer

# What the book holds, an address and a length each; the arrays must stay alive.
ARRAYS: tuple[str, ...] = ("plan", "order", "starts", "labels", "ends", "index", "meeting", "codes")  # integers
ARRAYS += ("rates", "clock", "dropout", "row_loss", "total", "constants")  # float64
ARRAYS += ("params", "targets", "weights", "work", "value", "overlaps", "table", "squares")  # of the parameters
ARRAYS += ("grad", "first", "second")
(PLAN, ORDER, STARTS, LABELS, ENDS, INDEX, MEETING, CODES, RATES, CLOCK, DROPOUT, ROW_LOSS, TOTAL, CONSTANTS,
 PARAMS, TARGETS, WEIGHTS, WORK, VALUE, OVERLAPS, TABLE, SQUARES, GRAD, FIRST, SECOND) = range(len(ARRAYS))  # fmt: skip


@intrinsic
def _pointer(typing, address, like):
    """The address as a pointer to elements of the type of `like`."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), codegen


@inner_with_arrays
def _array(book, place, like):
    """An array of the book, with elements of the type of `like`."""
    return carray(_pointer(book[2 * place], like), (book[2 * place + 1],))


@inner_with_arrays
def _matrix(book, place, columns, like):
    """The same as rows."""
    return carray(_pointer(book[2 * place], like), (book[2 * place + 1] // columns, columns))


@inner_with_arrays
def _open(address, x):
    """What an epoch kernel takes, for an epoch of the one row x; the book lies at this address."""
    real, double, whole, short = x[0], 0.0, np.int64(0), np.int32(0)
    book = _pointer(address, whole)
    plan = _matrix(book, PLAN, 9, whole)
    codes, constants = _array(book, CODES, whole), _array(book, CONSTANTS, double)
    index, value = _array(book, INDEX, short), _array(book, VALUE, real)
    net = network.Network(plan, _array(book, PARAMS, real))
    samples = network.Samples(
        network.Inputs(carray(pointer(x, 0), (1, x.shape[0])), value[:0], index[:0], _array(book, STARTS, whole)),
        _matrix(book, TARGETS, plan[plan.shape[0] - 1, network.WIDTH], real),
        _array(book, LABELS, short),
        _array(book, WEIGHTS, real),
        _array(book, ORDER, whole),
        codes[4],
    )
    rule = updates.Rule(
        codes[1],
        _array(book, RATES, double),
        constants[0],
        constants[1],
        constants[2],
        constants[3],
        _array(book, GRAD, real),
        _array(book, FIRST, real),
        _array(book, SECOND, real),
        _array(book, CLOCK, double),
        codes[5],
    )
    regular = regularize.Regular(
        constants[4],
        constants[5],
        constants[6],
        constants[7],
        constants[8],
        _array(book, DROPOUT, double),
        constants[9],
        codes[2],
        codes[3],
        regularize.Parts(codes[6], codes[7], codes[8], codes[9]),
    )
    scratch = epochs.Scratch(
        _array(book, WORK, real),
        network.Lists(index, value, _array(book, ENDS, short)),
        _array(book, ROW_LOSS, double),
        _matrix(book, OVERLAPS, 1, real),
        _array(book, TABLE, real),
        _array(book, SQUARES, real),
        _array(book, TOTAL, double),
        _array(book, MEETING, whole),
        lazy.Lazy(codes[:0], index[:0], codes[:0], lazy.Parts(0, 0)),
    )
    scratch.total[0] = 0.0
    codes[3] += 1  # every row is an epoch of its own to dropout and noise
    return net, samples, codes[0], rule, regular, scratch


@jit
def learn_direct(x, address):
    """One step of plain SGD on x (n_features,); the loss before it, or NaN for a row that is not finite: no step."""
    if not all_finite(x):
        return np.nan
    net, samples, loss, rule, regular, scratch = _open(address, x)
    return float(epochs.per_sample(net, samples, 0, 1, loss, rule, regular, scratch, 0, 1))


@jit
def learn(x, address):
    """The same for any rule and regularisation."""
    if not all_finite(x):
        return np.nan
    net, samples, loss, rule, regular, scratch = _open(address, x)
    return float(epochs.mini_batch(net, samples, 0, 1, 1, loss, rule, regular, scratch, 0, 1))
