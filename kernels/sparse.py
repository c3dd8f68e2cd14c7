"""Rows given by their non-zero entries: forward and update touch only the weights those entries meet.

A zero adds nothing to a sum of fused multiply-adds and changes no weight, so the results have the bits of `dense`.
index int32 and value hold `count` entries in ascending order; weight (fan_in, fan_out) C-contiguous.
"""

from hotloop.kernels.entries import (
    compress,
    gather,
    gather_one,
    gather_pair,
    gather_row_one,
    gather_row_pair,
    scatter,
    scatter_one,
    scatter_pair,
)
from hotloop.kernels.jit import apart, call, inner, inner_or_python, jit
from hotloop.kernels.simd import (
    COMPRESS,
    LANES,
    SPARSE_VECTORS,
    advance,
    cast,
    fma,
    make_buffer,
    pointer,
)

WIDE, PAIR = LANES * SPARSE_VECTORS, LANES * 2
MOST_WINDOW = 64  # samples of a window at most

lanes_buffer = make_buffer(LANES * MOST_WINDOW)
NARROW = LANES * 4  # most columns of a weight whose sums would wait for each of their additions
SPAN = 128  # features of a block: 64 and 256 were 3 % slower on 784-128-10
MOST_BLOCKS = 64  # of a row; where it has very many features they are larger: their ends are written for each sample


