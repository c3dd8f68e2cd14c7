"""Regularisation: penalties on weights, bounds on gradients and weights, dropout and noise.

Everything random is drawn from (seed, epoch, position in the epoch, layer, unit), everything summed in one order, so
neither threads nor pieces nor sparse rows change a bit.
"""

from functools import cache
from math import sqrt  # not np.sqrt, which numba-cuda lacks
from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types
from numba.np.numpy_support import from_dtype
from numpy.typing import DTypeLike

from hotloop.kernels import barrier, random
from hotloop.kernels.jit import address, apart, call, inner
from hotloop.kernels.plan import BIAS, PADDED, SLOPE, STRIDE, VALUE, WEIGHT, WIDTH
from hotloop.kernels.simd import LANES, cast, fma, make_buffer, pointer
from hotloop.kernels.tiles import dot

BLOCK = 1024  # elements summed along 16 lanes for the norm of a gradient; the sums of blocks are added in order
HALVES = 65536  # a unit's fate is 16 random bits
UNITS = 8  # that two random words decide on

_MASK = np.uint64(HALVES - 1)

lanes_buffer = make_buffer(LANES)


class Parts(NamedTuple):
    """Where the code of each way to regularise is in this process, see `jit.apart`; 0 where a run does without."""

    drop: int = 0
    add_noise: int = 0
    bound_gradient: int = 0
    limit_norms: int = 0


class Regular(NamedTuple):
    """What regularises a training; zero, or an empty dropout, is none of it."""

    l1: float
    l2: float
    clip_value: float
    clip_norm: float
    max_norm: float
    dropout: Any  # (n_layers,) float64, the shares of input and hidden units dropped; (0,) for none
    noise: float  # standard deviation of what is added to inputs
    seed: int
    epoch: Any  # (1,) int64, counted over all epochs of a course
    parts: Parts = Parts()  # see `ready`


@inner
def penalised(slope, weight, l1, l2):
    """The slope of one weight's loss with its penalties: slope + l1 sign(weight) + l2 weight; sign(0) = 0."""
    zero = cast(0.0, weight)
    sign = (l1 if weight > zero else zero) - (l1 if weight < zero else zero)
    return fma(l2, weight, slope + sign)


@inner
def clipped(slope, bound):
    """clip(slope, -bound, bound); NaN stays."""
    lower = bound if slope > bound else slope
    return -bound if lower < -bound else lower


@inner
def shrink(square, bound):
    """What brings a norm down to the bound where it is larger: bound / norm, else 1; in the type of its square."""
    norm = sqrt(square)
    return cast(bound, norm) / norm if norm > bound else cast(1.0, norm)


@inner
def fate(a, b, lane, share, kept):
    """What unit `lane` of the eight with the random words a and b is multiplied by: kept, or 0 for a share / HALVES."""
    word = np.uint64(a) if lane < 4 else np.uint64(b)
    half = (word >> np.uint64(16 * (lane % 4))) & _MASK
    return kept if half >= np.uint64(share) else cast(0.0, kept)


@inner
def drawn(layers, layer, position):
    """The number of the first draw for a layer's units, of a sample at this position, in a network of `layers`."""
    return (position * layers + layer) * (1 << 24)


@inner
def penalise(plan, params, grad, l1, l2, begin, end):
    """grad += l2 weight + l1 sign(weight) within begin .. end, for all weights and no bias; sign(0) = 0."""
    for layer in range(1, plan.shape[0]):
        first = max(begin, plan[layer, WEIGHT])
        weight, slope = pointer(params, first), pointer(grad, first)
        pull, shrinking = cast(l1, params[0]), cast(l2, params[0])
        for i in range(min(end, plan[layer, BIAS]) - first):
            slope[i] = penalised(slope[i], weight[i], pull, shrinking)


@inner
def clip_values(grad, bound, begin, end):
    """grad = clip(grad, -bound, bound) within begin .. end; NaN stays."""
    slope, most = pointer(grad, begin), cast(bound, grad[0])
    for i in range(end - begin):
        slope[i] = clipped(slope[i], most)


@inner
def sum_squares(grad, squares, begin, end):
    """squares[b] = the sum of squares of the b-th BLOCK of grad, for blocks begin .. end."""
    for block in range(begin, end):
        at = block * BLOCK
        whole = min(BLOCK, grad.shape[0] - at) // LANES * LANES
        part = pointer(grad, at)
        squares[block] = cast(1.0, grad[0])
        dot(part, 0, part, 0, pointer(squares, block), 0, whole)


@inner
def scale_to_norm(grad, squares, bound, begin, end):
    """grad *= min(1, bound / its norm) within begin .. end (Pascanu, Mikolov and Bengio 2013, algorithm 1)."""
    total = 0.0
    for block in range(squares.shape[0]):
        total += squares[block]
    factor = cast(shrink(total, bound), grad[0])
    if factor < cast(1.0, factor):
        slope = pointer(grad, begin)
        for i in range(end - begin):
            slope[i] *= factor


