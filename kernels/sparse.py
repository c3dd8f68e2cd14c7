"""Rows given by their non-zero entries: forward and update touch only the weights those entries meet.

A zero adds nothing to a sum of fused multiply-adds and changes no weight, so the results have the bits of `dense`.
index int32 and value hold `count` entries in ascending order; weight (fan_in, fan_out) C-contiguous.
"""

from hotloop.kernels.jit import inner, jit
from hotloop.kernels.simd import (
    LANES,
    SPARSE_VECTORS,
    advance,
    cast,
    fma,
    gather,
    gather_one,
    gather_pair,
    pointer,
    scatter,
    scatter_one,
    scatter_pair,
)

WIDE, PAIR = LANES * SPARSE_VECTORS, LANES * 2


@jit
def compact(x, n, index, value):
    """Write the non-zero entries of x[:n] to index (int32) and value, both of n or more; return their number."""
    count, zero = 0, cast(0.0, x[0])
    for i in range(n):  # no branch: every entry is written, the next one overwrites it if it was a zero
        index[count] = i
        value[count] = x[i]
        count += 1 if x[i] != zero else 0
    return count


@inner
def accumulate(index, value, count, weight, weight_row, columns, out):
    """out[c] += sum_k value[k] weight[index[k], c] on pointers."""
    c = 0
    while c + WIDE <= columns:
        gather(index, value, count, advance(weight, c), weight_row, advance(out, c))
        c += WIDE
    while c + PAIR <= columns:
        gather_pair(index, value, count, advance(weight, c), weight_row, advance(out, c))
        c += PAIR
    while c + LANES <= columns:
        gather_one(index, value, count, advance(weight, c), weight_row, advance(out, c))
        c += LANES
    while c < columns:
        for k in range(count):
            out[c] = fma(value[k], weight[index[k] * weight_row + c], out[c])
        c += 1


@inner
def distribute(index, value, count, delta, weight, weight_row, columns):
    """weight[index[k], c] += value[k] delta[c] on pointers."""
    c = 0
    while c + WIDE <= columns:
        scatter(index, value, count, advance(weight, c), weight_row, advance(delta, c))
        c += WIDE
    while c + PAIR <= columns:
        scatter_pair(index, value, count, advance(weight, c), weight_row, advance(delta, c))
        c += PAIR
    while c + LANES <= columns:
        scatter_one(index, value, count, advance(weight, c), weight_row, advance(delta, c))
        c += LANES
    while c < columns:
        for k in range(count):
            at = index[k] * weight_row + c
            weight[at] = fma(value[k], delta[c], weight[at])
        c += 1


@jit
def forward_row(index, value, count, weight, bias, out):
    """out = sum_k value[k] weight[index[k]] + bias; writes out (fan_out,)."""
    out[:] = bias
    columns = weight.shape[1]
    accumulate(pointer(index, 0), pointer(value, 0), count, pointer(weight, 0), columns, columns, pointer(out, 0))


@jit
def update_row(index, value, count, delta, weight):
    """weight[index[k]] += value[k] delta for k < count, in place; delta (fan_out,)."""
    columns = weight.shape[1]
    at = pointer(index, 0), pointer(value, 0)
    distribute(at[0], at[1], count, pointer(delta, 0), pointer(weight, 0), columns, columns)
