"""Lines of 16: rows of a layer of at most 16 units, squares of 16 such rows, and the most common loss of them."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hotloop.kernels import scalar, vectors
from hotloop.kernels.jit import inner
from hotloop.kernels.scalar import select
from hotloop.kernels.simd import (
    I32,
    I64,
    LANES,
    Loop,
    advance,
    broadcast,
    build_fma,
    cast,
    load,
    make_buffer,
    store,
    vector_type,
)

_square, _line = make_buffer(LANES * LANES), make_buffer(LANES)


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


@inner
def cross_entropy_class_line(logits, label, k, scale, delta):
    """Value and scale times delta of losses.cross_entropy_class for k <= 16 logits in a line of 16; pointers."""
    z, lane = vectors.load(logits), vectors.lanes()
    real, here, zero = lane < cast(k, lane), lane == cast(label, lane), cast(0.0, z)
    largest = vectors.largest_lane(select(real, z, cast(-scalar.INF, z)))
    powers = select(real, scalar.exp(z - largest), zero)
    total = vectors.sum_of_lanes(powers)
    slopes = powers / cast(total, z) - select(here, cast(1.0, z), zero)
    vectors.store(select(real, cast(scale, z) * slopes, zero), delta)
    return scalar.log(total) - (logits[label] - vectors.first_lane(largest))


@inner
def cross_entropy_class_rows(logits, rows, label, k, scale, value, delta):
    """cross_entropy_class_line of up to 16 rows at once, one lane a row: sums in the order of `activations.softmax`.

    Pointers: logits, delta (rows, 16); label int32, scale and value (rows,).
    """
    z, totals, shifts = _square(logits), _line(logits), _line(logits)
    transpose(logits, rows, z)
    largest = vectors.load(z)
    for j in range(1, k):
        line = vectors.load(advance(z, j * LANES))
        largest = select(line > largest, line, largest)
    for r in range(rows):
        value[r] = z[label[r] * LANES + r]
    s0 = s1 = s2 = s3 = cast(0.0, largest)
    for j in range(k):
        powers = scalar.exp(vectors.load(advance(z, j * LANES)) - largest)
        vectors.store(powers, advance(z, j * LANES))
        s0, s1, s2, s3 = s1, s2, s3, s0 + powers
    for _ in range(-k % 4):  # until each is in its place again
        s0, s1, s2, s3 = s1, s2, s3, s0
    total = (s0 + s1) + (s2 + s3)
    for j in range(k):
        vectors.store(vectors.load(advance(z, j * LANES)) / total, advance(z, j * LANES))
    vectors.store(total, totals)
    vectors.store(largest, shifts)
    for r in range(rows):
        value[r] = scalar.log(totals[r]) - (value[r] - shifts[r])
    transpose(z, LANES, z)
    lane, one, zero = vectors.lanes(), cast(1.0, largest), cast(0.0, largest)
    for r in range(rows):
        here = lane == cast(label[r], lane)
        slopes = vectors.load(advance(z, r * LANES)) - select(here, one, zero)
        scaled = cast(scale[r], largest) * slopes
        vectors.store(select(lane < cast(k, lane), scaled, zero), advance(delta, r * LANES))
