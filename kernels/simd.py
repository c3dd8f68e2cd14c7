"""Register-tiled micro-kernels, written once as LLVM vector IR for float32, float64 and every vector width.

Every vector has LANES = 16 elements; LLVM splits it into the registers of the machine (one AVX-512, two AVX, four NEON
for float32). 16 is a constant of the algorithm: it fixes the order of every sum along the lanes, so results have the
same bits on every machine. Only the tile shapes below depend on the machine, and they change no bit:
an output element is one ascending chain of fused multiply-adds wherever its tile begins or ends.

Pointers are `CPointer(float32 | float64)`; strides and offsets count elements. `pointer[i]` works like `array[i]`.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 16
CACHE_LINE = 64  # bytes
AHEAD = 16  # steps of a tile between asking for its x and needing it
BIT_ROWS = 32  # rows of a mask of one feature

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)


def _has(feature: str) -> bool:
    """Whether Numba compiles for a processor with this feature."""
    if config.CPU_FEATURES is not None:
        return f"+{feature}" in config.CPU_FEATURES
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


def _vector(element: ir.Type, lanes: int = LANES) -> ir.VectorType:
    return ir.VectorType(element, lanes)


def _load(builder: Any, pointer: Any, offset: int, lanes: int = LANES) -> Any:
    element = pointer.type.pointee
    at = builder.bitcast(builder.gep(pointer, [_I64(offset)]), _vector(element, lanes).as_pointer())
    return builder.load(at, align=4 if isinstance(element, ir.FloatType) else 8)


def _store(builder: Any, value: Any, pointer: Any, offset: int) -> None:
    element = pointer.type.pointee
    at = builder.bitcast(builder.gep(pointer, [_I64(offset)]), value.type.as_pointer())
    builder.store(value, at, align=4 if isinstance(element, ir.FloatType) else 8)


def _splat(builder: Any, scalar: Any, lanes: int = LANES) -> Any:
    undefined = ir.Constant(_vector(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _passes(element: Any, vectors: int, most: int) -> int:
    """Into how many loops a tile of so many vectors is divided, for each to keep at most `most` registers.

    float64 vectors take twice the registers of float32 ones, and LLVM spilled them inside the loop. AVX2, 32 rows of
    784-128: forward 190 us, two loops 127; weight gradient 256, 150; input gradient 310, 220. AVX-512: 137, 115 and
    158, 130, but the input gradient of 128 rows of 512-512 1,420, 1,840.
    """
    size = LANES * (4 if isinstance(element, ir.FloatType) else 8)
    passes = 1
    while vectors * size > passes * most * REGISTER_BYTES:
        passes *= 2
    return passes


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = a.type
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    width = "f32" if isinstance(element, ir.FloatType) else "f64"
    name = f"llvm.fma.v{kind.count}{width}" if isinstance(kind, ir.VectorType) else f"llvm.fma.{width}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


class _Loop:
    """`for index in range(0, stop, step)` around values carried in registers; the body may run zero times."""

    def __init__(self, builder: Any, stop: Any, step: int, carried: list[Any]) -> None:
        self.builder, self.step, self.stop, self.initial = builder, step, stop, carried
        self.before = builder.block
        self.body = builder.append_basic_block("loop")
        self.after = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", stop, _I64(0)), self.body, self.after)
        builder.position_at_end(self.body)
        self.index = builder.phi(_I64)
        self.index.add_incoming(_I64(0), self.before)
        self.carried = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, self.before)
            self.carried.append(phi)

    def close(self, updated: list[Any]) -> list[Any]:
        """End the body; return the carried values as they stand after the loop."""
        builder = self.builder
        following = builder.add(self.index, _I64(self.step))
        self.index.add_incoming(following, self.body)
        for phi, value in zip(self.carried, updated, strict=True):
            phi.add_incoming(value, self.body)
        builder.cbranch(builder.icmp_signed("<", following, self.stop), self.body, self.after)
        builder.position_at_end(self.after)
        results = []
        for initial, value in zip(self.initial, updated, strict=True):
            phi = builder.phi(value.type)
            phi.add_incoming(initial, self.before)
            phi.add_incoming(value, self.body)
            results.append(phi)
        return results


@intrinsic
def pointer(typing, array, offset):
    """Pointer to element `offset` of a C-contiguous array, counted over all its dimensions."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def at_address(typing, address, like):
    """The address as a pointer to elements of the type of `like`."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), codegen


@intrinsic
def advance(typing, base, offset):
    """Pointer `offset` elements further."""
    return base(base, types.intp), lambda context, builder, signature, args: builder.gep(args[0], [args[1]])


def make_buffer(size: int) -> Callable[..., Any]:
    """A function that gives room for `size` elements of the type a pointer points to, on the caller's stack."""

    @intrinsic
    def buffer(typing, like):
        def codegen(context, builder, signature, args):
            room = cgutils.alloca_once(builder, context.get_value_type(like.dtype), size=ir.Constant(_I64, size))
            room.align = 64  # a vector that crosses a cache line costs two loads
            return room

        return like(like), codegen

    return buffer


