"""Products on tensor cores in TF32: operands rounded to 10 bits behind the leading one, sums in float32.

One instruction (mma.sync.m16n8k8, compute capability 8.0 or newer) multiplies 16 x 8 by 8 x 8 numbers, which the 32
threads of a warp hold together. Which rows, columns and k its places stand for is free, as long as all operands agree:
here so that what a thread holds lies side by side in the panels and in the result, for wide loads and stores.

The error of an operand is up to 2^-11 of it, 0.05 %, and the order in which the hardware adds eight products is its
own: bits and figures are not the CPU's.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import float32, uint32, uint64

from hotloop.kernels.cuda.shim import SIMULATOR, cuda, device
from hotloop.kernels.cuda.vectors import load2

U = uint32

if SIMULATOR:

    def rounded(x):
        """The TF32 number next to a float32, ties away from zero."""
        if not np.isfinite(x):
            return x
        return ((np.float32(x).view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)

    @device
    def mma(c, a, b):
        """c + a @ b, of which every thread of a warp holds 4, 4 and 2 elements as the instruction has them."""
        held = cuda.shared.array((int(cuda.blockDim.x), 6), float32)
        t = int(cuda.threadIdx.x)
        held[t] = (*a, *b)
        cuda.syncthreads()
        group, lane, warp = t % 32 // 4, t % 4, held[t // 32 * 32 : t // 32 * 32 + 32].reshape(8, 4, 6).astype(float)
        left = np.concatenate([warp[group, :, [0, 1]], warp[group, :, [2, 3]]], axis=1)  # rows group, group + 8; all k
        right = np.concatenate([warp[2 * lane : 2 * lane + 2, :, 4], warp[2 * lane : 2 * lane + 2, :, 5]], axis=1).T
        cuda.syncthreads()
        return tuple(np.float32(total) for total in c + (left @ right).ravel())

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    _F32, _I32 = ir.FloatType(), ir.IntType(32)
    _MMA = "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$0,$1,$2,$3};"

    @intrinsic
    def rounded(typing, x):
        """The TF32 number next to a float32, ties away from zero."""

        def codegen(context, builder, signature, args):
            convert = ir.InlineAsm(ir.FunctionType(_I32, [_F32]), "cvt.rna.tf32.f32 $0, $1;", "=r,f")
            return builder.bitcast(builder.call(convert, args), _F32)

        return types.float32(types.float32), codegen

    @intrinsic
    def mma(typing, c, a, b):
        """c + a @ b, of which every thread of a warp holds 4, 4 and 2 elements as the instruction has them."""

        def codegen(context, builder, signature, args):
            sums, *bits = (
                [builder.extract_value(values, i) for i in range(count)]
                for values, count in zip(args, (4, 4, 2), strict=True)
            )
            bits = [builder.bitcast(x, _I32) for some in bits for x in some]
            shape = ir.FunctionType(ir.LiteralStructType([_F32] * 4), [_I32] * 6 + [_F32] * 4)
            call = ir.InlineAsm(shape, _MMA, "=f,=f,=f,=f,r,r,r,r,r,r,0,1,2,3", side_effect=True)
            result = builder.call(call, [*bits, *sums], attrs=("convergent",))
            return context.make_tuple(
                builder, signature.return_type, [builder.extract_value(result, i) for i in range(4)]
            )

        four, two = types.UniTuple(types.float32, 4), types.UniTuple(types.float32, 2)
        return four(four, four, two), codegen


def make_put(put: Any) -> Any:
    """`put` of a panel's four elements, which rounds them."""

    @device
    def put_rounded(panels, into, at, k, values):
        a, b, c, d = rounded(values[0]), rounded(values[1]), rounded(values[2]), rounded(values[3])
        put(panels, into, at, k, (a, b, c, d))

    return put_rounded


@cache
def make_multiply(side: int, each: int, ld: int, panel: int, depth: int) -> tuple[Any, Any, Any]:
    """`row`, `column` and `multiply` of a tile (see `tiles`) whose panels have `depth`, a multiple of 8, rows of ld."""
    across = side // 4  # warps: each has 8 each rows and 4 each columns of the tile

    @device
    def row(i):
        """The row in the tile of this thread's i-th row: pairs of neighbours."""
        t = U(cuda.threadIdx.x)
        return t // U(32 * across) * U(8 * each) + U(i // 2 * 16 + i % 2) + t % U(32) // U(4) * U(2)

    @device
    def left(t):
        """The first column of this thread's warp."""
        return t // U(32) % U(across) * U(4 * each)

    @device
    def column(j):
        """The column in the tile of this thread's j-th column: pairs of neighbours."""
        t = U(cuda.threadIdx.x)
        return left(t) + U(j // 2 * 8 + j % 2) + t % U(4) * U(2)

    @device
    def step(panels, x_at, weight_at, at, acc):
        """Eight k: the places 0 .. 3 of the instruction are the even ones, 4 .. 7 the odd ones."""
        weight = cuda.local.array(each, float32)
        for j in range(0, each, 2):
            weight[j] = panels[weight_at + uint64(at + 4 * j)]
            weight[j + 1] = panels[weight_at + uint64(at + ld + 4 * j)]
        for i in range(0, each, 2):
            even, odd = load2(panels, x_at, at + 8 * i), load2(panels, x_at, at + ld + 8 * i)
            for j in range(0, each, 2):
                upper, lower = i * each + j, (i + 1) * each + j
                acc[upper], acc[upper + 1], acc[lower], acc[lower + 1] = mma(
                    (acc[upper], acc[upper + 1], acc[lower], acc[lower + 1]),
                    (even[0], even[1], odd[0], odd[1]),
                    (weight[j], weight[j + 1]),
                )

    @device
    def multiply(panels, into, acc):
        t = U(cuda.threadIdx.x)
        first = into + t % U(4) * U(2 * ld)
        weight_at = uint64(first + U(2 * panel) + left(t) + t % U(32) // U(4))
        for k in range(0, depth, 8):
            step(panels, first + row(0), weight_at, k * ld, acc)

    return row, column, multiply
