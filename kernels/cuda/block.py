"""One network in the hands of one block of threads: forward, loss, backward and update, between barriers.

`lines` (n_lines, FIELDS) uint32 says where everything lies, one line per layer, line 0 the input. Parameters lie in
the array p, values and slopes of the rows in the array w; both in shared memory, or in the GPU's where they do not fit.
A weight is (fan_in + padding, LD), the bias the row behind it. Widths are padded to quads of four, with zeros that stay
zero; LD is an odd number of quads, so that neighbouring rows begin in different banks of the shared memory.

The order of every sum is the CPU's (see `hotloop.kernels.dense`): one ascending chain of fused multiply-adds for an
output and for a weight, 16 lanes and a tree for an input gradient.
"""

from functools import cache
from typing import Any, NamedTuple

from numba import float32, int64, uint64
from numba import uint32 as U  # noqa: N812 - in every index

from hotloop.kernels import activations as codes
from hotloop.kernels.cuda import losses
from hotloop.kernels.cuda.activations import activate, softmax
from hotloop.kernels.cuda.shim import cuda, device, fma
from hotloop.kernels.cuda.vectors import load4, store4

(
    WIDTH,  # units
    QUADS,  # ceil(units / 4)
    MAGIC,  # ceil(2^31 / QUADS)
    LD,  # elements from row to row, of the weight, the values and the slopes
    WEIGHT,  # in p
    BIAS,
    HAS_BIAS,
    ACTIVATION,
    VALUE,  # in w
    SLOPE,
    SOURCE_WEIGHT,  # in the parameters as the CPU lays them out
    SOURCE_BIAS,
    SOURCE_LD,
    FIELDS,
) = range(14)

QUAD = 4
LANES = 16  # of the sum of an input gradient


class Block(NamedTuple):
    """The device functions for one number of rows and units that a thread sums at once."""

    forward: Any
    backward: Any
    accumulate: Any


@device
def divide(t, magic):
    """t // quads by a multiplication, for t * quads < 2^31: a division takes 20 instructions."""
    return U((uint64(t) * uint64(magic)) >> uint64(31))


@device
def load_rows(lines, first, w, X, order, rows, count):
    """Bring the rows of these samples into the input's values, a warp for each row; zeros into those of padding.

    count: rows, those of padding among them.
    """
    width, ld, base = lines[first, WIDTH], lines[first, LD], lines[first, VALUE]
    warps, lane = U(cuda.blockDim.x) >> U(5), U(cuda.threadIdx.x) & U(31)
    padded = U(QUAD) * lines[first, QUADS]
    r = U(cuda.threadIdx.x) >> U(5)
    while r < count:
        sample = order[r] if r < rows else order[0]
        c = lane
        while c < padded:
            w[base + r * ld + c] = X[sample, c] if r < rows and c < width else float32(0)
            c += U(32)
        r += warps


@device
def move_params(lines, first, layers, p, params, start, inwards):
    """Copy a model's parameters from where the CPU lays them out into p (`inwards`), padding zero, or back."""
    warps, lane = U(cuda.blockDim.x) >> U(5), U(cuda.threadIdx.x) & U(31)
    for layer in range(first + U(1), first + layers + U(1)):
        width, ld, source_ld = lines[layer, WIDTH], lines[layer, LD], lines[layer, SOURCE_LD]
        fan_in, last = lines[layer - U(1), WIDTH], U(QUAD) * lines[layer - U(1), QUADS]
        k = U(cuda.threadIdx.x) >> U(5)
        while k <= last:  # the last row is the bias
            real = k < fan_in or k == last
            row = lines[layer, SOURCE_BIAS] if k == last else lines[layer, SOURCE_WEIGHT] + k * source_ld
            c = lane
            while c < ld:
                at = lines[layer, WEIGHT] + k * ld + c
                if real and c < width:
                    if inwards:
                        p[at] = params[start + row + c]
                    else:
                        params[start + row + c] = p[at]
                elif inwards:
                    p[at] = float32(0)
                c += U(32)
            k += warps