def _prefetch(builder: Any, pointer: Any, level: int = 1) -> None:
    at = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [at.type, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [at, _I32(0), _I32(4 - level), _I32(1)])  # read, keep, data


def _make_prefetch(level: int) -> Callable[..., None]:
    """Ask for the cache line that a pointer points into, into the caches from this level on; harmless anywhere."""

    @intrinsic
    def prefetch(typing, base):
        def codegen(context, builder, signature, args):
            _prefetch(builder, args[0], level)
            return context.get_dummy_value()

        return types.void(base), codegen

    return prefetch


prefetch, prefetch_second = _make_prefetch(1), _make_prefetch(2)


@intrinsic
def cast(typing, value, like):
    """`value` in the type of `like`: 0.5 beside a float32 would otherwise make the whole formula float64."""
    return like(value, like), lambda context, builder, signature, args: context.cast(
        builder, args[0], signature.args[0], signature.return_type
    )


@intrinsic
def fma(typing, a, b, c):
    """a * b + c with one rounding."""
    return a(a, a, a), lambda context, builder, signature, args: _fma(builder, *args)


@intrinsic
def float_to_bits(typing, value):
    """The bits of a float32 as int32, of a float64 as int64."""
    integer = types.int32 if value == types.float32 else types.int64
    return integer(value), lambda context, builder, signature, args: builder.bitcast(
        args[0], context.get_value_type(signature.return_type)
    )


@intrinsic
def bits_to_float(typing, bits):
    """The float32 with the bits of an int32, the float64 with those of an int64."""
    real = types.float32 if bits == types.int32 else types.float64
    return real(bits), lambda context, builder, signature, args: builder.bitcast(
        args[0], context.get_value_type(signature.return_type)
    )


