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
from hotloop.kernels.cuda import custom
from hotloop.kernels.cuda.activations import softmax
from hotloop.kernels.cuda.random import normal, words
from hotloop.kernels.cuda.regularize import HALVES, UNITS, clipped, drawn, fate, penalised, shrink
from hotloop.kernels.cuda.shim import cuda, device, fma
from hotloop.kernels.cuda.vectors import load4, store4
from hotloop.kernels.random import DROPOUT, NOISE

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
    """The device functions for one number of rows that a thread sums at once."""

    backward: Any
    accumulate: Any


@device
def divide(t, magic):
    """t // quads by a multiplication, for t * quads < 2^31: a division takes 20 instructions."""
    return U((uint64(t) * uint64(magic)) >> uint64(31))


@device
def load_rows(lines, first, w, X, order, rows, count):
    """Bring the rows of these samples into the input's values, a warp for each row.

    count: rows, those of padding among them, which are copies of the first: all that is computed of them is finite if
    that of the samples is, and their deltas are zero.
    """
    width, ld, base = lines[first, WIDTH], lines[first, LD], lines[first, VALUE]
    warps, lane = U(cuda.blockDim.x) >> U(5), U(cuda.threadIdx.x) & U(31)
    padded = U(QUAD) * lines[first, QUADS]
    r = U(cuda.threadIdx.x) >> U(5)
    while r < count:
        sample = order[r] if r < rows else order[0]
        c = lane
        while c < padded:
            w[base + r * ld + c] = X[sample, c] if c < width else float32(0)
            c = U(c + U(32))
        r = U(r + warps)


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
                c = U(c + U(32))
            k = U(k + warps)


@cache
def make_output_delta(own: custom.Loss | None) -> Any:
    """`output_delta` for the library's losses or one of the user's own."""
    row, apart = custom.make_row(own), custom.Own(loss=own).apart

    @device
    def output_delta(lines, top, w, r, rows, loss, target, label, scale):
        """The loss of row r; its output slope becomes scale dloss/dz, zero in the rows and the units of padding.

        Behind the output's slopes lies room for as many more, where a loss's own must not be written over the values.
        """
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
        slopes_at = U(delta_at + lines[top, SLOPE] - lines[top, VALUE]) if apart else value_at
        slopes = w[slopes_at : slopes_at + width]
        value = row(loss, a, target, label, k, slopes)  # one call: each is thousands of instructions
        if jacobian:
            mean = float32(0)
            for j in range(k):
                mean += delta[j] * slopes[j]
            for j in range(k):
                delta[j] = delta[j] * (slopes[j] - mean) * scale
        else:
            for j in range(k):
                delta[j] *= slopes[j] * scale
        return value

    return output_delta


@device
def drop(lines, first, layers, layer, w, rows, share, seed, epoch, position):
    """Drop a share (of HALVES) of a layer's units, as `hotloop.kernels.regularize.drop`; row 0 is at `position`."""
    number, width, ld = layer - first, lines[layer, WIDTH], lines[layer, LD]
    keep, groups = float32(HALVES) / float32(HALVES - share), (width + U(UNITS - 1)) // U(UNITS)
    t = U(cuda.threadIdx.x)
    while t < groups * rows:
        r = t // groups
        unit = U(UNITS) * (t - r * groups)
        draw = drawn(int64(layers + U(1)), int64(number), int64(position + r)) + int64(unit)
        a, b = words(seed, DROPOUT, epoch, draw)
        at = r * ld + unit
        for lane in range(min(int64(UNITS), int64(width - unit))):
            factor = fate(a, b, lane, share, keep)
            w[lines[layer, VALUE] + at + U(lane)] *= factor
            if number > U(0):  # the input has no slopes
                w[lines[layer, SLOPE] + at + U(lane)] *= factor
        t = U(t + U(cuda.blockDim.x))


@device
def add_noise(lines, first, w, rows, deviation, seed, epoch, position):
    """Add normal noise to the inputs, as `hotloop.kernels.regularize.add_noise`; row 0 is at `position`."""
    width, ld = lines[first, WIDTH], lines[first, LD]
    t = U(cuda.threadIdx.x)
    while t < width * rows:
        r = t // width
        c = t - r * width
        draw = normal(seed, NOISE, epoch, int64(position + r) * int64(width) + int64(c))
        w[lines[first, VALUE] + r * ld + c] += float32(deviation * draw)
        t = U(t + U(cuda.blockDim.x))


