"""Regularisation on the GPU, the twin of `hotloop.kernels.regularize`: the same draws, sums of squares in its order.

Functions for a whole block of threads to call; `block` of `blocks` does its share.
"""

from typing import Any, NamedTuple

from numba import uint32

from hotloop.kernels import random as draws
from hotloop.kernels import regularize as cpu
from hotloop.kernels import updates
from hotloop.kernels.cuda import random
from hotloop.kernels.cuda.shim import cuda, device, fma, shared
from hotloop.kernels.plan import BIAS, HAS_BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.simd import LANES

U = uint32
HALVES, UNITS = cpu.HALVES, cpu.UNITS

penalised, clipped, shrink = shared(cpu.penalised), shared(cpu.clipped), shared(cpu.shrink)
fate, drawn = shared(cpu.fate), shared(cpu.drawn)
_passive_aggressive_share = shared(updates.passive_aggressive_share)


class Regular(NamedTuple):
    """What regularises a training, as the CPU's of this name; zero, or an empty dropout, is none of it."""

    l1: Any  # of the parameters' dtype, as the four below
    l2: Any
    clip_value: Any
    clip_norm: Any
    max_norm: Any
    dropout: Any  # (n_layers,) int64, of HALVES, the share of input and hidden units dropped; (0,) for none
    noise: float
    seed: int
    epoch: int


@device
def drops(regular, layer):
    """Whether units of a layer are dropped."""
    return regular.dropout.shape[0] > 0 and regular.dropout[layer] > 0


@device
def kept(share, like):
    """What the units that stay are multiplied by: 1 / (1 - share)."""
    whole = like.dtype.type(HALVES)
    return whole / (whole - like.dtype.type(share))


@device
def _drop_units(plan, work, regular, layer, position, row, unit):
    """Drop up to UNITS units of a layer from `unit` on, for row `row` of the workspace; by one thread."""
    share, last = regular.dropout[layer], min(unit + UNITS, plan[layer, WIDTH])
    keep = kept(share, work)
    a, b = random.words(
        regular.seed, draws.DROPOUT, regular.epoch, drawn(plan.shape[0], layer, position) + unit
    )  # fmt: skip
    at = row * plan[layer, STRIDE]
    for c in range(unit, last):
        factor = fate(a, b, c - unit, share, keep)
        work[plan[layer, VALUE] + at + c] *= factor
        work[plan[layer, SLOPE] + at + c] *= factor


@device
def drop(plan, work, regular, layer, position, begin, end, height, width, block, blocks):
    """Drop units of rows begin .. end of a hidden layer, row 0 being at `position` of the epoch.

    The rows are divided into tiles (height, width) as the forward pass divides them, so that no other block's are met.
    """
    rows, columns = U(end - begin), U(plan[layer, WIDTH])
    across, groups = (columns + width - U(1)) // width, width // U(UNITS)
    for i in range(block, (rows + height - U(1)) // height * across, blocks):
        top, left = U(i) // across * height, U(i) % across * width
        for e in range(cuda.threadIdx.x, height * groups, cuda.blockDim.x):
            r, c = top + U(e) // groups, left + U(e) % groups * U(UNITS)
            if r < rows and c < columns:
                _drop_units(plan, work, regular, layer, position + begin + r, begin + r, c)


@device
def drop_inputs(plan, work, regular, position, row):
    """Drop inputs of the sample at `position` of the epoch, whose values begin at work[row]."""
    share = regular.dropout[0]
    keep, first = kept(share, work), drawn(plan.shape[0], 0, position)
    for unit in range(UNITS * cuda.threadIdx.x, plan[0, WIDTH], UNITS * cuda.blockDim.x):
        a, b = random.words(regular.seed, draws.DROPOUT, regular.epoch, first + unit)
        for c in range(unit, min(unit + UNITS, plan[0, WIDTH])):
            work[row + c] *= fate(a, b, c - unit, share, keep)


@device
def add_noise(plan, work, regular, position, row):
    """Add normal noise to the inputs of the sample at `position` of the epoch, which begin at work[row]."""
    width = plan[0, WIDTH]
    for j in range(cuda.threadIdx.x, width, cuda.blockDim.x):
        draw = random.normal(regular.seed, draws.NOISE, regular.epoch, position * width + j)
        work[row + j] += work.dtype.type(regular.noise * draw)


@device
def restrain(plan, work, x, r, cost, scale, variant):
    """Make row r's step, whose inputs begin at work[x], the smallest that ends its loss; see epochs.per_sample."""
    delta, k = plan[1, SLOPE] + r * plan[1, STRIDE], plan[1, WIDTH]
    zero = work.dtype.type(0)
    if scale == zero:
        return
    square, slopes = work.dtype.type(plan[1, HAS_BIAS]), zero
    for i in range(plan[0, WIDTH]):
        square = fma(work[x + i], work[x + i], square)
    for j in range(k):
        slope = work[delta + j] / scale
        slopes = fma(slope, slope, slopes)
    share = _passive_aggressive_share(cost, square * slopes, -scale, variant)
    for j in range(k):
        work[delta + j] *= share


@device
def sum_squares(grad, n, squares, panels, block, blocks):
    """squares[b] = the sum of squares of the b-th BLOCK of the first n elements of grad, on 16 lanes and by a tree."""
    t = cuda.threadIdx.x
    lane, groups, zero = t % LANES, cuda.blockDim.x // LANES, grad.dtype.type(0)
    for first in range(block * groups, squares.shape[0], blocks * groups):
        b, total = first + t // LANES, zero
        for i in range(b * cpu.BLOCK + lane, min(n, (b + 1) * cpu.BLOCK), LANES):
            total = fma(grad[i], grad[i], total)
        panels[t] = total
        half = LANES // 2
        while half > 0:
            cuda.syncthreads()
            if lane < half:
                panels[t] += panels[t + half]
            half //= 2
        if lane == 0 and b < squares.shape[0]:
            squares[b] = panels[t]
        cuda.syncthreads()


@device
def two_sum(total, rest, value):
    """total + value, and rest with that sum's rounding error added (Knuth)."""
    new = total + value
    part = new - total
    return new, rest + ((total - (new - part)) + (value - part))


@device
def total(squares):
    """The sum of all squares."""
    whole = rest = squares.dtype.type(0)
    for b in range(squares.shape[0]):
        whole, rest = two_sum(whole, rest, squares[b])
    return whole + rest


@device
def limit_norms(plan, params, bound, block, blocks):
    """Scale the weights into every unit down to a norm of `bound`; a thread has a unit."""
    for layer in range(1, plan.shape[0]):
        padded = plan[layer, PADDED]
        for c in range(block * cuda.blockDim.x + cuda.threadIdx.x, plan[layer, WIDTH], blocks * cuda.blockDim.x):
            square = params.dtype.type(0)
            for i in range(plan[layer, WEIGHT] + c, plan[layer, BIAS], padded):
                square = fma(params[i], params[i], square)
            factor = shrink(square, bound)
            if factor < params.dtype.type(1):
                for i in range(plan[layer, WEIGHT] + c, plan[layer, BIAS], padded):
                    params[i] *= factor
