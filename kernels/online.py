"""One training step on one row, called from Python with the least overhead: the online-learning case.

Numba takes 15 us to look through the tuples of an epoch kernel, and 0.05 us for an array: so a book of addresses, made
once, stands for everything but the row itself.
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hotloop.kernels import epochs, lazy, network, outputs, regularize, steps, updates
from hotloop.kernels.inference import all_finite
from hotloop.kernels.jit import brief, inner
from hotloop.kernels.plan import COLUMNS, SLOPE, VALUE, WIDTH, Inputs, Lists, Network, Parts, Samples
from hotloop.kernels.simd import advance, at_address, cast, pointer

# What the book holds, an address and a length each; the arrays must stay alive.
ARRAYS: tuple[str, ...] = ("plan", "order", "starts", "labels", "ends", "index", "meeting", "codes")  # integers
ARRAYS += ("rates", "clock", "dropout", "row_loss", "total", "constants")  # float64
ARRAYS += ("row", "params", "targets", "weights", "work", "value", "overlaps", "table", "squares")  # of the parameters
ARRAYS += ("grad", "first", "second")
_PLACES = range(0, 2 * len(ARRAYS), 2)
(PLAN, ORDER, STARTS, LABELS, ENDS, INDEX, MEETING, CODES, RATES, CLOCK, DROPOUT, ROW_LOSS, TOTAL, CONSTANTS, ROW,
 PARAMS, TARGETS, WEIGHTS, WORK, ENTRIES, OVERLAPS, TABLE, SQUARES, GRAD, FIRST, SECOND) = _PLACES  # fmt: skip

LARGE = 20_000  # parameters, several us of work: from there on the interpreter's lock is free meanwhile
_release = types.ExternalFunction("PyEval_SaveThread", types.intp())
_take = types.ExternalFunction("PyEval_RestoreThread", types.void(types.intp))


def _make(context, builder, kind, entry, columns):
    """The array of this type at an entry of the book, one row or so many columns; nobody counts references to it."""
    from numba.np.arrayobj import populate_array  # only what compiles needs it: loading it takes 0.2 s

    array = context.make_array(kind)(context, builder)
    address, size = (builder.load(cgutils.gep_inbounds(builder, entry, i)) for i in range(2))
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    shape, strides = [size], [itemsize]
    if columns is not None:
        shape, strides = [builder.sdiv(size, columns), columns], [builder.mul(itemsize, columns), itemsize]
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


@intrinsic
def _address(typing, x):
    """Where the elements of an array begin."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(
            context.make_array(x)(context, builder, args[0]).data, context.get_value_type(types.int64)
        )

    return types.int64(x), codegen


@intrinsic
def _array(typing, entry, like):
    """The array of an entry of the book, with elements of the type of `like`."""
    return types.Array(like, 1, "C")(entry, like), lambda context, builder, signature, args: _make(
        context, builder, signature.return_type, args[0], None
    )


@intrinsic
def _matrix(typing, entry, columns, like):
    """The same as rows of so many columns."""
    return types.Array(like, 2, "C")(entry, types.int64, like), lambda context, builder, signature, args: _make(
        context, builder, signature.return_type, args[0], args[1]
    )