@device
def bound_gradient(lines, first, layers, p, grad, w, bounds):
    """Penalise and clip the gradient at p[grad:]; return the factor that keeps its norm to its bound.

    bounds: l1, l2, clip_value, clip_norm; 0 for none. w: room for a number of each thread.
    """
    l1, l2, value, norm = bounds[0], bounds[1], bounds[2], bounds[3]
    thread, threads, total = U(cuda.threadIdx.x), U(cuda.blockDim.x), float32(0)
    for layer in range(first + U(1), first + layers + U(1)):
        bias, end = lines[layer, BIAS], lines[layer, BIAS] + lines[layer, LD]
        i = lines[layer, WEIGHT] + thread
        while i < end:
            g = p[grad + i]
            if i < bias:
                g = penalised(g, p[i], l1, l2)
            if value > float32(0):
                g = clipped(g, value)
            p[grad + i] = g
            total = fma(g, g, total)
            i = U(i + threads)
    w[thread] = total
    cuda.syncthreads()
    total = float32(0)
    for t in range(threads):
        total += w[t]
    return shrink(total, norm) if norm > float32(0) else float32(1)


@device
def limit_norms(lines, first, layers, p, bound):
    """Scale the weights into every unit down to a norm of `bound`; a thread has a unit."""
    for layer in range(first + U(1), first + layers + U(1)):
        c, ld, bias = U(cuda.threadIdx.x), lines[layer, LD], lines[layer, BIAS]
        while c < lines[layer, WIDTH]:
            square, i = float32(0), lines[layer, WEIGHT] + c
            while i < bias:
                square = fma(p[i], p[i], square)
                i = U(i + ld)
            factor, i = shrink(square, bound), lines[layer, WEIGHT] + c
            while i < bias:
                p[i] *= factor
                i = U(i + ld)
            c = U(c + U(cuda.blockDim.x))


@device
def outer(x, e, a, b, c, d):
    """The 4 x 4 weights a, b, c, d plus x times e."""
    a = fma(x[0], e[0], a[0]), fma(x[0], e[1], a[1]), fma(x[0], e[2], a[2]), fma(x[0], e[3], a[3])
    b = fma(x[1], e[0], b[0]), fma(x[1], e[1], b[1]), fma(x[1], e[2], b[2]), fma(x[1], e[3], b[3])
    c = fma(x[2], e[0], c[0]), fma(x[2], e[1], c[1]), fma(x[2], e[2], c[2]), fma(x[2], e[3], c[3])
    d = fma(x[3], e[0], d[0]), fma(x[3], e[1], d[1]), fma(x[3], e[2], d[2]), fma(x[3], e[3], d[3])
    return a, b, c, d


@device
def tree(a, b, c, d):
    """The sum of 16 lanes: lane l and l + 8, then 4, 2, 1 apart."""
    even = (a[0] + c[0]) + (b[0] + d[0]), (a[1] + c[1]) + (b[1] + d[1])
    odd = (a[2] + c[2]) + (b[2] + d[2]), (a[3] + c[3]) + (b[3] + d[3])
    return (even[0] + odd[0]) + (even[1] + odd[1])


