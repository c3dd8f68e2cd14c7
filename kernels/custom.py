"""Calls of activations and losses that a user has compiled, by address: no kernel is compiled again for them.

An activation's code is the address of two function addresses (values; values and slopes), a loss's code that of its
function. One indirect call for each row of units costs about 2 ns; the loops behind it are compiled and vectorised like
the library's own.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LEAST_CODE = 1 << 12  # codes from here on are addresses; nothing is ever mapped so low

_I64 = ir.IntType(64)


def _data(context, builder, kind, value):
    """The pointer itself, or the first element of an array."""
    return value if isinstance(kind, types.CPointer) else context.make_array(kind)(context, builder, value).data


def _call(builder, address, result, args):
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(builder.inttoptr(address, kind.as_pointer()), args)


@intrinsic
def activate(typing, code, z, n, slope):
    """z[i], slope[i] = f(z[i]), f'(z[i]) for i < n."""

    def codegen(context, builder, signature, args):
        code, z, n, slope = args
        table = builder.inttoptr(code, _I64.as_pointer())
        z, slope = (
            _data(context, builder, kind, v) for kind, v in ((signature.args[1], z), (signature.args[3], slope))
        )
        _call(builder, builder.load(builder.gep(table, [_I64(1)])), ir.VoidType(), [z, n, slope])
        return context.get_dummy_value()

    return types.void(types.int64, z, types.intp, slope), codegen


@intrinsic
def apply(typing, code, z, n):
    """z[i] = f(z[i]) for i < n."""

    def codegen(context, builder, signature, args):
        code, z, n = args
        table = builder.inttoptr(code, _I64.as_pointer())
        _call(builder, builder.load(table), ir.VoidType(), [_data(context, builder, signature.args[1], z), n])
        return context.get_dummy_value()

    return types.void(types.int64, z, types.intp), codegen


@intrinsic
def row(typing, code, prediction, target, label, k, delta):
    """The value of one row's loss; writes delta (k,). A row of targets, or a label, as for the library's losses."""

    def codegen(context, builder, signature, args):
        code, label, k = args[0], args[3], args[4]
        rows = [_data(context, builder, signature.args[i], args[i]) for i in (1, 2, 5)]
        result = context.get_value_type(signature.return_type)
        return _call(builder, code, result, [rows[0], rows[1], label, k, rows[2]])

    signature = prediction.dtype(types.int64, prediction, target, types.int64, types.intp, delta)
    return signature, codegen