def _make_tile(rows: int, vectors: int) -> Callable[..., None]:
    """Tile of a matrix product, held in registers: out[r, c] = init[r, c] + sum_k x[r, k] * weight[k, c].

    x[r, k] lies at x_row r + x_k k, and one of the two is 1 (or the tile has one row): with both unknown, adding up the
    addresses of 8 rows took as long as 16 multiply-adds, and a tile of one vector was half as fast.
    No prefetcher follows rows a page apart, so a tile asks for the rows of `out` under it, which are the next tile's,
    and for the x of AHEAD steps later. Weights outside the second-level cache, AVX-512, 256 rows of 1024-1024: forward
    135 GFLOP/s, with both 151; update 102, with the rows of `out` 130, with both 151. 128 rows of 512-512: 150 and 155,
    135 and 158.
    """

    @intrinsic
    def tile(typing, x, x_row, x_k, weight, weight_k, init, init_row, out, out_row, depth):
        size = types.intp
        signature = types.void(x, size, size, weight, size, init, size, out, size, size)

        def codegen(context, builder, signature, args):
            x, x_row, x_k, weight, weight_k, init, init_row, out, out_row, depth = args
            passes = _passes(weight.type.pointee, rows * vectors, TILE_REGISTERS)
            width = LANES * vectors // passes
            lanes = min(LANES, width)
            line = CACHE_LINE // (4 if isinstance(weight.type.pointee, ir.FloatType) else 8)

            def part(columns, along_rows):
                start = []
                for r in range(rows):
                    row = builder.gep(init, [builder.mul(_I64(r), init_row)])
                    start += [_load(builder, row, c, lanes) for c in columns]
                if rows > 1:
                    for r in range(rows, 2 * rows):
                        row = builder.gep(out, [builder.mul(_I64(r), out_row)])
                        for c in range(columns.start, columns.stop, line):
                            _prefetch(builder, builder.gep(row, [_I64(c)]))
                apart = x_row if along_rows else _I64(1)
                x_rows = [builder.gep(x, [builder.mul(_I64(r), apart)]) for r in range(rows)]
                ahead = builder.gep(x, [builder.mul(_I64(AHEAD), x_k)])
                loop = _Loop(builder, depth, 1, [weight, *start])
                weight_at, *chains = loop.carried
                offset = loop.index if along_rows else builder.mul(loop.index, x_k)
                if rows > 1:
                    _prefetch(builder, builder.gep(ahead, [offset]))
                weights = [_load(builder, weight_at, c, lanes) for c in columns]
                updated: list[Any] = []
                for r in range(rows):
                    factor = _splat(builder, builder.load(builder.gep(x_rows[r], [offset])), lanes)
                    updated += [_fma(builder, factor, w, chains[len(updated) + v]) for v, w in enumerate(weights)]
                sums = iter(loop.close([builder.gep(weight_at, [weight_k]), *updated])[1:])
                for r in range(rows):
                    row = builder.gep(out, [builder.mul(_I64(r), out_row)])
                    for c in columns:
                        _store(builder, next(sums), row, c)

            for first in range(0, LANES * vectors, width):
                columns = range(first, first + width, lanes)
                with builder.if_else(builder.icmp_signed("==", x_k, _I64(1))) as (along, across):
                    with along:
                        part(columns, along_rows=True)
                    with across:
                        part(columns, along_rows=False)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _make_copy(vectors: int) -> Callable[..., None]:
    """Copy columns, row under row: out[k, c] = source[k, c]. Into a panel that fits the cache, or back."""

    @intrinsic
    def copy(typing, source, source_row, rows, out, out_row):
        signature = types.void(source, types.intp, types.intp, out, types.intp)

        def codegen(context, builder, signature, args):
            source, source_row, rows, out, out_row = args
            ahead = builder.mul(_I64(AHEAD), source_row)
            loop = _Loop(builder, rows, 1, [source, out])
            at, into = loop.carried
            for v in range(vectors):
                _prefetch(builder, builder.gep(at, [builder.add(ahead, _I64(LANES * v))]))
                _store(builder, _load(builder, at, LANES * v), into, LANES * v)
            loop.close([builder.gep(at, [source_row]), builder.gep(into, [out_row])])
            return context.get_dummy_value()

        return signature, codegen

    return copy


