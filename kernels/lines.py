"""Micro-kernels on lines of 16: rows of a layer of at most 16 units, and squares of 16 such rows."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hotloop.kernels.simd import I32, I64, LANES, Loop, broadcast, build_fma, load, store, vector_type


@intrinsic
def transpose(typing, source, rows, out):
    """out[16 j + r] = source[16 r + j]: a square of 16 rows; rows of them are read, the last stands for the rest.

    out may be source.
    """

    def codegen(context, builder, signature, args):
        source, rows, out = args
        last = builder.sub(rows, I64(1))
        lines = []
        for r in range(LANES):
            row = builder.select(builder.icmp_signed("<", I64(r), last), I64(r), last)
            lines.append(load(builder, builder.gep(source, [builder.mul(row, I64(LANES))]), 0))
        half = LANES // 2
        low = [lane + LANES * side for lane in range(half) for side in range(2)]
        high = [lane + half for lane in low]
        for _ in range(LANES.bit_length() - 1):  # each step interleaves line i with line i + 8: log2(16) make a square
            folded = []
            for a, b in zip(lines[:half], lines[half:], strict=True):
                for order in (low, high):
                    mask = ir.Constant(ir.VectorType(I32, LANES), order)
                    folded.append(builder.shuffle_vector(a, b, mask))
            lines = folded
        for j, line in enumerate(lines):
            store(builder, line, out, LANES * j)
        return context.get_dummy_value()

    return types.void(source, types.intp, out), codegen


@intrinsic
def add_lines(typing, source, row, rows, out):
    """out[c] += source[c] + source[row + c] + ... of `rows` terms, in this order, for 16 columns c."""

    def codegen(context, builder, signature, args):
        source, row, rows, out = args
        loop = Loop(builder, rows, 1, [source, load(builder, out, 0)])
        at, sums = loop.carried
        store(builder, loop.close([builder.gep(at, [row]), builder.fadd(sums, load(builder, at, 0))])[1], out, 0)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, out), codegen


@intrinsic
def dots_lanes(typing, delta, weights, out):
    """out[u] *= sum_l delta[l] * weights[16 l + u] for 16 units u, one a lane, in the order of the tree of `dots`.

    The weights are transposed (see `transpose`): so the tree needs no shuffles, which only one port of a core does.
    """

    def codegen(context, builder, signature, args):
        delta, weights, out = args
        zero = ir.Constant(vector_type(delta.type.pointee), [0.0] * LANES)
        terms = []
        for lane in range(LANES):
            factor = broadcast(builder, builder.load(builder.gep(delta, [I64(lane)])))
            terms.append(build_fma(builder, factor, load(builder, weights, LANES * lane), zero))
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [builder.fadd(a, b) for a, b in zip(terms[:half], terms[half:], strict=True)]
        store(builder, builder.fmul(terms[0], load(builder, out, 0)), out, 0)
        return context.get_dummy_value()

    return types.void(delta, weights, out), codegen


def _first(builder: Any, k: Any) -> Any:
    """Which lanes are the first k."""
    lanes = ir.Constant(ir.VectorType(I32, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, broadcast(builder, builder.trunc(k, I32)))


@intrinsic
def largest_of(typing, z, k):
    """The largest of z[0] .. z[k - 1], 0 < k <= 16; z has a line of 16."""

    def codegen(context, builder, signature, args):
        z, k = args
        line = builder.select(_first(builder, k), load(builder, z, 0), broadcast(builder, builder.load(z)))
        half = LANES // 2
        while half > 0:
            mask = ir.Constant(ir.VectorType(I32, LANES), [lane ^ half for lane in range(LANES)])
            other = builder.shuffle_vector(line, line, mask)
            line = builder.select(builder.fcmp_ordered(">", other, line), other, line)
            half //= 2
        return builder.extract_element(line, I32(0))

    return z.dtype(z, types.intp), codegen


@intrinsic
def divide_line(typing, z, k, total, scale, out):
    """out[j] = scale (z[j] / total) for j < k <= 16, and 0 in the rest of the line."""

    def codegen(context, builder, signature, args):
        z, k, total, scale, out = args
        shares = builder.fdiv(load(builder, z, 0), broadcast(builder, total))
        scaled = builder.fmul(broadcast(builder, scale), shares)
        store(builder, builder.select(_first(builder, k), scaled, ir.Constant(scaled.type, [0.0] * LANES)), out, 0)
        return context.get_dummy_value()

    return types.void(z, types.intp, z.dtype, z.dtype, z), codegen


@intrinsic
def subtract_largest(typing, z, k):
    """z[16 j + r] -= the largest z[16 i + r], i < k, for every lane r; k > 0."""

    def codegen(context, builder, signature, args):
        z, k = args
        search = Loop(builder, k, 1, [load(builder, z, 0)])
        line = load(builder, builder.gep(z, [builder.mul(search.index, I64(LANES))]), 0)
        (largest,) = search.carried
        (largest,) = search.close([builder.select(builder.fcmp_ordered(">", line, largest), line, largest)])
        shift = Loop(builder, k, 1, [])
        at = builder.gep(z, [builder.mul(shift.index, I64(LANES))])
        store(builder, builder.fsub(load(builder, at, 0), largest), at, 0)
        shift.close([])
        return context.get_dummy_value()

    return types.void(z, types.intp), codegen


@intrinsic
def divide_by_sum(typing, z, k, total):
    """total[r] = z[r] + z[16 + r] + ... of k terms, and z[16 j + r] /= total[r], for every lane r."""

    def codegen(context, builder, signature, args):
        z, k, total = args
        add = Loop(builder, k, 1, [ir.Constant(vector_type(z.type.pointee), [0.0] * LANES)])
        line = load(builder, builder.gep(z, [builder.mul(add.index, I64(LANES))]), 0)
        (sums,) = add.close([builder.fadd(add.carried[0], line)])
        store(builder, sums, total, 0)
        divide = Loop(builder, k, 1, [])
        at = builder.gep(z, [builder.mul(divide.index, I64(LANES))])
        store(builder, builder.fdiv(load(builder, at, 0), sums), at, 0)
        divide.close([])
        return context.get_dummy_value()

    return types.void(z, types.intp, total), codegen
