"""The tiled matrix product: a block of side x side threads sums one square tile, `each` x `each` elements a thread.

acc[i, j] += sum_k x[row(i), k] weight[k, column(j)] for ascending k, one chain of fused multiply-adds for an element.
Operands are flat arrays; `along` says that neighbours in memory are neighbours in k (x as it is, weight transposed),
otherwise they lie across it (x transposed, weight as it is). Four neighbours are loaded at once where the rows of both
operands begin on 16 bytes (`wide`), else one by one. Indices are 32 bits: an operand has less than 2^32 elements.

Each panel, DEPTH of k by one tile, passes through registers into shared memory, two panels deep: one is loaded while
the other is used, with one barrier between. The main loop has no test of bounds: rows and columns beyond the edge
repeat the last one, and are not stored. Only what is left of the depth, less than one panel, is tested by element.
"""

from functools import cache
from typing import Any, NamedTuple

from numba import uint32

from hotloop.kernels.cuda import tensor
from hotloop.kernels.cuda.shim import cuda, device, fma
from hotloop.kernels.cuda.vectors import load2, load4, store4

U = uint32
PAD = 4  # elements behind each row of a panel, so that stores across its rows meet different banks


class Tile(NamedTuple):
    """A tile's measures and its functions, for one block shape, orientation and width of loads."""

    size: int  # rows and columns
    shared: int  # elements of shared memory
    area: int  # elements of a thread
    accumulate: Any
    start_row: Any
    start: Any
    store: Any
    row: Any
    column: Any


@cache
def make_loads(along: bool, wide: bool) -> tuple[Any, Any, Any]:
    """Three functions for the four elements of a panel that begin at `at` across k, and at k.

    `begin` finds their index, `fetch` loads them, `fetch_tail` zeros those whose k lies beyond the depth.
    """

    @device
    def begin(ld, at, limit, k):
        if along:
            return min(at, limit - U(1)) * ld + k
        if wide:
            return k * ld + min(at, (limit - U(1)) & U(0xFFFFFFFC))
        return k * ld

    @device
    def fetch(array, base, index, at, limit):
        if wide:
            return load4(array, index, base)
        index, last = base + index, limit - U(1)
        if along:
            return array[index], array[index + 1], array[index + 2], array[index + 3]
        b, c, d = min(at + U(1), last), min(at + U(2), last), min(at + U(3), last)
        return array[index + min(at, last)], array[index + b], array[index + c], array[index + d]

    @device
    def fetch_tail(array, base, ld, at, limit, k, depth):
        a = b = c = d = array.dtype.type(0)
        index = begin(ld, at, limit, k)
        if along:
            index = base + index
            if k < depth:
                a = array[index]
            if k + U(1) < depth:
                b = array[index + 1]
            if k + U(2) < depth:
                c = array[index + 2]
            if k + U(3) < depth:
                d = array[index + 3]
        elif k < depth:
            a, b, c, d = fetch(array, base, index, at, limit)
        return a, b, c, d

    return begin, fetch, fetch_tail


@cache
def make_put(along: bool, ld: int) -> Any:
    """Write four fetched elements into a panel, whose rows hold one k each."""

    @device
    def put_along(panels, into, at, k, values):
        place = into + k * U(ld) + at
        panels[place] = values[0]
        panels[place + U(ld)] = values[1]
        panels[place + U(2 * ld)] = values[2]
        panels[place + U(3 * ld)] = values[3]

    @device
    def put_across(panels, into, at, k, values):
        store4(panels, into + k * U(ld) + at, 0, values)

    return put_along if along else put_across


