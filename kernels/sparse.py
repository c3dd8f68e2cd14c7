"""Rows given by their non-zero entries: forward and update touch only the weights those entries meet.

A zero adds nothing to a sum of fused multiply-adds and changes no weight, so the results have the bits of `dense`.
index int32 and value hold `count` entries in ascending order; weight (fan_in, fan_out) C-contiguous.
"""

from numba.extending import register_jitable

from hotloop.kernels.jit import inner, jit
from hotloop.kernels.simd import (
    COMPRESS,
    LANES,
    SPARSE_VECTORS,
    advance,
    cast,
    compress,
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
SPAN = 128  # features of a block: 64 and 256 were 3 % slower on 784-128-10
MOST_BLOCKS = 64  # of a row; where it has very many features they are larger: their ends are written for each sample


@register_jitable
def span(features, columns):
    """Features of a block: its weights fill the first-level cache, and a row has at most MOST_BLOCKS of them."""
    return SPAN * max(1, WIDE // columns, (features + SPAN * MOST_BLOCKS - 1) // (SPAN * MOST_BLOCKS))


@register_jitable
def blocks_of(features, columns):
    """How many blocks of features a row has, before a weight of so many columns."""
    size = span(features, columns)
    return (features + size - 1) // size


@inner
def append(x, first, stop, index, value, count):
    """Append the non-zero x[i], first <= i < stop, and i, to the lists on pointers; return their new length."""
    if COMPRESS:
        whole = stop - (stop - first) % LANES
        count = compress(x, first, whole, index, value, count)
        first = whole
    for i in range(first, stop):  # no branch: every entry is written, the next one overwrites it if it was a zero
        index[count] = i
        value[count] = x[i]
        count += 1 if x[i] != cast(0.0, x[i]) else 0
    return count


@jit
def compact(x, n, index, value):
    """Write the non-zero entries of x[:n] to index (int32) and value, both of n or more; return their number."""
    return append(pointer(x, 0), 0, n, pointer(index, 0), pointer(value, 0), 0)


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


@inner
def load_dense(x, n, size, index, value, ends):
    """List the non-zero entries of x[:n]; ends[b] is the number of entries before feature b size, int32."""
    count = 0
    ends[0] = 0
    for block in range((n + size - 1) // size):
        count = append(x, block * size, min(n, (block + 1) * size), index, value, count)
        ends[block + 1] = count


@inner
def load_listed(source_index, source_value, count, n, size, index, value, ends):
    """Copy a listed row, and find its ends as load_dense does."""
    at = 0
    ends[0] = 0
    for block in range((n + size - 1) // size):
        while at < count and source_index[at] < (block + 1) * size:
            index[at] = source_index[at]
            value[at] = source_value[at]
            at += 1
        ends[block + 1] = at


@inner
def fill_out(index, value, count, n, x):
    """x[:n] = the row that is listed."""
    for j in range(n):
        x[j] = cast(0.0, x[j])
    for k in range(count):
        x[index[k]] = value[k]


@inner
def forward_part(lists, list_row, begin, end, block, blocks, weight, weight_row, columns, out, out_row):
    """out[r, c] += sum_k value[k] weight[index[k], c] for listed rows begin .. end, within one block of features."""
    index, value, ends = lists
    for r in range(begin, end):
        at = ends[r * (blocks + 1) + block]
        count = ends[r * (blocks + 1) + block + 1] - at
        at += r * list_row
        accumulate(
            advance(index, at), advance(value, at), count, weight, weight_row, columns, advance(out, r * out_row)
        )


@inner
def update_part(lists, list_row, begin, end, block, blocks, delta, delta_row, weight, weight_row, columns):
    """weight[index[k], c] += value[k] delta[r, c] for listed rows begin .. end, within one block of features."""
    index, value, ends = lists
    for r in range(begin, end):
        at = ends[r * (blocks + 1) + block]
        count = ends[r * (blocks + 1) + block + 1] - at
        at += r * list_row
        back = advance(delta, r * delta_row)
        distribute(advance(index, at), advance(value, at), count, back, weight, weight_row, columns)


@inner
def forward_block(lists, list_row, begin, end, blocks, weight, weight_row, columns, out, out_row):
    """out[r, c] += sum_k value[k] weight[index[k], c] for listed rows begin .. end.

    A block of features at a time: their weights stay in the first-level cache for all rows
    (784-128-10, 32 rows: 0.4 us a sample instead of 0.7 us row by row).
    """
    for c in range(0, columns, WIDE):
        some, at, into = min(WIDE, columns - c), advance(weight, c), advance(out, c)
        for block in range(blocks):
            forward_part(lists, list_row, begin, end, block, blocks, at, weight_row, some, into, out_row)


@inner
def update_block(lists, list_row, rows, first, last, blocks, delta, delta_row, weight, weight_row, columns):
    """weight[index[k], c] += value[k] delta[r, c] for all listed rows, within the blocks of features first .. last."""
    for c in range(0, columns, WIDE):
        some, at, back = min(WIDE, columns - c), advance(weight, c), advance(delta, c)
        for block in range(first, last):
            update_part(lists, list_row, 0, rows, block, blocks, back, delta_row, at, weight_row, some)


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