@device
def output_delta(lines, top, w, r, rows, loss, target, label, scale):
    """The loss of row r; its output slope becomes scale dloss/dz, zero in the rows and the units of padding."""
    width, ld = lines[top, WIDTH], lines[top, LD]
    value_at, delta_at = lines[top, VALUE] + r * ld, lines[top, SLOPE] + r * ld
    a, delta = w[value_at : value_at + width], w[delta_at : delta_at + width]
    for j in range(width, U(U(QUAD) * lines[top, QUADS])):
        w[delta_at + U(j)] = float32(0)
    k = int64(width)  # the losses mix indices with -1
    if r >= rows:
        for j in range(k):
            delta[j] = float32(0)
        return float32(0)
    jacobian = lines[top, ACTIVATION] == codes.SOFTMAX  # softmax without its fused loss
    if jacobian:
        softmax(a, k, delta)
        for j in range(k):
            a[j] = delta[j]
    value = losses.row(loss, a, target, label, k, a)  # one call: each is thousands of instructions
    if jacobian:
        mean = float32(0)
        for j in range(k):
            mean += delta[j] * a[j]
        for j in range(k):
            delta[j] = delta[j] * (a[j] - mean) * scale
    else:
        for j in range(k):
            delta[j] *= a[j] * scale
    return value


@device
def outer(x, e, a, b, c, d):
    """The 4 x 4 weights a, b, c, d plus x times e."""
    a = fma(x[0], e[0], a[0]), fma(x[0], e[1], a[1]), fma(x[0], e[2], a[2]), fma(x[0], e[3], a[3])
    b = fma(x[1], e[0], b[0]), fma(x[1], e[1], b[1]), fma(x[1], e[2], b[2]), fma(x[1], e[3], b[3])
    c = fma(x[2], e[0], c[0]), fma(x[2], e[1], c[1]), fma(x[2], e[2], c[2]), fma(x[2], e[3], c[3])
    d = fma(x[3], e[0], d[0]), fma(x[3], e[1], d[1]), fma(x[3], e[2], d[2]), fma(x[3], e[3], d[3])
    return a, b, c, d