@cache
def make_tile(side: int, each: int, x_along: bool, weight_along: bool, wide: bool, tf32: bool = False) -> Tile:
    """The product of one tile for blocks of side x side threads; each 2, 4 or 8, 4 side a multiple of 4 each.

    tf32: on tensor cores, see `tensor`; 4 side a multiple of 8 each.
    """
    size, depth, vector = side * each, 4 * side // each, min(each, 4)
    ld, groups, half, unroll = size + PAD, each // vector, side * vector, min(depth, 8)
    panel = depth * ld
    x_vectors = depth // 4 if x_along else size // 4  # of the panel's rows, or columns
    weight_vectors = depth // 4 if weight_along else size // 4
    load = load4 if vector == 4 else load2
    begin_x, fetch_x, fetch_x_tail = make_loads(x_along, wide)
    begin_weight, fetch_weight, fetch_weight_tail = make_loads(weight_along, wide)
    put_x, put_weight = make_put(x_along, ld), make_put(weight_along, ld)

    @device
    def row(i):
        """The row in the tile of this thread's i-th row: groups of four neighbours, for wide loads and stores."""
        return U((i // vector) * half + i % vector) + U(cuda.threadIdx.x) // U(side) * U(vector)

    @device
    def column(j):
        """The column in the tile of this thread's j-th column."""
        return U((j // vector) * half + j % vector) + U(cuda.threadIdx.x) % U(side) * U(vector)

    @device
    def place(along, vectors, t):
        """Where in a panel this thread's four elements lie: across and along k."""
        if along:
            return t // U(vectors), t % U(vectors) * U(4)
        return t % U(vectors) * U(4), t // U(vectors)

    @device
    def step(panels, x_at, weight_at, at, acc):
        x = cuda.local.array(each, panels.dtype)
        weight = cuda.local.array(each, panels.dtype)
        for g in range(groups):
            some_x, some_weight = load(panels, x_at, at + g * half), load(panels, weight_at, at + g * half)
            for i in range(vector):
                x[g * vector + i], weight[g * vector + i] = some_x[i], some_weight[i]
        for i in range(each):
            for j in range(each):
                acc[i * each + j] = fma(x[i], weight[j], acc[i * each + j])

    @device
    def steps(panels, x_at, weight_at, at, acc):
        """Written out: a loop around a step would not be unrolled, and cost its own counting."""
        step(panels, x_at, weight_at, at, acc)
        step(panels, x_at, weight_at, at + ld, acc)
        step(panels, x_at, weight_at, at + 2 * ld, acc)
        step(panels, x_at, weight_at, at + 3 * ld, acc)
        if unroll > 4:
            step(panels, x_at, weight_at, at + 4 * ld, acc)
            step(panels, x_at, weight_at, at + 5 * ld, acc)
            step(panels, x_at, weight_at, at + 6 * ld, acc)
            step(panels, x_at, weight_at, at + 7 * ld, acc)

    if unroll == depth:

        @device
        def multiply(panels, into, acc):
            steps(panels, into + row(0), into + U(2 * panel) + column(0), 0, acc)

    else:

        @device
        def multiply(panels, into, acc):
            x_at, weight_at = into + row(0), into + U(2 * panel) + column(0)
            for k in range(0, depth, unroll):
                steps(panels, x_at, weight_at, k * ld, acc)

    neighbours = vector
    if tf32:
        neighbours = 2
        put_x, put_weight = tensor.make_put(put_x), tensor.make_put(put_weight)
        row, column, multiply = tensor.make_multiply(side, each, ld, panel, depth)

    @device
    def accumulate(x, x_base, x_ld, weight, weight_base, weight_ld, bounds, corner, panels, acc):
        """acc += the products of one tile; bounds (rows, columns, first k, last k), corner its first row and column.

        Every thread of the block takes part. panels: `shared` elements of shared memory, free when this returns.
        """
        rows, columns, first, last = bounds
        t = U(cuda.threadIdx.x)
        across, x_k = place(x_along, x_vectors, t)
        weight_across, weight_k = place(weight_along, weight_vectors, t)
        x_row, weight_column = corner[0] + across, corner[1] + weight_across
        left = (last - first) // U(depth)
        whole = first + left * U(depth)
        into = U(0)
        if left > U(0):
            x_at = begin_x(x_ld, x_row, rows, first + x_k)
            weight_at = begin_weight(weight_ld, weight_column, columns, first + weight_k)
            some_x = fetch_x(x, x_base, x_at, x_row, rows)
            some_weight = fetch_weight(weight, weight_base, weight_at, weight_column, columns)
            while left > U(0):
                put_x(panels, into, across, x_k, some_x)
                put_weight(panels, into + U(2 * panel), weight_across, weight_k, some_weight)
                cuda.syncthreads()
                left -= U(1)
                if left > U(0):  # the last panel is fetched twice: cheaper than a branch around the loads
                    x_at += U(depth) if x_along else U(depth) * x_ld
                    weight_at += U(depth) if weight_along else U(depth) * weight_ld
                some_x = fetch_x(x, x_base, x_at, x_row, rows)
                some_weight = fetch_weight(weight, weight_base, weight_at, weight_column, columns)
                multiply(panels, into, acc)
                into = U(panel) - into
        if whole < last:
            tail_x = fetch_x_tail(x, x_base, x_ld, x_row, rows, whole + x_k, last)
            put_x(panels, into, across, x_k, tail_x)
            tail = fetch_weight_tail(weight, weight_base, weight_ld, weight_column, columns, whole + weight_k, last)
            put_weight(panels, into + U(2 * panel), weight_across, weight_k, tail)
            cuda.syncthreads()
            multiply(panels, into, acc)
        cuda.syncthreads()

    @device
    def start(bounds, corner, source, base, ld, acc):
        """acc = the tile of the source. Beyond the edge, the edge."""
        last_row, last_column = bounds[0] - U(1), bounds[1] - U(1)
        for i in range(each):
            at = base + min(corner[0] + row(i), last_row) * ld
            for j in range(each):
                acc[i * each + j] = source[at + min(corner[1] + column(j), last_column)]

    @device
    def start_row(bounds, corner, source, base, acc):
        """acc = the tile's columns of one row, in each of its rows.

        blockIdx.z is 0, which the compiler must not know: copies of one row went through local memory on sm_120.
        """
        start(bounds, corner, source, base, U(cuda.blockIdx.z), acc)

    @device
    def store(bounds, corner, acc, out, base, ld):
        """The tile of out = acc."""
        for i in range(each):
            r = corner[0] + row(i)
            if r < bounds[0]:
                for g in range(0, each, neighbours):
                    c, at = corner[1] + column(g), r * ld
                    if wide and neighbours == 4 and c + U(4) <= bounds[1]:
                        a = i * each + g
                        store4(out, at + c, base, (acc[a], acc[a + 1], acc[a + 2], acc[a + 3]))
                    else:
                        for j in range(neighbours):
                            if c + U(j) < bounds[1]:
                                out[base + at + c + U(j)] = acc[i * each + g + j]

    return Tile(size, 4 * panel, each * each, accumulate, start_row, start, store, row, column)