@apart
def _limit_norms(plan, params, bound, thread, threads):
    """Scale the weights into every unit down to a norm of `bound`, for this thread's share of the units.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, section 5.1.
    """
    factors = lanes_buffer(pointer(params, 0))
    for layer in range(1, plan.shape[0]):
        padded, fan_in = plan[layer, PADDED], plan[layer - 1, WIDTH]
        vectors = padded // LANES
        for vector in range(vectors * thread // threads, vectors * (thread + 1) // threads):
            weight = pointer(params, plan[layer, WEIGHT] + vector * LANES)
            for lane in range(LANES):
                factors[lane] = cast(0.0, weight[0])
            for k in range(fan_in):
                for lane in range(LANES):
                    factors[lane] = fma(weight[k * padded + lane], weight[k * padded + lane], factors[lane])
            for lane in range(LANES):
                factors[lane] = shrink(factors[lane], bound)
            for k in range(fan_in):
                for lane in range(LANES):
                    weight[k * padded + lane] *= factors[lane]


@apart
def _drop(plan, work, layer, r, position, regular):
    """Drop units of a layer for row r, which is at `position` of the epoch: value and slope 0, else 1 / (1 - share)."""
    width, share = plan[layer, WIDTH], np.uint64(np.round(regular.dropout[layer] * HALVES))
    value = pointer(work, plan[layer, VALUE] + r * plan[layer, STRIDE])
    slope = pointer(work, plan[layer, SLOPE] + r * plan[layer, STRIDE])
    kept = cast(HALVES / (HALVES - float(share)), value[0])
    first = drawn(plan.shape[0], layer, position)
    for at in range(0, width, UNITS):
        a, b = random.words(regular.seed, random.DROPOUT, regular.epoch[0], first + at)
        for lane in range(min(UNITS, width - at)):
            factor = fate(a, b, lane, share, kept)
            value[at + lane] *= factor
            slope[at + lane] *= factor


@apart
def _add_noise(plan, work, r, position, regular):
    """Add normal noise to the inputs of row r, which is at `position` of the epoch."""
    row, width = pointer(work, plan[0, VALUE] + r * plan[0, STRIDE]), plan[0, WIDTH]
    for j in range(width):
        draw = random.normal(regular.seed, random.NOISE, regular.epoch[0], position * width + j)
        row[j] += cast(regular.noise * draw, row[j])


@apart
def _bound_gradient(plan, params, grad, squares, regular, meeting, thread, threads):
    """Add the penalties to the gradient and clip it; each thread its share."""
    first, last, begin, end = share(params.shape[0], squares.shape[0], thread, threads)
    if regular.l1 > 0.0 or regular.l2 > 0.0:
        penalise(plan, params, grad, regular.l1, regular.l2, begin, end)
    if regular.clip_value > 0.0:
        clip_values(grad, regular.clip_value, begin, end)
    if regular.clip_norm > 0.0:
        sum_squares(grad, squares, first, last)
        barrier.wait(meeting, threads)
        scale_to_norm(grad, squares, regular.clip_norm, begin, end)


@inner
def share(n, blocks, thread, threads):
    """A thread's blocks first .. last of a buffer of n elements, and these elements begin .. end."""
    first, last = blocks * thread // threads, blocks * (thread + 1) // threads
    return first, last, min(n, first * BLOCK), min(n, last * BLOCK)


@inner
def drop(plan, work, layer, r, position, regular):
    """Drop units of a layer for row r, which is at `position` of the epoch: value and slope 0, else 1 / (1 - share)."""
    call(regular.parts.drop, (plan, work, layer, r, position, regular))


@inner
def add_noise(plan, work, r, position, regular):
    """Add normal noise to the inputs of row r, which is at `position` of the epoch."""
    call(regular.parts.add_noise, (plan, work, r, position, regular))


@inner
def bound_gradient(net, grad, squares, regular, meeting, thread, threads):
    """Add the penalties to the gradient and clip it, where anything asks for it; each thread its share."""
    plan, params = net
    call(regular.parts.bound_gradient, (plan, params, grad, squares, regular, meeting, thread, threads))


@inner
def limit_norms(net, regular, thread, threads):
    """Scale the weights into every unit down to a norm of max_norm, for this thread's share of the units."""
    plan, params = net
    call(regular.parts.limit_norms, (plan, params, regular.max_norm, thread, threads))


@cache
def _signatures(dtype: DTypeLike) -> tuple[Any, ...]:
    """The types of the arguments of each of the Parts, for parameters of this dtype."""
    regular = typeof(Regular(0.0, 0.0, 0.0, 0.0, 0.0, np.zeros(0), 0.0, 0, np.zeros(1, np.int64)))
    whole, plan, vector, meeting = types.int64, types.int64[:, ::1], from_dtype(np.dtype(dtype))[::1], types.int64[::1]
    return (
        (plan, vector, whole, whole, whole, regular),
        (plan, vector, whole, whole, regular),
        (plan, vector, vector, vector, regular, meeting, whole, whole),
        (plan, vector, types.float64, whole, whole),
    )


def ready(regular: Regular, dtype: DTypeLike) -> Regular:
    """The same with the addresses of what it needs, for parameters of this dtype."""
    bounds = regular.l1 or regular.l2 or regular.clip_value or regular.clip_norm
    needed = len(regular.dropout), regular.noise, bounds, regular.max_norm
    if not any(needed):
        return regular
    parts, kinds = (_drop, _add_noise, _bound_gradient, _limit_norms), _signatures(np.dtype(dtype))
    return regular._replace(parts=Parts(*(address(parts[i], *kinds[i]) if needed[i] else 0 for i in range(len(parts)))))