@inner_or_python
def span(features, columns):
    """Features of a block, before a weight of so many columns: at most MOST_BLOCKS a row, and one if it is narrow."""
    if columns <= PAIR:
        return max(1, features)
    return SPAN * max(1, (features + SPAN * MOST_BLOCKS - 1) // (SPAN * MOST_BLOCKS))


@inner_or_python
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
def accumulate(index, value, count, weight, weight_row, columns, init, out):
    """out[c] = init[c] + sum_k value[k] weight[index[k], c] on pointers; init may be out."""
    c = 0
    while c + WIDE <= columns:
        gather(index, value, count, advance(weight, c), weight_row, advance(init, c), advance(out, c))
        c += WIDE
    while c + PAIR <= columns:
        gather_pair(index, value, count, advance(weight, c), weight_row, advance(init, c), advance(out, c))
        c += PAIR
    while c + LANES <= columns:
        gather_one(index, value, count, advance(weight, c), weight_row, advance(init, c), advance(out, c))
        c += LANES
    while c < columns:
        out[c] = init[c]
        for k in range(count):
            out[c] = fma(value[k], weight[index[k] * weight_row + c], out[c])
        c += 1


@inner
def accumulate_row(index, value, count, weight, weight_row, columns, init, out):
    """accumulate of a row by itself: sums of few columns are divided in four, see entries.gather_row.

    weight_row, the columns that the weight has, chooses the order of the sums, which for narrow weights is not that of
    `accumulate` and `dense`; `columns`, a multiple of 16, may be some of them. `bench/race.py --case
    mnist-784-10-hinge-b1` takes 1.3 times the time with `accumulate`.
    """
    if weight_row > NARROW:
        accumulate(index, value, count, weight, weight_row, columns, init, out)
        return
    c = 0
    while c + PAIR <= columns:
        gather_row_pair(index, value, count, advance(weight, c), weight_row, advance(init, c), advance(out, c))
        c += PAIR
    if c < columns:
        gather_row_one(index, value, count, advance(weight, c), weight_row, advance(init, c), advance(out, c))


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


@apart
def load_dense(x, n, size, index, value, ends):
    """List the non-zero entries of x[:n]; ends[b] is the number of entries before feature b size, int32."""
    count = 0
    ends[0] = 0
    for block in range((n + size - 1) // size):
        count = append(x, block * size, min(n, (block + 1) * size), index, value, count)
        ends[block + 1] = count


@jit
def list_rows(X, start, index, value):
    """List the non-zero entries of all rows, row r from start[r] on; writes start (n + 1,) int64, index (int32), value.

    Returns whether they fit: a row may need X.shape[1] + 16 elements behind those before it.
    """
    n, width = X.shape
    start[0] = 0
    for r in range(n):
        at = start[r]
        if at + width + LANES > index.shape[0]:
            return False
        start[r + 1] = at + append(pointer(X, r * width), 0, width, pointer(index, at), pointer(value, at), 0)
    return True


@apart
def load_listed(source_index, source_value, count, n, size, index, value, ends):
    """Copy a listed row, and find its ends as load_dense does."""
    at, blocks = 0, (n + size - 1) // size
    ends[0] = 0
    if blocks == 1:
        for k in range(count):
            index[k] = source_index[k]
        for k in range(count):
            value[k] = source_value[k]
        ends[1] = count
        return
    for block in range(blocks):
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


@apart
def overlaps(entries, ends, row, blocks, rows, window, table, out):
    """out[r, s] = x_r . x_s for s < r, of listed rows; the order of its sums is that of `dense.back_product`.

    entries: indices and values, each row's `row` elements after the last; out (rows, window). table (n_features,
    window), zero before and after, is the rows so far, transposed.
    """
    index, value = entries
    lanes = lanes_buffer(value)
    for r in range(rows):
        at, count = r * row, ends[r * (blocks + 1) + blocks]
        for i in range(LANES * window):
            lanes[i] = cast(0.0, lanes[i])
        for k in range(count):
            of, sums = advance(table, index[at + k] * window), advance(lanes, index[at + k] % LANES * window)
            for s in range(window):
                sums[s] = fma(value[at + k], of[s], sums[s])
            of[r] = value[at + k]
        half = LANES // 2
        while half > 0:
            for i in range(half * window):
                lanes[i] += lanes[half * window + i]
            half //= 2
        for s in range(window):
            out[r * window + s] = lanes[s]
    for r in range(rows):
        for k in range(ends[r * (blocks + 1) + blocks]):
            table[index[r * row + k] * window + r] = cast(0.0, value[0])


@apart
def forward_part(lists, list_row, begin, rows, block, blocks, weight, weight_row, columns, out, out_row):
    """out[r, c] += sum_k value[k] weight[index[k], c] for listed rows from begin on, within one block of features."""
    index, value, ends = lists
    for r in range(rows):
        at = ends[(begin + r) * (blocks + 1) + block]
        count, into = ends[(begin + r) * (blocks + 1) + block + 1] - at, advance(out, r * out_row)
        at += (begin + r) * list_row
        accumulate(advance(index, at), advance(value, at), count, weight, weight_row, columns, into, into)


@apart
def update_part(lists, list_row, begin, rows, block, blocks, delta, delta_row, weight, weight_row, columns):
    """weight[index[k], c] += value[k] delta[r, c] for listed rows from begin on, within one block of features."""
    index, value, ends = lists
    for r in range(rows):
        at = ends[(begin + r) * (blocks + 1) + block]
        count, back = ends[(begin + r) * (blocks + 1) + block + 1] - at, advance(delta, r * delta_row)
        at += (begin + r) * list_row
        distribute(advance(index, at), advance(value, at), count, back, weight, weight_row, columns)


@inner
def forward_block(part, lists, list_row, begin, end, blocks, weight, weight_row, columns, out, out_row):
    """out[r, c] += sum_k value[k] weight[index[k], c] for listed rows begin .. end; part: where forward_part is.

    A block of features at a time: their weights stay in the first-level cache for all rows
    (784-128-10, 32 rows: 0.4 us a sample instead of 0.7 us row by row).
    """
    for c in range(0, columns, WIDE):
        some, at, into = min(WIDE, columns - c), advance(weight, c), advance(out, begin * out_row + c)
        for block in range(blocks):
            call(part, (lists, list_row, begin, end - begin, block, blocks, at, weight_row, some, into, out_row))


@inner
def update_block(part, lists, list_row, rows, first, last, blocks, delta, delta_row, weight, weight_row, columns):
    """weight[index[k], c] += value[k] delta[r, c] for all listed rows, within the blocks of features first .. last.

    part: where update_part is.
    """
    for c in range(0, columns, WIDE):
        some, at, back = min(WIDE, columns - c), advance(weight, c), advance(delta, c)
        for block in range(first, last):
            call(part, (lists, list_row, 0, rows, block, blocks, back, delta_row, at, weight_row, some))


@jit
def forward_row(index, value, count, weight, bias, out):
    """out = sum_k value[k] weight[index[k]] + bias; writes out (fan_out,)."""
    columns, at, init = weight.shape[1], pointer(weight, 0), pointer(bias, 0)
    accumulate(pointer(index, 0), pointer(value, 0), count, at, columns, columns, init, pointer(out, 0))


@jit
def update_row(index, value, count, delta, weight):
    """weight[index[k]] += value[k] delta for k < count, in place; delta (fan_out,)."""
    columns = weight.shape[1]
    at = pointer(index, 0), pointer(value, 0)
    distribute(at[0], at[1], count, pointer(delta, 0), pointer(weight, 0), columns, columns)