@inner
def _open(address, x):
    """What an epoch kernel takes, for an epoch of the one row x; the book lies at this address."""
    real, double, whole, short = x[0], 0.0, np.int64(0), np.int32(0)
    book = at_address(address, whole)
    plan = _matrix(advance(book, PLAN), COLUMNS, whole)
    codes, constants = _array(advance(book, CODES), whole), _array(advance(book, CONSTANTS), double)
    index, value = _array(advance(book, INDEX), short), _array(advance(book, ENTRIES), real)
    X = _matrix(advance(book, ROW), x.shape[0], real)
    net = Network(plan, _array(advance(book, PARAMS), real))
    samples = Samples(
        Inputs(X, value[:0], index[:0], _array(advance(book, STARTS), whole)),
        _matrix(advance(book, TARGETS), plan[plan.shape[0] - 1, WIDTH], real),
        _array(advance(book, LABELS), short),
        _array(advance(book, WEIGHTS), real),
        _array(advance(book, ORDER), whole),
        codes[4],
        Parts(codes[11], codes[12], codes[13], codes[14], codes[15], codes[16]),
    )
    rule = updates.Rule(
        codes[1],
        _array(advance(book, RATES), double),
        constants[0],
        constants[1],
        constants[2],
        constants[3],
        _array(advance(book, GRAD), real),
        _array(advance(book, FIRST), real),
        _array(advance(book, SECOND), real),
        _array(advance(book, CLOCK), double),
        codes[5],
        codes[6],
    )
    regular = regularize.Regular(
        constants[4],
        constants[5],
        constants[6],
        constants[7],
        constants[8],
        _array(advance(book, DROPOUT), double),
        constants[9],
        codes[2],
        codes[3:4],
        regularize.Parts(codes[7], codes[8], codes[9], codes[10]),
    )
    scratch = epochs.Scratch(
        _array(advance(book, WORK), real),
        Lists(index, value, _array(advance(book, ENDS), short)),
        _array(advance(book, ROW_LOSS), double),
        _matrix(advance(book, OVERLAPS), 1, real),
        _array(advance(book, TABLE), real),
        _array(advance(book, SQUARES), real),
        _array(advance(book, TOTAL), double),
        _array(advance(book, MEETING), whole),
        lazy.Lazy(codes[:0], index[:0], codes[:0], lazy.Parts(0, 0)),
    )
    scratch.total[0] = 0.0
    codes[3] += 1  # every row is an epoch of its own to dropout and noise
    return net, samples, codes[0], rule, regular, scratch


@inner
def _bring(x, address):
    """Copy x to where the first layer reads it; False, and nothing, unless it is a finite row in C order, aligned.

    Python would take 0.1 us to look, and Numba does not.
    """
    row = at_address(address + 8 * ROW, address)
    dense = x.strides[0] == x.itemsize or x.shape[0] == 1
    if not (x.shape[0] == row[1] and dense and _address(x) % x.itemsize == 0 and all_finite(x)):
        return False
    to = pointer(_array(row, x[0]), 0)
    for j in range(x.shape[0]):
        to[j] = x[j]
    return True


@inner
def _step_direct(x, address):
    """What epochs.per_sample does with an epoch of one row, without its windows: 0.2 us instead of 0.6 for 20-1."""
    net, samples, loss, rule, regular, scratch = _open(address, x)
    (plan, params), work, lists, dropout = net, scratch.work, scratch.lists, regular.dropout
    thread = _release() if params.shape[0] > LARGE else 0
    layers, counts = plan.shape[0], pointer(lists.ends, lists.ends.shape[0] - plan.shape[0])
    for layer in range(1, layers):
        if layer > 1:
            network.activate(plan, work, layer - 1, 0, 1)
        if dropout.shape[0] > 0 and dropout[layer - 1] > 0.0:
            regularize.drop(plan, work, layer - 1, 0, 0, regular)
        epochs.forward_active(plan, params, work, 0, layer, lists, counts)
    scale = cast(-rule.rates[0], x[0])
    outputs.output_delta(plan, work, samples, 0, 0, loss, scale, scratch.row_loss)
    cost = cast(scratch.row_loss[0], scale)
    if rule.code == updates.PASSIVE_AGGRESSIVE:
        inputs = pointer(work, plan[0, VALUE])
        steps.restrain(rule, plan, work, inputs, plan[0, WIDTH], 0, cost, scale)
    if epochs.moves(pointer(work, plan[layers - 1, SLOPE]), plan[layers - 1, WIDTH]):
        network.backward(plan, params, work, 0, 1)
        for layer in range(1, layers):
            epochs.update_active(plan, params, work, 0, layer, lists, counts)
    if thread != 0:
        _take(thread)
    return float(cost)


@inner
def _step(x, address):
    net, samples, loss, rule, regular, scratch = _open(address, x)
    thread = _release() if net.params.shape[0] > LARGE else 0
    epochs.mini_batch(net, samples, 0, 1, 1, loss, rule, regular, scratch, 0, 1)
    if thread != 0:
        _take(thread)
    return scratch.total[0]


@brief
def learn_direct(x, address):
    """One step of plain SGD on x (n_features,); the loss before it, or NaN for a row that it cannot read: no step."""
    return _step_direct(x, address) if _bring(x, address) else np.nan


@brief
def learn(x, address):
    """The same for any rule and regularisation."""
    return _step(x, address) if _bring(x, address) else np.nan
