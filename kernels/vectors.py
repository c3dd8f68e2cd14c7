"""Vectors of 16 numbers as values of kernels: arithmetic and comparisons lane by lane.

What LLVM makes of a loop over 16 numbers goes through memory between any two loops, and what is written by halves is
slow to read as a whole. In a step of one sample, where everything waits for what was before, that counts: the loss of
64-32-10 takes 0.05 us so, and 0.09 as loops.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from hotloop.kernels import simd
from hotloop.kernels.simd import I32, LANES, Vector


def _lanes(order: Any) -> Any:
    return ir.Constant(ir.VectorType(I32, len(order)), list(order))


def _operator(symbol: Any, build: Callable[[Any, Any, Any, types.Type], Any], truth: bool = False) -> None:
    """Let kernels write `a symbol b` for vectors of one dtype, which build is told; truth: it is true or false."""

    @infer_global(symbol)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(Vector(types.boolean) if truth else args[0], *args)
            return None

    @lower_builtin(symbol, Vector, Vector)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return build(builder, args[0], args[1], sig.args[0].dtype)


def _arithmetic(real: str, whole: str) -> Callable[[Any, Any, Any, types.Type], Any]:
    """The instruction for floating-point numbers, and for integers."""
    return lambda builder, a, b, dtype: getattr(builder, real if isinstance(dtype, types.Float) else whole)(a, b)


def _comparison(name: str) -> Callable[[Any, Any, Any, types.Type], Any]:
    def build(builder: Any, a: Any, b: Any, dtype: types.Type) -> Any:
        return (builder.fcmp_ordered if isinstance(dtype, types.Float) else builder.icmp_signed)(name, a, b)

    return build


_operator(operator.add, _arithmetic("fadd", "add"))
_operator(operator.sub, _arithmetic("fsub", "sub"))
_operator(operator.mul, _arithmetic("fmul", "mul"))
_operator(operator.truediv, lambda builder, a, b, dtype: builder.fdiv(a, b))
_operator(operator.lshift, lambda builder, a, b, dtype: builder.shl(a, b))
_operator(operator.lt, _comparison("<"), truth=True)
_operator(operator.le, _comparison("<="), truth=True)
_operator(operator.gt, _comparison(">"), truth=True)
_operator(operator.eq, _comparison("=="), truth=True)


@intrinsic
def load(typing, at):
    """The 16 numbers from a pointer on."""
    return Vector(at.dtype)(at), lambda context, builder, signature, args: simd.load(builder, args[0], 0)


@intrinsic
def store(typing, values, at):
    """Write a vector from a pointer on."""

    def codegen(context, builder, signature, args):
        simd.store(builder, args[0], args[1], 0)
        return context.get_dummy_value()

    return types.void(values, at), codegen


@intrinsic
def lanes(typing):
    """0, 1, ..., 15 as int32."""
    return Vector(types.int32)(), lambda context, builder, signature, args: _lanes(range(LANES))


@intrinsic
def first_lane(typing, values):
    """The number in lane 0."""
    return values.dtype(values), lambda context, builder, signature, args: builder.extract_element(args[0], I32(0))


@intrinsic
def largest_lane(typing, values):
    """The largest number of the lanes, in every lane if none is NaN."""

    def codegen(context, builder, signature, args):
        (line,) = args
        half = LANES // 2
        while half > 0:
            other = builder.shuffle_vector(line, line, _lanes([lane ^ half for lane in range(LANES)]))
            line = builder.select(builder.fcmp_ordered(">", other, line), other, line)
            half //= 2
        return line

    return values(values), codegen


@intrinsic
def sum_of_lanes(typing, values):
    """(s0 + s1) + (s2 + s3), where s0 = x0 + x4 + x8 + x12, and so on: one number."""

    def codegen(context, builder, signature, args):
        (line,) = args
        quarters = [builder.shuffle_vector(line, line, _lanes(range(first, first + 4))) for first in range(0, LANES, 4)]
        sums = quarters[0]
        for quarter in quarters[1:]:
            sums = builder.fadd(sums, quarter)
        s0, s1, s2, s3 = (builder.extract_element(sums, I32(lane)) for lane in range(4))
        return builder.fadd(builder.fadd(s0, s1), builder.fadd(s2, s3))

    return values.dtype(values), codegen