def _tree(builder: Any, vectors: list[Any]) -> Any:
    """Sum every vector along its lanes (l + l+8, then +4, +2, +1) and return the sums as one vector, in order.

    Two vectors are folded into one per step, so that n sums cost 3 n operations instead of 8 n.
    """
    width = LANES
    while width > 1:
        half, count = width // 2, vectors[0].type.count
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if len(vectors) > 1 else [(vectors[0], None)]
        folded = []
        for left, right in pairs:
            trees = range((count if right is None else 2 * count) // width)
            low = [tree * width + lane for tree in trees for lane in range(half)]
            mask = ir.VectorType(_I32, len(low))
            other = left if right is None else right
            a = builder.shuffle_vector(left, other, ir.Constant(mask, low))
            b = builder.shuffle_vector(left, other, ir.Constant(mask, [lane + half for lane in low]))
            folded.append(builder.fadd(a, b))
        vectors, width = folded, half
    return vectors[0]


def _make_dots(rows: int, units: int) -> Callable[..., None]:
    """Dot products along the lanes: out[r, u] *= sum_j delta[r, j] * weight[u, j]; rows * units is a power of two."""

    @intrinsic
    def dots(typing, delta, delta_row, weight, weight_row, out, out_row, width):
        size = types.intp
        signature = types.void(delta, size, weight, size, out, size, size)

        def codegen(context, builder, signature, args):
            delta, delta_row, weight, weight_row, out, out_row, width = args
            zero = ir.Constant(_vector(delta.type.pointee), [0.0] * LANES)
            delta_rows = [builder.mul(_I64(r), delta_row) for r in range(rows)]
            some = max(1, units // _passes(delta.type.pointee, rows * units, DOT_REGISTERS))
            for first in range(0, units, some):
                weight_rows = [builder.mul(_I64(u), weight_row) for u in range(first, first + some)]
                loop = _Loop(builder, width, LANES, [delta, weight, *[zero] * (rows * some)])
                delta_at, weight_at, *chains = loop.carried
                deltas = [_load(builder, builder.gep(delta_at, [offset]), 0) for offset in delta_rows]
                weights = [_load(builder, builder.gep(weight_at, [offset]), 0) for offset in weight_rows]
                pairs = [(deltas[r], weights[u]) for r in range(rows) for u in range(some)]
                updated = [_fma(builder, *pair, chain) for pair, chain in zip(pairs, chains, strict=True)]
                step = _I64(LANES)
                sums = loop.close([builder.gep(delta_at, [step]), builder.gep(weight_at, [step]), *updated])[2:]
                total = _tree(builder, sums)
                for r in range(rows):
                    row = builder.gep(out, [builder.mul(_I64(r), out_row)])
                    mask = ir.Constant(ir.VectorType(_I32, some), [r * some + u for u in range(some)])
                    part = builder.shuffle_vector(total, total, mask)
                    _store(builder, builder.fmul(part, _load(builder, row, first, some)), row, first)
            return context.get_dummy_value()

        return signature, codegen

    return dots


def _make_gather(vectors: int) -> Callable[..., None]:
    """Sparse row times matrix: out[c] += sum_k value[k] * weight[index[k], c]."""

    @intrinsic
    def gather(typing, index, value, count, weight, weight_row, out):
        signature = types.void(index, value, types.intp, weight, types.intp, out)

        def codegen(context, builder, signature, args):
            index, value, count, weight, weight_row, out = args
            columns = range(vectors)
            loop = _Loop(builder, count, 1, [_load(builder, out, LANES * v) for v in columns])
            factor = _splat(builder, builder.load(builder.gep(value, [loop.index])))
            k = builder.sext(builder.load(builder.gep(index, [loop.index])), _I64)
            row = builder.gep(weight, [builder.mul(k, weight_row)])
            updated = [_fma(builder, factor, _load(builder, row, LANES * v), loop.carried[v]) for v in columns]
            sums = loop.close(updated)
            for v in columns:
                _store(builder, sums[v], out, LANES * v)
            return context.get_dummy_value()

        return signature, codegen

    return gather


def _make_scatter(vectors: int) -> Callable[..., None]:
    """Rank-one update of the rows that a sparse row touches: weight[index[k], c] += value[k] * delta[c]."""

    @intrinsic
    def scatter(typing, index, value, count, weight, weight_row, delta):
        signature = types.void(index, value, types.intp, weight, types.intp, delta)

        def codegen(context, builder, signature, args):
            index, value, count, weight, weight_row, delta = args
            columns = range(vectors)
            deltas = [_load(builder, delta, LANES * v) for v in columns]
            loop = _Loop(builder, count, 1, [])
            factor = _splat(builder, builder.load(builder.gep(value, [loop.index])))
            k = builder.sext(builder.load(builder.gep(index, [loop.index])), _I64)
            row = builder.gep(weight, [builder.mul(k, weight_row)])
            for v in columns:
                _store(builder, _fma(builder, factor, deltas[v], _load(builder, row, LANES * v)), row, LANES * v)
            loop.close([])
            return context.get_dummy_value()

        return signature, codegen

    return scatter


def _lowest_bit(builder: Any, mask: Any) -> tuple[Any, Any]:
    """The number of the lowest set bit of an i64, and the mask without it."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_I64, [_I64, ir.IntType(1)]), "llvm.cttz.i64"
    )
    rest = builder.and_(mask, builder.sub(mask, _I64(1)))
    return builder.call(function, [mask, ir.IntType(1)(1)]), rest


def _count_bits(builder: Any, mask: Any) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I64, [_I64]), "llvm.ctpop.i64")
    return builder.call(function, [mask])


def _make_tile_bits(vectors: int) -> Callable[..., None]:
    """A tile of two rows, summed over the k of a mask: out[r, c] += sum_k x[r, k] * weight[k, c], ascending k."""

    @intrinsic
    def tile_bits(typing, mask, x, x_row, x_k, weight, weight_k, out, out_row):
        size = types.intp
        signature = types.void(types.int64, x, size, size, weight, size, out, size)

        def codegen(context, builder, signature, args):
            mask, x, x_row, x_k, weight, weight_k, out, out_row = args
            passes = _passes(weight.type.pointee, 2 * vectors, TILE_REGISTERS)
            some = max(1, vectors // passes)
            for first in range(0, vectors, some):
                columns = range(LANES * first, LANES * (first + some), LANES)
                places = [(row, c) for row in (out, builder.gep(out, [out_row])) for c in columns]
                start = [_load(builder, *place) for place in places]
                loop = _Loop(builder, _count_bits(builder, mask), 1, [mask, *start])
                k, rest = _lowest_bit(builder, loop.carried[0])
                at = builder.gep(x, [builder.mul(k, x_k)])
                row = builder.gep(weight, [builder.mul(k, weight_k)])
                factors = [_splat(builder, builder.load(of)) for of in (at, builder.gep(at, [x_row]))]
                weights = [_load(builder, row, c) for c in columns]
                terms = [(factor, part) for factor in factors for part in weights]
                sums = [_fma(builder, *term, chain) for term, chain in zip(terms, loop.carried[1:], strict=True)]
                for total, place in zip(loop.close([rest, *sums])[1:], places, strict=True):
                    _store(builder, total, *place)
            return context.get_dummy_value()

        return signature, codegen

    return tile_bits


@intrinsic
def transpose(typing, source, rows, out):
    """out[16 j + r] = source[16 r + j]: a square of 16 rows; rows of them are read, the last stands for the rest.

    out may be source.
    """

    def codegen(context, builder, signature, args):
        source, rows, out = args
        last = builder.sub(rows, _I64(1))
        lines = []
        for r in range(LANES):
            row = builder.select(builder.icmp_signed("<", _I64(r), last), _I64(r), last)
            lines.append(_load(builder, builder.gep(source, [builder.mul(row, _I64(LANES))]), 0))
        half = LANES // 2
        low = [lane + LANES * side for lane in range(half) for side in range(2)]
        high = [lane + half for lane in low]
        for _ in range(LANES.bit_length() - 1):  # each step interleaves line i with line i + 8: log2(16) make a square
            folded = []
            for a, b in zip(lines[:half], lines[half:], strict=True):
                for order in (low, high):
                    mask = ir.Constant(ir.VectorType(_I32, LANES), order)
                    folded.append(builder.shuffle_vector(a, b, mask))
            lines = folded
        for j, line in enumerate(lines):
            _store(builder, line, out, LANES * j)
        return context.get_dummy_value()

    return types.void(source, types.intp, out), codegen


@intrinsic
def add_lines(typing, source, row, rows, out):
    """out[c] += source[c] + source[row + c] + ... of `rows` terms, in this order, for 16 columns c."""

    def codegen(context, builder, signature, args):
        source, row, rows, out = args
        loop = _Loop(builder, rows, 1, [source, _load(builder, out, 0)])
        at, sums = loop.carried
        _store(builder, loop.close([builder.gep(at, [row]), builder.fadd(sums, _load(builder, at, 0))])[1], out, 0)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, out), codegen


@intrinsic
def dots_lanes(typing, delta, weights, out):
    """out[u] *= sum_l delta[l] * weights[16 l + u] for 16 units u, one a lane, in the order of the tree of `dots`.

    The weights are transposed (see `transpose`): so the tree needs no shuffles, which only one port of a core does.
    """

    def codegen(context, builder, signature, args):
        delta, weights, out = args
        zero = ir.Constant(_vector(delta.type.pointee), [0.0] * LANES)
        terms = []
        for lane in range(LANES):
            factor = _splat(builder, builder.load(builder.gep(delta, [_I64(lane)])))
            terms.append(_fma(builder, factor, _load(builder, weights, LANES * lane), zero))
        while len(terms) > 1:
            half = len(terms) // 2
            terms = [builder.fadd(a, b) for a, b in zip(terms[:half], terms[half:], strict=True)]
        _store(builder, builder.fmul(terms[0], _load(builder, out, 0)), out, 0)
        return context.get_dummy_value()

    return types.void(delta, weights, out), codegen


def _first(builder: Any, k: Any) -> Any:
    """Which lanes are the first k."""
    lanes = ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES)))
    return builder.icmp_signed("<", lanes, _splat(builder, builder.trunc(k, _I32)))


@intrinsic
def largest_of(typing, z, k):
    """The largest of z[0] .. z[k - 1], 0 < k <= 16; z has a line of 16."""

    def codegen(context, builder, signature, args):
        z, k = args
        line = builder.select(_first(builder, k), _load(builder, z, 0), _splat(builder, builder.load(z)))
        half = LANES // 2
        while half > 0:
            mask = ir.Constant(ir.VectorType(_I32, LANES), [lane ^ half for lane in range(LANES)])
            other = builder.shuffle_vector(line, line, mask)
            line = builder.select(builder.fcmp_ordered(">", other, line), other, line)
            half //= 2
        return builder.extract_element(line, _I32(0))

    return z.dtype(z, types.intp), codegen


@intrinsic
def divide_line(typing, z, k, total, scale, out):
    """out[j] = scale (z[j] / total) for j < k <= 16, and 0 in the rest of the line."""

    def codegen(context, builder, signature, args):
        z, k, total, scale, out = args
        shares = builder.fdiv(_load(builder, z, 0), _splat(builder, total))
        scaled = builder.fmul(_splat(builder, scale), shares)
        _store(builder, builder.select(_first(builder, k), scaled, ir.Constant(scaled.type, [0.0] * LANES)), out, 0)
        return context.get_dummy_value()

    return types.void(z, types.intp, z.dtype, z.dtype, z), codegen


@intrinsic
def subtract_largest(typing, z, k):
    """z[16 j + r] -= the largest z[16 i + r], i < k, for every lane r; k > 0."""

    def codegen(context, builder, signature, args):
        z, k = args
        search = _Loop(builder, k, 1, [_load(builder, z, 0)])
        line = _load(builder, builder.gep(z, [builder.mul(search.index, _I64(LANES))]), 0)
        (largest,) = search.carried
        (largest,) = search.close([builder.select(builder.fcmp_ordered(">", line, largest), line, largest)])
        shift = _Loop(builder, k, 1, [])
        at = builder.gep(z, [builder.mul(shift.index, _I64(LANES))])
        _store(builder, builder.fsub(_load(builder, at, 0), largest), at, 0)
        shift.close([])
        return context.get_dummy_value()

    return types.void(z, types.intp), codegen


@intrinsic
def divide_by_sum(typing, z, k, total):
    """total[r] = z[r] + z[16 + r] + ... of k terms, and z[16 j + r] /= total[r], for every lane r."""

    def codegen(context, builder, signature, args):
        z, k, total = args
        add = _Loop(builder, k, 1, [ir.Constant(_vector(z.type.pointee), [0.0] * LANES)])
        line = _load(builder, builder.gep(z, [builder.mul(add.index, _I64(LANES))]), 0)
        (sums,) = add.close([builder.fadd(add.carried[0], line)])
        _store(builder, sums, total, 0)
        divide = _Loop(builder, k, 1, [])
        at = builder.gep(z, [builder.mul(divide.index, _I64(LANES))])
        _store(builder, builder.fdiv(_load(builder, at, 0), sums), at, 0)
        divide.close([])
        return context.get_dummy_value()

    return types.void(z, types.intp, total), codegen


@intrinsic
def nonzero(typing, x):
    """16 bits: which of x[0] .. x[15] are not zero; NaN is not."""

    def codegen(context, builder, signature, args):
        values = _load(builder, args[0], 0)
        chosen = builder.fcmp_unordered("!=", values, ir.Constant(values.type, [0.0] * LANES))
        return builder.zext(builder.bitcast(chosen, ir.IntType(LANES)), _I64)

    return types.int64(x), codegen


def make_bits_buffer(size: int) -> Callable[..., Any]:
    """A function that gives room for `size` numbers of 16 bits on the caller's stack."""

    @intrinsic
    def buffer(typing):
        def codegen(context, builder, signature, args):
            room = cgutils.alloca_once(builder, ir.IntType(16), size=ir.Constant(_I64, size))
            room.align = 64
            return room

        return types.CPointer(types.uint16)(), codegen

    return buffer


@intrinsic
def rows_with_bits(typing, bits, chosen):
    """Which of 32 numbers of 16 bits share a set bit with `chosen`."""

    def codegen(context, builder, signature, args):
        bits, chosen = args
        short = ir.IntType(16)
        kind = ir.VectorType(short, BIT_ROWS)
        lines = builder.load(builder.bitcast(bits, kind.as_pointer()), align=64)
        shared = builder.and_(lines, _splat(builder, builder.trunc(chosen, short), BIT_ROWS))
        found = builder.icmp_unsigned("!=", shared, ir.Constant(kind, [0] * BIT_ROWS))
        return builder.zext(builder.bitcast(found, ir.IntType(BIT_ROWS)), _I64)

    return types.int64(bits, types.int64), codegen


@intrinsic
def compress(typing, x, first, stop, index, value, count):
    """Append the non-zero x[i], first <= i < stop, and i as int32, to the lists; return their new length.

    stop - first a multiple of 16. Needs AVX-512: 0.1 us for 784 inputs where a scalar loop takes 0.45 us.
    """
    size = types.intp
    signature = size(x, size, size, index, value, size)

    def codegen(context, builder, signature, args):
        x, first, stop, index, value, count = args
        lanes = LANES if isinstance(x.type.pointee, ir.FloatType) else LANES // 2  # one register
        zero = ir.Constant(_vector(x.type.pointee, lanes), [0.0] * lanes)
        steps = ir.Constant(_vector(_I32, lanes), list(range(lanes)))
        loop = _Loop(builder, builder.sub(stop, first), lanes, [count])
        (length,) = loop.carried
        place = builder.add(first, loop.index)
        values = _load(builder, builder.gep(x, [place]), 0, lanes)
        chosen = builder.fcmp_unordered("!=", values, zero)  # NaN counts as an entry
        splat = builder.insert_element(ir.Constant(steps.type, ir.Undefined), builder.trunc(place, _I32), _I32(0))
        bases = builder.shuffle_vector(splat, splat, ir.Constant(_vector(_I32, lanes), [0] * lanes))
        for vector, into in ((values, value), (builder.add(bases, steps), index)):
            suffix = {"float": "f32", "double": "f64", "i32": "i32"}[str(vector.type.element)]
            kind = ir.FunctionType(vector.type, [vector.type, vector.type, chosen.type])
            name = f"llvm.x86.avx512.mask.compress.v{lanes}{suffix}"
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            packed = builder.call(function, [vector, vector, chosen])
            at = builder.bitcast(builder.gep(into, [length]), vector.type.as_pointer())
            builder.store(packed, at, align=4)
        mask = builder.bitcast(chosen, ir.IntType(lanes))
        found = builder.zext(builder.ctpop(mask), _I64)
        return loop.close([builder.add(length, found)])[0]

    return signature, codegen


# Registers of the sums of a tile: the rest hold what they are made of.
REGISTER_BYTES = 64 if _has("avx512f") else 32 if _has("avx") else 16
TILE_REGISTERS, DOT_REGISTERS = (16, 32) if _has("avx512f") else (24, 16) if _has("neon") else (12, 8)

# Tile shapes by the registers of the host. AVX-512 (and NEON, counted in float32) has 32 registers, AVX 16: the sums,
# one row of weights and one factor must fit, or LLVM spills inside the loop.
if _has("avx512f"):
    TILE_ROWS, TILE_VECTORS, DOT_ROWS, DOT_UNITS, SPARSE_VECTORS = 8, 2, 4, 4, 8
else:
    TILE_ROWS, TILE_VECTORS, DOT_ROWS, DOT_UNITS, SPARSE_VECTORS = 6, 1, 2, 2, 4

COMPRESS = _has("avx512f") and _has("avx512vl")

tile = _make_tile(TILE_ROWS, TILE_VECTORS)
tile_narrow = _make_tile(TILE_ROWS, 1)
tile_row = _make_tile(1, SPARSE_VECTORS)
tile_row_pair = _make_tile(1, 2)
tile_row_one = _make_tile(1, 1)
copy_tile = _make_copy(TILE_VECTORS)
dots = _make_dots(DOT_ROWS, DOT_UNITS)
dots_row = _make_dots(1, DOT_ROWS * DOT_UNITS)
dot = _make_dots(1, 1)
gather = _make_gather(SPARSE_VECTORS)
gather_pair = _make_gather(2)
gather_one = _make_gather(1)
scatter = _make_scatter(SPARSE_VECTORS)
scatter_pair = _make_scatter(2)
scatter_one = _make_scatter(1)
tile_bits = _make_tile_bits(SPARSE_VECTORS)
tile_bits_pair = _make_tile_bits(2)
tile_bits_one = _make_tile_bits(1)