@cache
def make_block(rows_each: int, units_each: int) -> Block:
    """A thread sums rows_each x units_each outputs at once: 4 x 4 for batches, 1 x 1 for single samples.

    Its rows are count / rows_each apart, so that neighbouring threads read neighbouring rows; its units are adjacent.
    """
    area = rows_each * units_each
    parts = QUAD // units_each  # threads to a quad of units
    backs = min(2, rows_each)  # rows of an input gradient: 16 lanes for each are as many registers as there are
    sums = backs * LANES

    @device
    def add(p, at, offset, acc, a, b, c, d):
        """acc += the terms of one k: its weights times the inputs of up to four rows."""
        if units_each == 1:
            acc[0] = fma(a, p[int64(at) + offset], acc[0])
        else:
            v = load4(p, at, offset)
            for j in range(4):
                acc[j] = fma(a, v[j], acc[j])
                if rows_each == 4:
                    acc[4 + j] = fma(b, v[j], acc[4 + j])
                    acc[8 + j] = fma(c, v[j], acc[8 + j])
                    acc[12 + j] = fma(d, v[j], acc[12 + j])

    @device
    def forward(lines, layer, p, w, count):
        """z = x @ weight + bias, a = f(z) and f'(z) of one layer and `count` rows, those of padding among them."""
        below = U(layer - U(1))
        ld, below_ld, units = lines[layer, LD], lines[below, LD], lines[layer, WIDTH]
        tiles, groups = U(parts) * lines[layer, QUADS], count // U(rows_each)
        code, value, slope = lines[layer, ACTIVATION], lines[layer, VALUE], lines[layer, SLOPE]
        acc = cuda.local.array(area, float32)
        t = U(cuda.threadIdx.x)
        while t < tiles * groups:
            group = divide(U(t // U(parts)), lines[layer, MAGIC])
            unit = U(units_each) * (t - group * tiles)
            x_at, step, row = lines[below, VALUE] + group * below_ld, int64(groups * below_ld), int64(ld)
            w_at = lines[layer, WEIGHT] + unit
            for j in range(units_each):
                bias = p[lines[layer, BIAS] + unit + U(j)]
                for i in range(rows_each):
                    acc[i * units_each + j] = bias
            for _ in range(lines[below, QUADS]):
                a = load4(w, x_at, 0)
                b = c = d = a
                if rows_each == 4:
                    b, c, d = load4(w, x_at, step), load4(w, x_at, 2 * step), load4(w, x_at, 3 * step)
                add(p, w_at, 0, acc, a[0], b[0], c[0], d[0])
                add(p, w_at, row, acc, a[1], b[1], c[1], d[1])
                add(p, w_at, 2 * row, acc, a[2], b[2], c[2], d[2])
                add(p, w_at, 3 * row, acc, a[3], b[3], c[3], d[3])
                x_at, w_at = U(x_at + U(QUAD)), U(w_at + U(QUAD) * ld)
            for i in range(rows_each):
                at = (group + U(i) * groups) * ld + unit
                for j in range(units_each):
                    w[value + at + U(j)] = acc[i * units_each + j]
            for i in range(area):
                at = (group + U(i // units_each) * groups) * ld + unit + U(i % units_each)
                a, s = activate(code, w[value + at])
                w[value + at] = a if unit + U(i % units_each) < units else float32(0)
                w[slope + at] = s
            t += U(cuda.blockDim.x)

    @device
    def backward(lines, layer, p, w, count):
        """The slopes of the layer below become its deltas: times delta @ weight.T."""
        below = U(layer - U(1))
        ld, below_ld, quads = lines[layer, LD], lines[below, LD], lines[layer, QUADS]
        units, groups = U(QUAD) * lines[below, QUADS], count // U(backs)
        lane = cuda.local.array(sums, float32)
        t = U(cuda.threadIdx.x)
        while t < units * groups:
            group = divide(U(t // U(QUAD)), lines[below, MAGIC])
            unit = t - group * units
            e_at, step = lines[layer, SLOPE] + group * ld, groups * ld
            w_at = lines[layer, WEIGHT] + unit * ld
            for i in range(sums):
                lane[i] = float32(0)
            for q in range(0, quads, 4):
                for part in range(4):
                    if U(q + part) < quads:
                        v, e_0 = load4(p, w_at, part * QUAD), load4(w, e_at, part * QUAD)
                        if backs == 2:
                            e_1 = load4(w, e_at + step, part * QUAD)
                        for j in range(4):
                            lane[part * QUAD + j] = fma(e_0[j], v[j], lane[part * QUAD + j])
                            if backs == 2:
                                at = LANES + part * QUAD + j
                                lane[at] = fma(e_1[j], v[j], lane[at])
                w_at, e_at = U(w_at + U(LANES)), U(e_at + U(LANES))
            for i in range(backs):
                for half in (8, 4, 2, 1):
                    for j in range(half):
                        lane[i * LANES + j] += lane[i * LANES + half + j]
                w[lines[below, SLOPE] + (group + U(i) * groups) * below_ld + unit] *= lane[i * LANES]
            t += U(cuda.blockDim.x)

    @device
    def accumulate(lines, first, layers, p, into, w, count):
        """p[into + ...] += the gradient's terms of these rows, of every layer; a thread has 4 x 4 weights at once.

        into: 0 for the parameters (the deltas carry -lr/n), or where a gradient lies (they carry 1/n). The deltas of
        rows of padding are zero.
        """
        thread, threads = U(cuda.threadIdx.x), U(cuda.blockDim.x)
        for layer in range(first + U(1), first + layers + U(1)):
            below = U(layer - U(1))
            ld, quads, magic = lines[layer, LD], lines[layer, QUADS], lines[layer, MAGIC]
            row, below_row = int64(ld), int64(lines[below, LD])
            weight = into + lines[layer, WEIGHT]
            t = thread
            while t < quads * lines[below, QUADS]:
                k = divide(t, magic)
                q = t - k * quads
                at = weight + U(QUAD) * k * ld + U(QUAD) * q
                a, b, c, d = load4(p, at, 0), load4(p, at, row), load4(p, at, 2 * row), load4(p, at, 3 * row)
                x_at, e_at = lines[below, VALUE] + U(QUAD) * k, lines[layer, SLOPE] + U(QUAD) * q
                for _ in range(count // U(rows_each)):
                    a, b, c, d = outer(load4(w, x_at, 0), load4(w, e_at, 0), a, b, c, d)
                    if rows_each == 4:
                        a, b, c, d = outer(load4(w, x_at, below_row), load4(w, e_at, row), a, b, c, d)
                        a, b, c, d = outer(load4(w, x_at, 2 * below_row), load4(w, e_at, 2 * row), a, b, c, d)
                        a, b, c, d = outer(load4(w, x_at, 3 * below_row), load4(w, e_at, 3 * row), a, b, c, d)
                    x_at, e_at = U(x_at + U(rows_each) * lines[below, LD]), U(e_at + U(rows_each) * ld)
                store4(p, at, 0, a)
                store4(p, at, row, b)
                store4(p, at, 2 * row, c)
                store4(p, at, 3 * row, d)
                t += threads
            if lines[layer, HAS_BIAS] != U(0):
                c_at = thread
                while c_at < lines[layer, WIDTH]:
                    total, e_at = p[into + lines[layer, BIAS] + c_at], lines[layer, SLOPE] + c_at
                    for _ in range(count):
                        total += w[e_at]
                        e_at = U(e_at + ld)
                    p[into + lines[layer, BIAS] + c_at] = total
                    c_at += threads

    return Block(forward, backward, accumulate)
