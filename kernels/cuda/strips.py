"""Products of few rows, which a square tile would leave mostly empty: every thread of a block takes part in each.

A sum over k is divided into slices, each an ascending chain of fused multiply-adds, and the slices are added in
ascending order: the same bits for the same block of threads. Operands are flat arrays, indices 32 bits, as in `tiles`.
"""

from functools import cache
from typing import Any

from numba import uint32

from hotloop.kernels.cuda.shim import cuda, device, fma
from hotloop.kernels.cuda.vectors import load4

U = uint32
GROUP = 4  # rows that share each weight a thread loads
AREA = 4  # elements of shared memory for each thread of the block


@device
def step(w, a, b, c, d, totals):
    """One k of GROUP sums."""
    return fma(a, w, totals[0]), fma(b, w, totals[1]), fma(c, w, totals[2]), fma(d, w, totals[3])


@cache
def make_strip(wide: bool) -> Any:
    """`strip` for rows of x that begin on 16 bytes, or do not."""

    @device
    def four(x, at, base):
        if wide:
            return load4(x, at, base)
        at = base + at
        return x[at], x[at + 1], x[at + 2], x[at + 3]

    @device
    def strip(x, x_base, x_ld, weight, weight_base, weight_ld, bounds, corner, width, panels):
        """Partial sums of x @ weight, for `strip_total`: GROUP rows and `width` columns from the corner.

        bounds (rows, columns, depth); width a power of 2.
        """
        rows, columns, depth = bounds
        t, slices = U(cuda.threadIdx.x), U(cuda.blockDim.x) // width
        some = (depth + slices * U(4) - U(1)) // (slices * U(4)) * U(4)
        k = min(t // width * some, depth)
        last = min(k + some, depth)
        last_row, column = rows - U(1), min(corner[1] + t % width, columns - U(1))
        at_0, at_1 = corner[0] * x_ld, min(corner[0] + U(1), last_row) * x_ld
        at_2, at_3 = min(corner[0] + U(2), last_row) * x_ld, min(corner[0] + U(3), last_row) * x_ld
        zero = x.dtype.type(0)
        totals = zero, zero, zero, zero
        while k + U(4) <= last:
            x_0, x_1 = four(x, at_0 + k, x_base), four(x, at_1 + k, x_base)
            x_2, x_3 = four(x, at_2 + k, x_base), four(x, at_3 + k, x_base)
            at = weight_base + k * weight_ld + column
            totals = step(weight[at], x_0[0], x_1[0], x_2[0], x_3[0], totals)  # a loop would index tuples in memory
            totals = step(weight[at + weight_ld], x_0[1], x_1[1], x_2[1], x_3[1], totals)
            totals = step(weight[at + U(2) * weight_ld], x_0[2], x_1[2], x_2[2], x_3[2], totals)
            totals = step(weight[at + U(3) * weight_ld], x_0[3], x_1[3], x_2[3], x_3[3], totals)
            k += U(4)
        while k < last:
            w, at = weight[weight_base + k * weight_ld + column], x_base + k
            totals = step(w, x[at + at_0], x[at + at_1], x[at + at_2], x[at + at_3], totals)
            k += U(1)
        into = t // width * width * U(GROUP) + t % width
        panels[into], panels[into + width] = totals[0], totals[1]
        panels[into + U(2) * width], panels[into + U(3) * width] = totals[2], totals[3]
        cuda.syncthreads()

    return strip


@device
def strip_total(total, element, width, panels):
    """total + the sum of one of the GROUP x width elements of a strip, slice by slice."""
    slices, step = U(cuda.blockDim.x) // width, width * U(GROUP)
    for s in range(slices):
        total += panels[U(s) * step + element]
    return total


@device
def lanes_of(width):
    """Threads that share one sum along the rows of two operands: `dot`'s lanes."""
    return U(4) if width <= U(16) else U(16)


@device
def dot(delta, delta_at, weight, weight_at, width, lanes, panels):
    """sum_j delta[delta_at + j] weight[weight_at + j] for each group of neighbouring threads (see lanes_of).

    Each thread of a group gets the sum. Offsets are 64 bits, of rows that begin on 16 bytes.
    """
    t, zero = U(cuda.threadIdx.x), delta.dtype.type(0)
    total, j = zero, t % lanes * U(4)
    while j + U(4) <= width:
        d, w = load4(delta, j, delta_at), load4(weight, j, weight_at)
        total = fma(d[1], w[1], fma(d[0], w[0], total))
        total = fma(d[3], w[3], fma(d[2], w[2], total))
        j += lanes * U(4)
    while j < width:
        total = fma(delta[delta_at + j], weight[weight_at + j], total)
        j += U(1)
    panels[t] = total
    cuda.syncthreads()
    total = zero
    for i in range(lanes):
        total += panels[t // lanes * lanes + U(i)]
    cuda.syncthreads()
    return total
