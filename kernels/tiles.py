"""Micro-kernels of dense matrix products: tiles held in registers, and dot products along the lanes."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hotloop.kernels.simd import (
    CACHE_LINE,
    DOT_REGISTERS,
    DOT_ROWS,
    DOT_UNITS,
    I32,
    I64,
    LANES,
    SPARSE_VECTORS,
    TILE_REGISTERS,
    TILE_ROWS,
    TILE_VECTORS,
    Loop,
    broadcast,
    build_fma,
    build_prefetch,
    load,
    loops_of,
    store,
    vector_type,
)

AHEAD = 16  # steps of a tile between asking for its x and needing it


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
            passes = loops_of(weight.type.pointee, rows * vectors, TILE_REGISTERS)
            width = LANES * vectors // passes
            lanes = min(LANES, width)
            line = CACHE_LINE // (4 if isinstance(weight.type.pointee, ir.FloatType) else 8)

            def part(columns, along_rows):
                start = []
                for r in range(rows):
                    row = builder.gep(init, [builder.mul(I64(r), init_row)])
                    start += [load(builder, row, c, lanes) for c in columns]
                if rows > 1:
                    for r in range(rows, 2 * rows):
                        row = builder.gep(out, [builder.mul(I64(r), out_row)])
                        for c in range(columns.start, columns.stop, line):
                            build_prefetch(builder, builder.gep(row, [I64(c)]))
                apart = x_row if along_rows else I64(1)
                x_rows = [builder.gep(x, [builder.mul(I64(r), apart)]) for r in range(rows)]
                ahead = builder.gep(x, [builder.mul(I64(AHEAD), x_k)])
                loop = Loop(builder, depth, 1, [weight, *start])
                weight_at, *chains = loop.carried
                offset = loop.index if along_rows else builder.mul(loop.index, x_k)
                if rows > 1:
                    build_prefetch(builder, builder.gep(ahead, [offset]))
                weights = [load(builder, weight_at, c, lanes) for c in columns]
                updated: list[Any] = []
                for r in range(rows):
                    factor = broadcast(builder, builder.load(builder.gep(x_rows[r], [offset])), lanes)
                    updated += [build_fma(builder, factor, w, chains[len(updated) + v]) for v, w in enumerate(weights)]
                sums = iter(loop.close([builder.gep(weight_at, [weight_k]), *updated])[1:])
                for r in range(rows):
                    row = builder.gep(out, [builder.mul(I64(r), out_row)])
                    for c in columns:
                        store(builder, next(sums), row, c)

            for first in range(0, LANES * vectors, width):
                columns = range(first, first + width, lanes)
                with builder.if_else(builder.icmp_signed("==", x_k, I64(1))) as (along, across):
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
            ahead = builder.mul(I64(AHEAD), source_row)
            loop = Loop(builder, rows, 1, [source, out])
            at, into = loop.carried
            for v in range(vectors):
                build_prefetch(builder, builder.gep(at, [builder.add(ahead, I64(LANES * v))]))
                store(builder, load(builder, at, LANES * v), into, LANES * v)
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
            mask = ir.VectorType(I32, len(low))
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
            zero = ir.Constant(vector_type(delta.type.pointee), [0.0] * LANES)
            delta_rows = [builder.mul(I64(r), delta_row) for r in range(rows)]
            some = max(1, units // loops_of(delta.type.pointee, rows * units, DOT_REGISTERS))
            for first in range(0, units, some):
                weight_rows = [builder.mul(I64(u), weight_row) for u in range(first, first + some)]
                loop = Loop(builder, width, LANES, [delta, weight, *[zero] * (rows * some)])
                delta_at, weight_at, *chains = loop.carried
                deltas = [load(builder, builder.gep(delta_at, [offset]), 0) for offset in delta_rows]
                weights = [load(builder, builder.gep(weight_at, [offset]), 0) for offset in weight_rows]
                pairs = [(deltas[r], weights[u]) for r in range(rows) for u in range(some)]
                updated = [build_fma(builder, *pair, chain) for pair, chain in zip(pairs, chains, strict=True)]
                step = I64(LANES)
                sums = loop.close([builder.gep(delta_at, [step]), builder.gep(weight_at, [step]), *updated])[2:]
                total = _tree(builder, sums)
                for r in range(rows):
                    row = builder.gep(out, [builder.mul(I64(r), out_row)])
                    mask = ir.Constant(ir.VectorType(I32, some), [r * some + u for u in range(some)])
                    part = builder.shuffle_vector(total, total, mask)
                    store(builder, builder.fmul(part, load(builder, row, first, some)), row, first)
            return context.get_dummy_value()

        return signature, codegen

    return dots


tile = _make_tile(TILE_ROWS, TILE_VECTORS)
tile_narrow = _make_tile(TILE_ROWS, 1)
tile_row = _make_tile(1, SPARSE_VECTORS)
tile_row_pair = _make_tile(1, 2)
tile_row_one = _make_tile(1, 1)
copy_tile = _make_copy(TILE_VECTORS)
dots = _make_dots(DOT_ROWS, DOT_UNITS)
dots_row = _make_dots(1, DOT_ROWS * DOT_UNITS)
dot = _make_dots(1, 1)