@cache
def make_forward(rows_each: int, own: tuple[custom.Activation, ...]) -> Any:
    """`forward` of a layer, for batches (4 rows a thread) or few rows (1), which knows these activations too."""
    activate = custom.make_activate(own)

    @device
    def finish(lines, layer, w, at, unit):
        """z at this place of the values, of this unit, becomes f(z), and the slope beside it f'(z)."""
        a, s = activate(lines[layer, ACTIVATION], w[lines[layer, VALUE] + at])
        real = unit < lines[layer, WIDTH]  # in units of padding a user's own function may be infinite
        w[lines[layer, VALUE] + at] = a if real else float32(0)
        w[lines[layer, SLOPE] + at] = s if real else float32(0)

    @device
    def tiles(lines, layer, p, w, count):
        """z = x @ weight + bias, a = f(z) and f'(z) of one layer and `count` rows, those of padding among them.

        A thread has four rows, count / 4 apart so that neighbouring threads read neighbouring rows, and four units.
        """
        below = U(layer - U(1))
        ld, below_ld, quads, groups = lines[layer, LD], lines[below, LD], lines[layer, QUADS], count // U(QUAD)
        step, row, out_step = int64(groups * below_ld), int64(ld), int64(groups * ld)
        t = U(cuda.threadIdx.x)
        while t < quads * groups:
            group = divide(t, lines[layer, MAGIC])
            unit = U(QUAD) * (t - group * quads)
            x_at, w_at = lines[below, VALUE] + group * below_ld, lines[layer, WEIGHT] + unit
            a = b = c = d = load4(p, lines[layer, BIAS] + unit, 0)
            for _ in range(lines[below, QUADS]):
                e, f = load4(w, x_at, 0), load4(w, x_at, step)
                g, h = load4(w, x_at, 2 * step), load4(w, x_at, 3 * step)
                a, b, c, d = outer((e[0], f[0], g[0], h[0]), load4(p, w_at, 0), a, b, c, d)
                a, b, c, d = outer((e[1], f[1], g[1], h[1]), load4(p, w_at, row), a, b, c, d)
                a, b, c, d = outer((e[2], f[2], g[2], h[2]), load4(p, w_at, 2 * row), a, b, c, d)
                a, b, c, d = outer((e[3], f[3], g[3], h[3]), load4(p, w_at, 3 * row), a, b, c, d)
                x_at, w_at = U(x_at + U(QUAD)), U(w_at + U(QUAD) * ld)
            at = group * ld + unit
            value = lines[layer, VALUE] + at
            store4(w, value, 0, a)
            store4(w, value, out_step, b)
            store4(w, value, 2 * out_step, c)
            store4(w, value, 3 * out_step, d)
            for i in range(QUAD * QUAD):
                j = U(i % QUAD)
                finish(lines, layer, w, at + U(i // QUAD) * groups * ld + j, unit + j)
            t = U(t + U(cuda.blockDim.x))

    @device
    def singles(lines, layer, p, w, count):
        """The same, for few rows: a thread has one row and one unit."""
        below = U(layer - U(1))
        ld, units = lines[layer, LD], U(QUAD) * lines[layer, QUADS]
        row = uint64(ld)  # unsigned: a signed index would be tested for being negative
        t = U(cuda.threadIdx.x)
        while t < units * count:
            group = divide(U(t // U(QUAD)), lines[layer, MAGIC])
            unit = t - group * units
            x_at, w_at = lines[below, VALUE] + group * lines[below, LD], uint64(lines[layer, WEIGHT] + unit)
            z = p[lines[layer, BIAS] + unit]
            for _ in range(lines[below, QUADS]):
                x = load4(w, x_at, 0)
                z = fma(x[1], p[w_at + row], fma(x[0], p[w_at], z))
                z = fma(x[3], p[w_at + uint64(3) * row], fma(x[2], p[w_at + uint64(2) * row], z))
                x_at, w_at = U(x_at + U(QUAD)), w_at + uint64(QUAD) * row
            at = group * ld + unit
            w[lines[layer, VALUE] + at] = z
            finish(lines, layer, w, at, unit)
            t = U(t + U(cuda.blockDim.x))

    return tiles if rows_each == 4 else singles


@cache
def make_block(rows_each: int) -> Block:
    """For batches, whose rows a thread takes by four, or for few rows, which it takes one by one."""
    backs = min(2, rows_each)  # rows of an input gradient: 16 lanes for each are as many registers as there are

    @device
    def lanes(p, w, w_at, e_at, offset, step, one, two):
        """Four lanes of one or two rows, and their next terms."""
        v, e = load4(p, w_at, offset), load4(w, e_at, offset)
        one = fma(e[0], v[0], one[0]), fma(e[1], v[1], one[1]), fma(e[2], v[2], one[2]), fma(e[3], v[3], one[3])
        if backs == 2:
            e = load4(w, e_at, step + offset)
            two = fma(e[0], v[0], two[0]), fma(e[1], v[1], two[1]), fma(e[2], v[2], two[2]), fma(e[3], v[3], two[3])
        return one, two

    @device
    def backward(lines, layer, p, w, count):
        """The slopes of the layer below become its deltas: times delta @ weight.T."""
        below = U(layer - U(1))
        ld, below_ld, quads = lines[layer, LD], lines[below, LD], lines[layer, QUADS]
        units, groups = U(QUAD) * lines[below, QUADS], count // U(backs)
        zero = float32(0), float32(0), float32(0), float32(0)
        t = U(cuda.threadIdx.x)
        while t < units * groups:
            group = divide(U(t // U(QUAD)), lines[below, MAGIC])
            unit = t - group * units
            e_at, step = lines[layer, SLOPE] + group * ld, int64(groups * ld)
            w_at = lines[layer, WEIGHT] + unit * ld
            a_0 = b_0 = c_0 = d_0 = a_1 = b_1 = c_1 = d_1 = zero  # lanes 0-3, 4-7, 8-11, 12-15 of one and two rows
            for q in range(0, quads, 4):
                a_0, a_1 = lanes(p, w, w_at, e_at, 0, step, a_0, a_1)
                if U(q + 1) < quads:
                    b_0, b_1 = lanes(p, w, w_at, e_at, 4, step, b_0, b_1)
                if U(q + 2) < quads:
                    c_0, c_1 = lanes(p, w, w_at, e_at, 8, step, c_0, c_1)
                if U(q + 3) < quads:
                    d_0, d_1 = lanes(p, w, w_at, e_at, 12, step, d_0, d_1)
                w_at, e_at = U(w_at + U(LANES)), U(e_at + U(LANES))
            at = lines[below, SLOPE] + group * below_ld + unit
            w[at] *= tree(a_0, b_0, c_0, d_0)
            if backs == 2:
                w[at + groups * below_ld] *= tree(a_1, b_1, c_1, d_1)
            t = U(t + U(cuda.blockDim.x))

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
                t = U(t + threads)
            if lines[layer, HAS_BIAS] != U(0):
                c_at = thread
                while c_at < lines[layer, WIDTH]:
                    total, e_at = p[into + lines[layer, BIAS] + c_at], lines[layer, SLOPE] + c_at
                    for _ in range(count):
                        total += w[e_at]
                        e_at = U(e_at + ld)
                    p[into + lines[layer, BIAS] + c_at] = total
                    c_at = U(c_at + threads)

    return Block(backward, accumulate)
